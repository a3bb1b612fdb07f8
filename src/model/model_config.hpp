// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The figures of a model that decide its tensors, and the tensors they give.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/tensor_spec.hpp"

namespace refit::model {

enum class Architecture { llama, qwen2, qwen3 };

struct ModelConfig {
    std::string name;  ///< catalogue name, or the config file's path
    Architecture architecture = Architecture::llama;
    std::int64_t hidden = 0;
    std::int64_t intermediate = 0;
    std::int64_t layers = 0;
    std::int64_t heads = 0;
    std::int64_t kv_heads = 0;
    std::int64_t head_dim = 0;
    std::int64_t vocabulary = 0;
    bool tied_embeddings = false;
    bool qkv_bias = false;
    bool qk_norm = false;
    /// The `quantization_config` object of a config.json as JSON text; nullopt where it has none.
    std::optional<std::string> quantization_config;
};

/// Hugging Face's name of the architecture: "LlamaForCausalLM" ...
[[nodiscard]] std::string architecture_name(Architecture architecture);

/// Every tensor in checkpoint order (embedding, layers in order, final norm, head); a tied head is
/// not listed. Names and shapes: facts of the Hugging Face implementations of Llama, Qwen2 and
/// Qwen3.
[[nodiscard]] std::vector<TensorSpec> tensors_of(const ModelConfig& config);

}  // namespace refit::model
