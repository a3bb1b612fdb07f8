// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/contract_members.hpp"

#include <algorithm>
#include <utility>

#include "core/error.hpp"
#include "receiver/cache_scales.hpp"

namespace refit::receiver {
namespace {

/// Engines that can hold the model at all; that one of them cannot is no fault of a checkpoint.
bool can_hold(const EngineContract& contract, const ContractInstance& profile,
              const model::ModelConfig& model) {
    if (contract.intersection || contract.formats.empty()) return false;
    if (model.experts > 0 && contract.layout.expert_format != ExpertFormat::as_config) return false;
    const auto& unread = contract.unread_architectures;
    if (std::find(unread.begin(), unread.end(), model.architecture) != unread.end()) return false;
    return profile.tp == 1 || contract.layout.tensor_parallel;
}

core::Finding config_finding(const EngineContract& contract, const std::string& behaviour,
                             const std::string& measured, const std::string& limit,
                             const std::string& sentence, const std::string& remedy) {
    core::Finding finding;
    finding.check = "shape_contract";
    finding.tensor = "quantization_config";
    finding.measured = measured;
    finding.limit = limit;
    finding.engine_behaviour = behaviour;
    finding.remedy = remedy;
    finding.message = "quantization_config: " + sentence + "; " + remedy + " (contract of " +
                      contract.name + ": " + contract.snapshot + ")";
    return finding;
}

/// The engine takes the config for another scheme than the profile does.
core::Finding other_scheme(const EngineContract& contract, quant::Scheme found,
                           quant::Scheme wanted) {
    const std::string as = std::string(quant::scheme_name(found));
    const std::string meant = std::string(quant::scheme_name(wanted));
    return config_finding(contract, "silently_wrong", as, meant,
                          contract.name + " reads it as " + as + ", the others as " + meant,
                          "write the scales as quant_method compressed-tensors names them, or "
                          "leave out " +
                              contract.name);
}

/// The engine's contract without what the profile says as a warning.
EngineContract without_own_limits(EngineContract contract) {
    contract.defects.clear();
    return contract;
}

}  // namespace

void add_members(ContractInstance& profile, const model::ModelConfig& model,
                 CacheScales cache_scales) {
    if (profile.config.json.empty()) return;
    for (const EngineContract& contract : engine_catalog()) {
        if (!can_hold(contract, profile, model)) continue;
        ConfigReading reading = read_quantization_config(contract.name, profile.config.json);
        if (!reading.usable) {
            for (core::Finding& finding : reading.findings) {
                // Without a behaviour it is no refusal: the config is another engine's.
                if (finding.severity != core::Severity::error) continue;
                if (finding.engine_behaviour.empty()) continue;
                profile.refusals.push_back(std::move(finding));
            }
            continue;
        }
        if (reading.config.scheme != profile.config.scheme) {
            profile.refusals.push_back(
                other_scheme(contract, reading.config.scheme, profile.config.scheme));
            continue;
        }
        try {
            // An engine without a place for them meets them as names that it does not know.
            const bool holds_scales =
                cache_scale_refusal(contract, reading.config, model.architecture, cache_scales)
                    .empty();
            ContractInstance member =
                apply_contract(without_own_limits(contract), model, reading.config, profile.tp,
                               profile.ep, holds_scales ? cache_scales : CacheScales::none);
            // All refusals under this rule are of ragged grids, which the profile warns of.
            if (contract.block_rule == BlockRule::scale_grid) member.refusals.clear();
            profile.members.push_back(std::move(member));
        } catch (const core::ScenarioError& refusal) {
            profile.refusals.push_back(config_finding(contract, "raises", "refused",
                                                      "a config that the engine reads",
                                                      refusal.what(), "correct it"));
        }
    }
}

}  // namespace refit::receiver
