// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// How apply_contract builds its instance; private to this folder.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "receiver/engine_contract.hpp"
#include "receiver/skip_rules.hpp"

namespace refit::receiver {

/// The module of "X.weight" and "X.bias".
[[nodiscard]] std::string module_of(const std::string& tensor);

/// How the TP ranks share a layer.
enum class LayerCut {
    column,  ///< rows of the weight
    row,     ///< columns of the weight
    whole,   ///< every rank keeps all of it
    experts  ///< a stack of experts: rows of w13, columns of w2, or whole experts
};

/// One matrix of a layer that the engine may hold fused with others.
struct Part {
    std::string module;      ///< "model.layers.0.self_attn.k_proj"
    std::int64_t rows = 0;   ///< global
    std::int64_t local = 0;  ///< on one rank
    std::int64_t replicas = 1;
};

/// A layer as the engine holds it: its parts in order and how they are cut.
struct Layer {
    std::string module;      ///< "model.layers.0.self_attn.qkv_proj"
    std::string class_name;  ///< of the engine's module: "QKVParallelLinear"
    std::string rule;        ///< of the contract's rows: qkv, merged, latent, column, row ...
    std::vector<Part> parts;
    std::int64_t cols = 0;  ///< global
    LayerCut cut = LayerCut::column;
    bool skipped = false;
    WeightFormat format;    ///< of a layer that is not skipped
    std::size_t index = 0;  ///< of the part at hand

    /// The scheme of the contract's rows that it loads by.
    [[nodiscard]] std::string scheme() const {
        return skipped ? "bf16" : std::string(quant::scheme_name(format.scheme));
    }
    [[nodiscard]] bool blockwise() const {
        return !skipped && format.scheme == quant::Scheme::fp8_blockwise;
    }

    [[nodiscard]] bool fused() const { return parts.size() > 1; }
    [[nodiscard]] std::int64_t offset(std::size_t part) const {
        std::int64_t sum = 0;
        for (std::size_t i = 0; i < part; ++i) sum += parts[i].local;
        return sum;
    }
    [[nodiscard]] std::int64_t local_rows() const { return offset(parts.size()); }
};

/// Applies one contract to one model. Every tensor is visited once, and what a layer needs is found
/// by its name, so that the time grows with the number of tensors.
class ContractApplier {
 public:
    ContractApplier(const EngineContract& contract, const model::ModelConfig& model,
                    const QuantizationConfig& config, int tp, int ep);
    /// `cache_scales` that the engine has a place for.
    [[nodiscard]] ContractInstance run(CacheScales cache_scales);

 private:
    /// A span of every rank whose row and column sizes are given; whatever leaves source or
    /// destination is cut off (such a layer has a refusal).
    struct Cut {
        std::int64_t row_size = 0;  ///< 0: not cut
        std::int64_t replicas = 1;
        std::int64_t col_size = 0;
        std::int64_t dest_row = 0;
        std::int64_t dest_col = 0;
        int only_rank = -1;  ///< -1: every rank
    };

    // What the model as a whole allows
    [[nodiscard]] bool fits();
    [[nodiscard]] std::int64_t padded_vocabulary() const;
    [[nodiscard]] bool latent() const { return model_.kv_lora_rank > 0; }
    [[nodiscard]] int expert_tp() const { return out_.ep > 1 ? 1 : tp_; }

    // Skip list
    void read_format(Layer& layer);
    void read_format_of_experts(Layer& layer);
    void require_expert_format(const Layer& layer);
    [[nodiscard]] bool quantizes() const { return out_.config.scheme != quant::Scheme::bf16; }

    // Layers
    [[nodiscard]] Layer layer_of(const model::TensorSpec& spec, const std::string& module) const;
    void name_parts(Layer& layer, const std::string& module, std::int64_t rows) const;
    Layer& known_layer(Layer layer);
    Layer& known_experts(const std::string& experts);

    // Placing
    void place(const model::TensorSpec& spec);
    void place_vocabulary(const model::TensorSpec& spec);
    void place_whole(const model::TensorSpec& spec);
    void place_router_bias(const model::TensorSpec& spec);
    void place_bias(const model::TensorSpec& spec);
    void place_weight(const model::TensorSpec& spec);
    void place_expert(const model::TensorSpec& spec);
    void place_expert_scale(const model::TensorSpec& spec, const WeightFormat& format,
                            std::size_t weight, std::size_t weight_dest, const Cut& weight_cut);
    void list_uncut(const model::TensorSpec& spec);
    /// Scales of the KV cache, behind all other parameters.
    void place_cache_scales(CacheScales which);

    std::size_t destination(const std::string& name, core::DType dtype, core::Shape shape,
                            bool is_scale);
    /// Adds a parameter with the row of the contract that says how it is loaded; its dtypes are the
    /// row's.
    std::size_t want(const std::string& name, const core::Shape& shape, const std::string& suffix,
                     const std::string& scheme, const std::string& rule);
    /// The scale of `weight` among the wanted parameters, each naming the other.
    std::size_t want_scale(std::size_t weight, const WeightFormat& format, const std::string& rule);
    /// The input scale of a quantized module whose activations have static scales.
    std::size_t want_input_scale(std::size_t weight, const WeightFormat& format,
                                 const std::string& rule);
    void place_scale(const Layer& layer, std::size_t weight, std::size_t dest, const Cut& cut,
                     std::int64_t local_cols);
    void add_spans(std::size_t index, std::size_t dest, const Cut& cut);
    [[nodiscard]] std::string scale_suffix(const WeightFormat& format) const;
    [[nodiscard]] core::Shape scale_shape(const WeightFormat& format, std::int64_t rows,
                                          std::int64_t cols) const;
    void apply_scale(std::size_t weight_dest, std::size_t scale_dest, const WeightFormat& format);
    [[nodiscard]] bool four_dimensional() const { return out_.config.algo == "FP8_PB_WO"; }

    // Block divisibility
    void check_layers();
    void check_row_layer(const Layer& layer);
    void check_parts_at_construction(const Layer& layer);
    void check_every_part(const Layer& layer);
    void check_concatenation(const Layer& layer);
    void check_parts_at_load(const Layer& layer);
    void check_exact_tiles(const Layer& layer);
    void check_scale_grid(const Layer& layer, bool fatal);
    void check_experts(const Layer& layer);
    void check_defects();
    void check_blocks_of_linear(const Layer& layer);

    void refuse(const std::string& tensor, const std::string& behaviour,
                const std::string& engine_message, const std::string& measured,
                const std::string& limit, const std::string& remedy,
                core::Severity severity = core::Severity::error);

    const EngineContract& contract_;
    const model::ModelConfig& model_;
    int tp_;
    bool feasible_ = true;
    SkipRules skip_;
    ContractInstance out_;
    std::unordered_map<std::string, std::size_t> destination_index_;
    std::unordered_map<std::string, std::size_t> layer_index_;
    std::vector<Layer> layers_;  ///< in checkpoint order, which is the order of construction
};

}  // namespace refit::receiver
