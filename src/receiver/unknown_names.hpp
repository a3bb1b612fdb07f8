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
};

/// By the engine's rule and the model's architecture. Sources: vLLM 017e9f4448b7,
/// model_executor/models/{utils,qwen3_moe,deepseek_v2}.py; SGLang 8905cbd42f4a,
/// srt/models/{llama,qwen2,qwen3,qwen3_moe,deepseek_v2}.py; transformers 33d1bc04, loading report.
[[nodiscard]] UnknownNameOutcome unknown_name_outcome(const ContractInstance& instance,
                                                      UnknownNames rule, const std::string& name);

/// A scale of the KV cache, by any of the names that the engines map to one:
/// "....self_attn.k_scale",
/// "....self_attn.k_proj.k_scale", "....self_attn.attn.v_scale", "....k_proj.output_scale" ...
[[nodiscard]] bool is_cache_scale(const std::string& name);

/// Layer number of "model.layers.N....", -1 for other names.
[[nodiscard]] std::int64_t layer_of_name(const std::string& name);

}  // namespace refit::receiver
