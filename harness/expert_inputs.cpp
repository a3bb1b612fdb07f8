// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/expert_inputs.hpp"

#include <fmt/core.h>

#include <cmath>
#include <optional>
#include <string>
#include <string_view>

#include "checks/value_scan.hpp"

namespace refit::harness {
namespace {

/// Of the comparison in both engines.
constexpr double kTolerance = 1e-5;
constexpr std::string_view kGate = ".gate_proj.input_scale";

std::optional<double> number_of(const CheckpointSurvey& survey, const std::string& name) {
    const auto at = survey.files().find(name);
    if (at.tensor == nullptr || core::element_count(at.tensor->shape) != 1 ||
        core::size_bytes(at.tensor->dtype) == 0) {
        return std::nullopt;
    }
    return checks::value_at(at.tensor->dtype, checks::ValueKind::scale, at.file->bytes(*at.tensor),
                            0);
}

core::Finding finding_of(const receiver::EngineContract& contract, const std::string& name,
                         double gate, double up, bool raises) {
    core::Finding finding;
    finding.check = "shape_contract";
    finding.severity = raises ? core::Severity::error : core::Severity::warning;
    finding.tensor = name;
    finding.measured = fmt::format("{:.9g}, and {:.9g} of gate_proj", up, gate);
    finding.limit = "one input scale for gate_proj and up_proj of an expert";
    finding.engine_behaviour = raises ? "raises" : "";
    if (raises) {
        finding.engine_message = fmt::format(
            "ValueError: input_scales of w1 and w3 of a layer must be equal. But got "
            "{:.9g} vs. {:.9g}",
            gate, up);
    }
    finding.remedy = "write the larger of the two for both";
    finding.message =
        fmt::format("{}: is {}; {} {}; {} (contract: {})", name, finding.measured, contract.name,
                    raises ? "refuses experts whose two input scales are more than 1e-5 apart"
                           : "holds one for both and keeps the one that comes last",
                    finding.remedy, contract.snapshot);
    return finding;
}

}  // namespace

core::Findings differing_expert_inputs(const receiver::EngineContract& contract,
                                       const receiver::QuantizationConfig& config,
                                       const CheckpointSurvey& survey) {
    core::Findings findings;
    const bool compressed = config.quant_method == "compressed-tensors";
    const bool one_parameter = contract.unknown_names == receiver::UnknownNames::vllm ||
                               contract.unknown_names == receiver::UnknownNames::sglang;
    if (!one_parameter || !config.static_activations ||
        (!compressed && config.quant_method != "fp8")) {
        return findings;
    }
    for (const std::string& name : survey.names()) {
        if (!name.ends_with(kGate) || name.find(".mlp.experts.") == std::string::npos) continue;
        const std::string partner =
            name.substr(0, name.size() - kGate.size()) + ".up_proj.input_scale";
        const std::optional<double> gate = number_of(survey, name);
        const std::optional<double> up = number_of(survey, partner);
        if (!gate || !up || !(std::abs(*gate - *up) > kTolerance)) continue;
        // A parameter that holds 1.0 counts as one that nothing was loaded into.
        findings.push_back(finding_of(contract, partner, *gate, *up, compressed && *gate != 1.0));
    }
    return findings;
}

}  // namespace refit::harness
