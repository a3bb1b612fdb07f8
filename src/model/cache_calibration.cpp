// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "model/cache_calibration.hpp"

#include <string>

#include "core/error.hpp"

namespace refit::model {

std::vector<TensorSpec> cache_calibrations(const ModelConfig& config, bool queries) {
    if (config.kv_lora_rank > 0) {
        throw core::ScenarioError(
            "payload.kv_cache_scales: " + config.name + " (" +
            architecture_name(config.architecture) +
            ") has latent attention, which caches one compressed vector and has no scales of keys "
            "and values; use a model with key and value heads, or kv_cache_scales: none");
    }
    std::vector<TensorSpec> calibrations;
    for (std::int64_t layer = 0; layer < config.layers; ++layer) {
        const std::string attention = "model.layers." + std::to_string(layer) + ".self_attn.";
        const auto add = [&](const char* name, std::int64_t heads, Role role) {
            TensorSpec spec;
            spec.name = attention + name;
            spec.shape = {kCalibrationTokens, heads * config.head_dim};
            spec.role = role;
            spec.layer = static_cast<int>(layer);
            calibrations.push_back(std::move(spec));
        };
        add("k_cache", config.kv_heads, Role::k_proj);
        add("v_cache", config.kv_heads, Role::v_proj);
        if (queries) add("q_states", config.heads, Role::q_proj);
    }
    return calibrations;
}

}  // namespace refit::model
