// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/router_check.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "receiver/skip_rules.hpp"

namespace refit::receiver {
namespace {

bool leaves_out(const model::ModelConfig& model, const std::string& key) {
    return std::find(model.left_out.begin(), model.left_out.end(), key) != model.left_out.end();
}

}  // namespace

core::Findings unlisted_routers(const EngineContract& contract, const model::ModelConfig& model,
                                const QuantizationConfig& config) {
    const auto& families = contract.quantized_routers;
    core::Findings findings;
    if (config.scheme == quant::Scheme::bf16 ||
        std::find(families.begin(), families.end(), model.architecture) == families.end()) {
        return findings;
    }
    const SkipRules rules(contract, config);
    for (const model::TensorSpec& spec : model::tensors_of(model)) {
        if (spec.role != model::Role::router || !spec.name.ends_with(".weight")) continue;
        const std::string module = spec.name.substr(0, spec.name.rfind('.'));
        const SkipAnswer answer = rules.ask({module, {module}, "GateLinear"});
        if (answer.skipped) continue;
        core::Finding finding;
        finding.check = "shape_contract";
        finding.severity = core::Severity::error;
        finding.tensor = spec.name;
        finding.measured = "a router that the skip list does not name";
        finding.limit = "routers in BF16 on the skip list";
        finding.engine_behaviour = "silently_wrong";
        finding.remedy = "add " + module + " to the skip list of quantization_config";
        finding.message = spec.name + ": the skip list does not name the router, so that " +
                          contract.name + " holds it in E4M3 and casts the stored values without " +
                          "a scale; " + finding.remedy + " (contract: vLLM 0.33.0)";
        findings.push_back(std::move(finding));
    }
    return findings;
}

core::Findings unlisted_head(const EngineContract& contract, const QuantizationConfig& config,
                             bool stored) {
    if (!contract.quantized_head || config.scheme == quant::Scheme::bf16) return {};
    const SkipRules rules(contract, config);
    if (rules.ask({"lm_head", {"lm_head"}, "ParallelLMHead"}).skipped) return {};
    core::Finding finding;
    finding.check = "shape_contract";
    finding.severity = stored ? core::Severity::error : core::Severity::warning;
    finding.tensor = "lm_head.weight";
    finding.measured = "a head that the skip list does not name";
    finding.limit = "the head on the skip list";
    finding.engine_behaviour = stored ? "silently_wrong" : "";
    finding.remedy = "add lm_head to the skip list of quantization_config";
    finding.message = finding.tensor + ": the skip list does not name the head, so that " +
                      contract.name +
                      (stored ? " holds it in E4M3 and casts the stored values without a scale"
                              : " makes it a quantized layer and then ties it to the unquantized "
                                "embedding; whether that works was not run") +
                      "; " + finding.remedy + " (contract: " + contract.snapshot + ")";
    return {finding};
}

model::ModelConfig with_built_routers(const EngineContract& contract, model::ModelConfig model) {
    if (contract.router_bias_by_method && leaves_out(model, "topk_method")) {
        model.router_bias = false;
    }
    return model;
}

core::Findings left_out_keys(const EngineContract& contract, const model::ModelConfig& model) {
    core::Findings findings;
    for (const NeededKey& needed : contract.needed_keys) {
        if (needed.architecture != model.architecture || !leaves_out(model, needed.key)) continue;
        core::Finding finding;
        finding.check = "shape_contract";
        finding.severity = core::Severity::error;
        finding.tensor = "config.json";
        finding.measured = needed.key + " is absent";
        finding.limit = needed.key;
        finding.engine_behaviour = "raises";
        finding.engine_message = needed.engine_message;
        finding.remedy = "write the key: " + needed.key + " of the original config.json";
        finding.message = "config.json: has no " + needed.key + ", which " + contract.name +
                          " takes from it (SGLang 0.5.23 says \"" + needed.engine_message +
                          "\"); " + finding.remedy;
        findings.push_back(std::move(finding));
    }
    return findings;
}

}  // namespace refit::receiver
