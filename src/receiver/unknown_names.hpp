// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What the loaders of the engines' model classes do with a name that no tensor of the model has.
#pragma once

#include <cstdint>
#include <string>

#include "core/finding.hpp"
#include "receiver/engine_contract.hpp"

namespace refit::receiver {

struct UnknownNameOutcome {
    std::string behaviour;  ///< raises | ignored | warns
    std::string engine_message;
    /// What is known instead of an outcome, for names that were not seen loaded; empty for others.
    std::string note = {};
};

/// By the engine's rule and the model's architecture. Sources: vLLM 017e9f4448b7,
/// model_executor/models/{utils,qwen3_moe,deepseek_v2}.py; SGLang 8905cbd42f4a,
/// srt/models/{llama,qwen2,qwen3,qwen3_moe,deepseek_v2}.py, and SGLang 0.5.23 for DeepSeek models;
/// transformers 33d1bc04, loading report.
[[nodiscard]] UnknownNameOutcome unknown_name_outcome(const ContractInstance& instance,
                                                      UnknownNames rule, const std::string& name);

/// Whether the loader of the engine's model class takes a scale of this name for the one that ends
/// in "weight_scale_inv": "X.scale" in transformers; "X.weight_scale" of block scales in SGLang
/// 0.5.23's loader of DeepSeek models, but for layers that it stacks (gate_proj, up_proj, experts),
/// where it raises. Of q_a_proj and kv_a_proj_with_mqa both scales must have that name: see
/// latent_partner(). Sources: transformers 5.23.0, integrations/finegrained_fp8.py; SGLang 0.5.23,
/// srt/models/deepseek_common/deepseek_weight_loader.py.
[[nodiscard]] bool is_read_as_inverse(const ContractInstance& instance, UnknownNames rule,
                                      const std::string& name);

/// The tensor of kv_a_proj_with_mqa that is loaded together with this one of q_a_proj, or the other
/// way round; "" for other names.
[[nodiscard]] std::string latent_partner(const std::string& name);

/// A scale of the KV cache, by any of the names that the engines map to one:
/// "....self_attn.k_scale",
/// "....self_attn.k_proj.k_scale", "....self_attn.attn.v_scale", "....k_proj.output_scale" ...
[[nodiscard]] bool is_cache_scale(const std::string& name);

/// Layer number of "model.layers.N....", -1 for other names.
[[nodiscard]] std::int64_t layer_of_name(const std::string& name);

}  // namespace refit::receiver
