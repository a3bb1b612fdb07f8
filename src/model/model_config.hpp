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

enum class Architecture { llama, qwen2, qwen3, qwen3_moe, deepseek_v3 };

struct ModelConfig {
    std::string name;  ///< catalogue name, or the config file's path
    Architecture architecture = Architecture::llama;
    std::int64_t hidden = 0;
    std::int64_t intermediate = 0;
    std::int64_t layers = 0;
    std::int64_t heads = 0;
    std::int64_t kv_heads = 0;
    std::int64_t head_dim = 0;  ///< with latent attention nope_head_dim + rope_head_dim
    std::int64_t vocabulary = 0;
    bool tied_embeddings = false;
    bool qkv_bias = false;
    bool qk_norm = false;

    // Mixture of experts; experts == 0: every layer is dense.
    std::int64_t experts = 0;                ///< routed experts of a layer
    std::int64_t experts_per_token = 0;      ///< top k
    std::int64_t moe_intermediate = 0;       ///< rows of one expert's gate and up projection
    std::int64_t shared_experts = 0;         ///< their rows are shared_experts * moe_intermediate
    std::int64_t first_dense_layers = 0;     ///< first_k_dense_replace
    std::int64_t moe_layer_every = 1;        ///< decoder_sparse_step, moe_layer_freq
    std::vector<std::int64_t> dense_layers;  ///< mlp_only_layers
    bool router_bias = false;                ///< mlp.gate.e_score_correction_bias

    // Multi-head latent attention; kv_lora_rank == 0: none. heads as above, kv_heads = heads.
    std::int64_t q_lora_rank = 0;  ///< 0: one q_proj instead of q_a_proj and q_b_proj
    std::int64_t kv_lora_rank = 0;
    std::int64_t nope_head_dim = 0;  ///< qk_nope_head_dim
    std::int64_t rope_head_dim = 0;  ///< qk_rope_head_dim
    std::int64_t v_head_dim = 0;

    /// Layers for multi-token prediction behind the decoder layers (num_nextn_predict_layers).
    std::int64_t mtp_layers = 0;

    /// Keys of a config.json that it leaves out and that have a default here, although some engines
    /// have none: moe_layer_freq, topk_method.
    std::vector<std::string> left_out;

    /// The `quantization_config` object of a config.json as JSON text; nullopt where it has none.
    std::optional<std::string> quantization_config;
};

/// Hugging Face's name of the architecture: "LlamaForCausalLM" ...
[[nodiscard]] std::string architecture_name(Architecture architecture);

/// True where the layer's MLP is a router and experts.
[[nodiscard]] bool is_moe_layer(const ModelConfig& config, std::int64_t layer);

/// Every tensor in the order of the modules that hold them: embedding, decoder layers, layers for
/// multi-token prediction, final norm, head; within a layer attention, MLP, norms. A tied head is
/// not listed. Routed experts are listed one by one, `TensorSpec::expert` set; a layer for
/// multi-token prediction has the number config.layers + its index. Names and shapes: facts of the
/// Hugging Face implementations of Llama, Qwen2, Qwen3, Qwen3-MoE and DeepSeek-V3, and of the
/// published DeepSeek-V3 checkpoint for multi-token prediction.
[[nodiscard]] std::vector<TensorSpec> tensors_of(const ModelConfig& config);

}  // namespace refit::model
