// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "model/model_config.hpp"

#include <algorithm>
#include <utility>

namespace refit::model {

std::string architecture_name(Architecture architecture) {
    switch (architecture) {
        case Architecture::llama:
            return "LlamaForCausalLM";
        case Architecture::qwen2:
            return "Qwen2ForCausalLM";
        case Architecture::qwen3:
            return "Qwen3ForCausalLM";
        case Architecture::qwen3_moe:
            return "Qwen3MoeForCausalLM";
        case Architecture::deepseek_v3:
            return "DeepseekV3ForCausalLM";
    }
    return "unknown";
}

bool is_moe_layer(const ModelConfig& config, std::int64_t layer) {
    if (config.experts == 0 || layer < config.first_dense_layers) return false;
    const auto& dense = config.dense_layers;
    if (std::find(dense.begin(), dense.end(), layer) != dense.end()) return false;
    // Qwen3-MoE counts layers from one for its step, DeepSeek from zero; with a step of one, the
    // only published one, they agree.
    const std::int64_t counted = config.architecture == Architecture::qwen3_moe ? layer + 1 : layer;
    return config.moe_layer_every <= 1 || counted % config.moe_layer_every == 0;
}

std::vector<TensorSpec> tensors_of(const ModelConfig& config) {
    std::vector<TensorSpec> tensors;
    const auto add = [&tensors](std::string name, core::Shape shape, Role role, int layer) {
        tensors.push_back({std::move(name), std::move(shape), core::DType::bf16, role, layer, -1});
    };
    const std::int64_t q_rows = config.heads * config.head_dim;
    const std::int64_t kv_rows = config.kv_heads * config.head_dim;

    add("model.embed_tokens.weight", {config.vocabulary, config.hidden}, Role::embedding, -1);
    for (int layer = 0; layer < config.layers; ++layer) {
        const std::string prefix = "model.layers." + std::to_string(layer) + ".";
        const std::string attention = prefix + "self_attn.";
        const std::string mlp = prefix + "mlp.";
        // A projection's bias follows its weight, as in the module that holds both.
        const auto projection = [&](const std::string& name, std::int64_t rows, Role role) {
            add(attention + name + ".weight", {rows, config.hidden}, role, layer);
            if (config.qkv_bias) add(attention + name + ".bias", {rows}, Role::bias, layer);
        };
        projection("q_proj", q_rows, Role::q_proj);
        projection("k_proj", kv_rows, Role::k_proj);
        projection("v_proj", kv_rows, Role::v_proj);
        add(attention + "o_proj.weight", {config.hidden, q_rows}, Role::o_proj, layer);
        if (config.qk_norm) {
            add(attention + "q_norm.weight", {config.head_dim}, Role::norm, layer);
            add(attention + "k_norm.weight", {config.head_dim}, Role::norm, layer);
        }
        add(mlp + "gate_proj.weight", {config.intermediate, config.hidden}, Role::gate_proj, layer);
        add(mlp + "up_proj.weight", {config.intermediate, config.hidden}, Role::up_proj, layer);
        add(mlp + "down_proj.weight", {config.hidden, config.intermediate}, Role::down_proj, layer);
        add(prefix + "input_layernorm.weight", {config.hidden}, Role::norm, layer);
        add(prefix + "post_attention_layernorm.weight", {config.hidden}, Role::norm, layer);
    }
    add("model.norm.weight", {config.hidden}, Role::norm, -1);
    if (!config.tied_embeddings) {
        add("lm_head.weight", {config.vocabulary, config.hidden}, Role::head, -1);
    }
    return tensors;
}

}  // namespace refit::model
