// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Scales of the KV cache, which many checkpoints lack and many engines drop.
#include <algorithm>

#include "receiver/cache_scales.hpp"
#include "receiver/contract_checker.hpp"

namespace refit::receiver {

using core::Severity;
using core::to_string;

void ContractChecker::missing_scale_of_cache(const wire::WantedParameter& wanted) {
    const std::string partner = partner_of_cache_scale(instance_, wanted);
    const MissingCacheScale outcome =
        missing_cache_scale(contract_, wanted, came_.count(partner) != 0);
    add(wanted.name, {.check = "names",
                      .measured = "absent",
                      .limit = dtype_text(wanted.dtypes.front()) + " " + to_string(wanted.shape),
                      .behaviour = outcome.behaviour,
                      .engine_message = outcome.engine_message,
                      .remedy = "send the scales of the KV cache with every refit, under names "
                                "that the engine maps",
                      .message = "is missing; " + outcome.consequence + " (" +
                                 consequence(outcome.behaviour, instance_.engine) + ")"});
}

bool ContractChecker::cache_scale(const wire::ParameterMeta& parameter) {
    const auto row = std::find_if(contract_.rows.begin(), contract_.rows.end(),
                                  [](const ContractRow& r) { return r.suffix == "cache_scale"; });
    if (row == contract_.rows.end() || instance_.config.scheme == quant::Scheme::bf16) {
        return false;
    }
    // Attention layers without a place for it, and names that the loader maps to none, drop it
    // or raise. The engines of a profile are asked in turn.
    const bool mapped = contract_.cache_scales.loader == CacheScaleLoader::sglang ||
                        contract_.cache_scales.loader == CacheScaleLoader::vllm;
    const bool latent_sglang = contract_.cache_scales.loader == CacheScaleLoader::sglang &&
                               instance_.architecture == model::Architecture::deepseek_v3;
    if (mapped && !latent_sglang &&
        cache_scale_target(contract_, instance_.config, instance_.architecture, parameter.name)
            .empty()) {
        return false;
    }
    if (is_one_a_head(parameter)) return true;
    wire::WantedParameter wanted;
    wanted.name = parameter.name;
    wanted.shape = {1};
    const LoadOutcome outcome = shape_outcome(*row, parameter.shape, wanted, {});
    if (!outcome.behaviour.empty()) report_shape(parameter, wanted, outcome);
    return true;
}

bool ContractChecker::is_one_a_head(const wire::ParameterMeta& parameter) {
    const std::int64_t count = core::element_count(parameter.shape);
    const bool flat = std::all_of(parameter.shape.begin() + (parameter.shape.empty() ? 0 : 1),
                                  parameter.shape.end(), [](std::int64_t d) { return d == 1; });
    if (!contract_.checks_cache_scheme || !instance_.config.cache_scales_by_head || count < 2 ||
        !flat) {
        return false;
    }
    if (parameter.name.ends_with("q_scale")) {
        add(parameter.name, {.check = "shape_contract",
                             .severity = Severity::warning,
                             .measured = to_string(parameter.shape),
                             .limit = "one value a head",
                             .behaviour = "",
                             .remedy = "load it in the engine to be sure",
                             .message = "is one scale a head, which " + instance_.engine +
                                        " loads by its heads; their number was not compared"});
    } else if (count != instance_.kv_heads) {
        const std::string heads = std::to_string(instance_.kv_heads);
        add(parameter.name,
            {.check = "shape_contract",
             .measured = to_string(parameter.shape),
             .limit = "[" + heads + "]",
             .behaviour = "raises",
             .remedy = "store one value a head of the keys, as config.json "
                       "counts them in num_key_value_heads",
             .message = "has " + std::to_string(count) + " values, and " + instance_.engine +
                        " has a place for those of " + heads + " heads"});
    }
    return true;
}

}  // namespace refit::receiver
