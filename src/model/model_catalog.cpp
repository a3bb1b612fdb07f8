// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "model/model_catalog.hpp"

#include <algorithm>
#include <utility>

#include "core/error.hpp"
#include "core/nearest_name.hpp"

namespace refit::model {
namespace {

/// The figures as a config.json writes them; the differences between architectures are filled in.
struct Figures {
    std::int64_t hidden;
    std::int64_t intermediate;
    std::int64_t layers;
    std::int64_t heads;
    std::int64_t kv_heads;
    std::int64_t head_dim;
    std::int64_t vocabulary;
    bool tied;
};

CatalogRow row(std::string name, Architecture architecture, const Figures& figures,
               std::int64_t published_parameters, std::string source) {
    CatalogRow result;
    ModelConfig& config = result.config;
    config.name = std::move(name);
    config.architecture = architecture;
    config.hidden = figures.hidden;
    config.intermediate = figures.intermediate;
    config.layers = figures.layers;
    config.heads = figures.heads;
    config.kv_heads = figures.kv_heads;
    config.head_dim = figures.head_dim;
    config.vocabulary = figures.vocabulary;
    config.tied_embeddings = figures.tied;
    config.qkv_bias = architecture == Architecture::qwen2;
    config.qk_norm = architecture == Architecture::qwen3 || architecture == Architecture::qwen3_moe;
    result.published_parameters = published_parameters;
    result.source = std::move(source);
    return result;
}

/// What a mixture of experts adds.
struct ExpertFigures {
    std::int64_t experts;
    std::int64_t per_token;
    std::int64_t intermediate;
    std::int64_t shared;
    std::int64_t first_dense;
};

/// What multi-head latent attention adds.
struct LatentFigures {
    std::int64_t q_rank;
    std::int64_t kv_rank;
    std::int64_t nope;
    std::int64_t rope;
    std::int64_t v;
};

CatalogRow with_experts(CatalogRow row, const ExpertFigures& figures) {
    row.config.experts = figures.experts;
    row.config.experts_per_token = figures.per_token;
    row.config.moe_intermediate = figures.intermediate;
    row.config.shared_experts = figures.shared;
    row.config.first_dense_layers = figures.first_dense;
    return row;
}

CatalogRow with_latent_attention(CatalogRow row, const LatentFigures& figures,
                                 std::int64_t mtp_layers) {
    row.config.router_bias = true;
    row.config.q_lora_rank = figures.q_rank;
    row.config.kv_lora_rank = figures.kv_rank;
    row.config.nope_head_dim = figures.nope;
    row.config.rope_head_dim = figures.rope;
    row.config.v_head_dim = figures.v;
    row.config.head_dim = figures.nope + figures.rope;
    row.config.mtp_layers = mtp_layers;
    return row;
}

std::vector<CatalogRow> make_catalog() {
    using enum Architecture;
    // The totals count every parameter once. A published checkpoint may store a tied head beside
    // the embedding (Qwen3-0.6B and 1.7B do), so that its files hold more elements than this.
    const std::string meta =
        "THUDM/slime @ 624b824a scripts/models (shape figures); published parameter total of "
        "meta-llama/";
    const std::string qwen =
        "THUDM/slime @ 624b824a scripts/models (shape figures); published parameter total of Qwen/";
    const std::string deepseek =
        "THUDM/slime @ 624b824a scripts/models (shape figures); published parameter total of ";
    // DeepSeek-V3 and Kimi-K2 share the figures of their attention but for the number of heads.
    constexpr LatentFigures kLatent{1536, 512, 128, 64, 128};
    const std::string ours = "refitbench: the smallest shapes that load blockwise at TP 1, 2 and 4";
    return {
        // name, architecture, {hidden, ffn, layers, heads, kv heads, head dim, vocabulary, tied},
        // parameters
        row("llama-3.2-1b", llama, {2048, 8192, 16, 32, 8, 64, 128256, true}, 1'235'814'400,
            meta + "Llama-3.2-1B"),
        row("llama-3.1-8b", llama, {4096, 14336, 32, 32, 8, 128, 128256, false}, 8'030'261'248,
            meta + "Llama-3.1-8B"),
        row("llama-3.1-70b", llama, {8192, 28672, 80, 64, 8, 128, 128256, false}, 70'553'706'496,
            meta + "Llama-3.1-70B"),
        row("qwen2.5-0.5b", qwen2, {896, 4864, 24, 14, 2, 64, 151936, true}, 494'032'768,
            qwen + "Qwen2.5-0.5B"),
        row("qwen2.5-7b", qwen2, {3584, 18944, 28, 28, 4, 128, 152064, false}, 7'615'616'512,
            qwen + "Qwen2.5-7B"),
        row("qwen3-0.6b", qwen3, {1024, 3072, 28, 16, 8, 128, 151936, true}, 596'049'920,
            qwen + "Qwen3-0.6B"),
        row("qwen3-1.7b", qwen3, {2048, 6144, 28, 16, 8, 128, 151936, true}, 1'720'574'976,
            qwen + "Qwen3-1.7B"),
        row("qwen3-4b", qwen3, {2560, 9728, 36, 32, 8, 128, 151936, true}, 4'022'468'096,
            qwen + "Qwen3-4B"),
        row("qwen3-8b", qwen3, {4096, 12288, 36, 32, 8, 128, 151936, false}, 8'190'735'360,
            qwen + "Qwen3-8B"),
        row("qwen3-32b", qwen3, {5120, 25600, 64, 64, 8, 128, 151936, false}, 32'762'123'264,
            qwen + "Qwen3-32B"),
        // 128 experts, 8 of them a token; the dense ffn figure belongs to no layer.
        with_experts(row("qwen3-30b-a3b", qwen3_moe, {2048, 6144, 48, 32, 4, 128, 151936, false},
                         30'532'122'624, qwen + "Qwen3-30B-A3B"),
                     {128, 8, 768, 0, 0}),
        with_experts(row("qwen3-235b-a22b", qwen3_moe, {4096, 12288, 94, 64, 4, 128, 151936, false},
                         235'093'634'560, qwen + "Qwen3-235B-A22B"),
                     {128, 8, 1536, 0, 0}),
        // As published: with its layer for multi-token prediction, which repeats embedding and
        // head.
        with_latent_attention(
            with_experts(
                row("deepseek-v3", deepseek_v3, {7168, 18432, 61, 128, 128, 192, 129280, false},
                    684'489'845'504, deepseek + "deepseek-ai/DeepSeek-V3, MTP layer included"),
                {256, 8, 2048, 1, 3}),
            kLatent, 1),
        with_latent_attention(
            with_experts(row("kimi-k2", deepseek_v3, {7168, 18432, 61, 64, 64, 192, 163840, false},
                             1'026'408'232'448, deepseek + "moonshotai/Kimi-K2-Instruct"),
                         {384, 8, 2048, 1, 1}),
            kLatent, 0),
        // 8 heads of 64 give 512 query, key and value rows: 128 a rank at TP 4, the least a scaling
        // tile allows.
        row("tiny-llama", llama, {512, 1024, 2, 8, 8, 64, 1024, false}, 6'294'016, ours),
        row("tiny-qwen3", qwen3, {512, 1024, 2, 8, 4, 128, 1024, true}, 6'818'816, ours),
        // Experts of 512 rows: 128 a rank at TP 4.
        with_experts(
            row("tiny-moe", qwen3_moe, {256, 512, 2, 8, 4, 128, 512, false}, 8'132'352, ours),
            {8, 2, 512, 0, 0}),
        // kv_a_proj has 192 rows, one tile and a half as the 576 of DeepSeek-V3 are four and a
        // half; no rank ever cuts it.
        with_latent_attention(
            with_experts(row("tiny-mla", deepseek_v3, {256, 512, 2, 8, 8, 192, 512, false},
                             11'230'864, ours),
                         {8, 2, 512, 1, 1}),
            {256, 128, 128, 64, 128}, 1),
    };
}

}  // namespace

const std::vector<CatalogRow>& model_catalog() {
    static const std::vector<CatalogRow> catalog = make_catalog();
    return catalog;
}

std::vector<std::string> model_names() {
    std::vector<std::string> names;
    for (const CatalogRow& entry : model_catalog()) names.push_back(entry.config.name);
    return names;
}

const CatalogRow& find_model(const std::string& name) {
    for (const CatalogRow& entry : model_catalog()) {
        if (entry.config.name == name) return entry;
    }
    throw core::UsageError(core::unknown_name_message("model", name, model_names()));
}

ModelConfig slice_layers(ModelConfig config, std::int64_t layers) {
    if (layers < 1 || layers > config.layers) {
        throw core::ScenarioError("model.layers: " + std::to_string(layers) + " layers of " +
                                  config.name + " are asked for, it has " +
                                  std::to_string(config.layers) + "; ask for 1 to " +
                                  std::to_string(config.layers));
    }
    if (layers == config.layers) return config;
    config.layers = layers;
    config.mtp_layers = 0;
    config.first_dense_layers = std::min(config.first_dense_layers, layers);
    std::erase_if(config.dense_layers, [&](std::int64_t layer) { return layer >= layers; });
    return config;
}

}  // namespace refit::model
