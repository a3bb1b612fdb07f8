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

namespace {

/// Collects the tensors of one model in the order of the modules that hold them.
class Listing {
 public:
    explicit Listing(const ModelConfig& config) : config_(config) {}

    [[nodiscard]] std::vector<TensorSpec> all() && {
        const std::int64_t hidden = config_.hidden;
        const std::int64_t vocabulary = config_.vocabulary;
        add("model.embed_tokens.weight", {vocabulary, hidden}, Role::embedding);
        for (std::int64_t layer = 0; layer < config_.layers; ++layer) decoder_layer(layer);
        for (std::int64_t i = 0; i < config_.mtp_layers; ++i) mtp_layer(config_.layers + i);
        layer_ = -1;
        add("model.norm.weight", {hidden}, Role::norm);
        if (!config_.tied_embeddings) add("lm_head.weight", {vocabulary, hidden}, Role::head);
        return std::move(tensors_);
    }

 private:
    void add(std::string name, core::Shape shape, Role role, int expert = -1) {
        tensors_.push_back(
            {std::move(name), std::move(shape), core::DType::bf16, role, layer_, expert});
    }

    void decoder_layer(std::int64_t layer) {
        layer_ = static_cast<int>(layer);
        prefix_ = "model.layers." + std::to_string(layer) + ".";
        if (config_.kv_lora_rank > 0) {
            latent_attention();
        } else {
            attention();
        }
        if (is_moe_layer(config_, layer)) {
            experts();
        } else {
            mlp(prefix_ + "mlp.", config_.intermediate);
        }
        add(prefix_ + "input_layernorm.weight", {config_.hidden}, Role::norm);
        add(prefix_ + "post_attention_layernorm.weight", {config_.hidden}, Role::norm);
    }

    void attention() {
        const std::string at = prefix_ + "self_attn.";
        const std::int64_t q_rows = config_.heads * config_.head_dim;
        const std::int64_t kv_rows = config_.kv_heads * config_.head_dim;
        // A projection's bias follows its weight, as in the module that holds both.
        const auto projection = [&](const std::string& name, std::int64_t rows, Role role) {
            add(at + name + ".weight", {rows, config_.hidden}, role);
            if (config_.qkv_bias) add(at + name + ".bias", {rows}, Role::bias);
        };
        projection("q_proj", q_rows, Role::q_proj);
        projection("k_proj", kv_rows, Role::k_proj);
        projection("v_proj", kv_rows, Role::v_proj);
        add(at + "o_proj.weight", {config_.hidden, q_rows}, Role::o_proj);
        if (config_.qk_norm) {
            add(at + "q_norm.weight", {config_.head_dim}, Role::norm);
            add(at + "k_norm.weight", {config_.head_dim}, Role::norm);
        }
    }

    void latent_attention() {
        const std::string at = prefix_ + "self_attn.";
        const std::int64_t hidden = config_.hidden;
        const std::int64_t heads = config_.heads;
        const std::int64_t q_rank = config_.q_lora_rank;
        const std::int64_t kv_rank = config_.kv_lora_rank;
        const std::int64_t q_rows = heads * (config_.nope_head_dim + config_.rope_head_dim);
        if (q_rank == 0) {
            add(at + "q_proj.weight", {q_rows, hidden}, Role::q_proj);
        } else {
            add(at + "q_a_proj.weight", {q_rank, hidden}, Role::q_a_proj);
            add(at + "q_a_layernorm.weight", {q_rank}, Role::norm);
            add(at + "q_b_proj.weight", {q_rows, q_rank}, Role::q_b_proj);
        }
        add(at + "kv_a_proj_with_mqa.weight", {kv_rank + config_.rope_head_dim, hidden},
            Role::kv_a_proj);
        add(at + "kv_a_layernorm.weight", {kv_rank}, Role::norm);
        add(at + "kv_b_proj.weight",
            {heads * (config_.nope_head_dim + config_.v_head_dim), kv_rank}, Role::kv_b_proj);
        add(at + "o_proj.weight", {hidden, heads * config_.v_head_dim}, Role::o_proj);
    }

    void mlp(const std::string& at, std::int64_t rows, int expert = -1) {
        add(at + "gate_proj.weight", {rows, config_.hidden}, Role::gate_proj, expert);
        add(at + "up_proj.weight", {rows, config_.hidden}, Role::up_proj, expert);
        add(at + "down_proj.weight", {config_.hidden, rows}, Role::down_proj, expert);
    }

    void router() {
        const std::string at = prefix_ + "mlp.gate.";
        add(at + "weight", {config_.experts, config_.hidden}, Role::router);
        if (config_.router_bias) {
            add(at + "e_score_correction_bias", {config_.experts}, Role::bias);
        }
    }

    void experts() {
        for (std::int64_t expert = 0; expert < config_.experts; ++expert) {
            mlp(prefix_ + "mlp.experts." + std::to_string(expert) + ".", config_.moe_intermediate,
                static_cast<int>(expert));
        }
        router();
        if (config_.shared_experts > 0) {
            mlp(prefix_ + "mlp.shared_experts.", config_.shared_experts * config_.moe_intermediate);
        }
    }

    /// A decoder layer that sees the embedding of the next token beside the hidden state, with its
    /// own copies of the embedding and the head.
    void mtp_layer(std::int64_t layer) {
        const std::int64_t hidden = config_.hidden;
        decoder_layer(layer);
        add(prefix_ + "enorm.weight", {hidden}, Role::norm);
        add(prefix_ + "hnorm.weight", {hidden}, Role::norm);
        add(prefix_ + "eh_proj.weight", {hidden, 2 * hidden}, Role::mtp_proj);
        add(prefix_ + "shared_head.norm.weight", {hidden}, Role::norm);
        add(prefix_ + "shared_head.head.weight", {config_.vocabulary, hidden}, Role::head);
        add(prefix_ + "embed_tokens.weight", {config_.vocabulary, hidden}, Role::embedding);
    }

    const ModelConfig& config_;
    std::vector<TensorSpec> tensors_;
    std::string prefix_;
    int layer_ = -1;
};

}  // namespace

std::vector<TensorSpec> tensors_of(const ModelConfig& config) {
    return Listing(config).all();
}

}  // namespace refit::model
