// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What a calibration of an FP8 KV cache looks at: the keys, values and queries of every attention
// layer.
#pragma once

#include <vector>

#include "model/model_config.hpp"
#include "model/tensor_spec.hpp"

namespace refit::model {

/// Tokens of a calibration. Few, so that the largest magnitudes of layers and steps differ.
inline constexpr std::int64_t kCalibrationTokens = 8;

/// Activations of each decoder layer in order, as tensors [tokens, heads * head_dim]:
/// "model.layers.N.self_attn.k_cache" and ".v_cache" over the key and value heads, and with
/// `queries` ".q_states" over the query heads. The role is that of the projection that makes
/// them. Throws ScenarioError for latent attention, which caches one compressed vector instead.
[[nodiscard]] std::vector<TensorSpec> cache_calibrations(const ModelConfig& config, bool queries);

}  // namespace refit::model
