// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/contract_applier.hpp"

#include <algorithm>
#include <utility>

#include "core/error.hpp"
#include "receiver/engines/engines.hpp"

namespace refit::receiver {
namespace {

using core::ceil_div;
using core::DType;
using model::Role;
using quant::Scheme;

constexpr std::int64_t kVocabularyPadding = 64;

/// Boundaries 0, size, 2 size ... total; {0, total} for a size of nothing.
std::vector<std::int64_t> cuts(std::int64_t total, std::int64_t size) {
    std::vector<std::int64_t> result = {0};
    if (size > 0) {
        for (std::int64_t at = size; at < total; at += size) result.push_back(at);
    }
    result.push_back(total);
    return result;
}

bool is_router_bias(const model::TensorSpec& spec) {
    return spec.name.ends_with(".e_score_correction_bias");
}

/// Weights that the engine keeps unquantized and whole on every rank.
bool is_whole(Role role) {
    return role == Role::norm || role == Role::router || role == Role::mtp_proj;
}

}  // namespace

std::string module_of(const std::string& tensor) {
    return tensor.substr(0, tensor.rfind('.'));
}

ContractApplier::ContractApplier(const EngineContract& contract, const model::ModelConfig& model,
                                 const QuantizationConfig& config, int tp, int ep)
    : contract_(contract), model_(model), tp_(tp) {
    out_.engine = contract.name;
    out_.engine_version = contract.version;
    out_.config = config;
    out_.tp = tp;
    out_.ep = ep;
    out_.architecture = model.architecture;
    out_.spans.resize(static_cast<std::size_t>(tp));
    scheme_ = std::string(quant::scheme_name(config.scheme));
    for (const std::string& entry : config.skip_list) {
        if (!is_pattern(entry)) {
            exact_.insert(entry);
            continue;
        }
        try {
            patterns_.emplace_back(entry.substr(3));
        } catch (const std::regex_error&) {
            throw core::ScenarioError("quantization_config for " + contract.name +
                                      ": the ignore entry '" + entry +
                                      "' is not a regular expression; correct it");
        }
    }
}

ContractInstance ContractApplier::run() {
    feasible_ = fits();
    for (const model::TensorSpec& spec : model::tensors_of(model_)) {
        if (feasible_) {
            place(spec);
        } else {
            list_uncut(spec);
        }
    }
    if (feasible_) check_layers();
    return std::move(out_);
}

// What the model as a whole allows
// -------------------------------------------------------------------------------------------------

/// Heads, intermediate rows, experts and vocabulary over the ranks; false where no layout exists at
/// all.
bool ContractApplier::fits() {
    const std::string remedy = "choose a TP size that divides the model";
    const std::string by = "a multiple of " + std::to_string(tp_);
    const std::size_t before = out_.refusals.size();
    const std::string attention = "model.layers.0.self_attn.";
    if (model_.heads % tp_ != 0) {
        const bool low_rank = latent() && model_.q_lora_rank > 0;
        refuse(attention + (low_rank ? "q_b_proj.weight" : "q_proj.weight"), "raises", "",
               std::to_string(model_.heads) + " query heads", by, remedy);
    }
    const bool kv_fits = latent() || (tp_ >= model_.kv_heads ? tp_ % model_.kv_heads == 0
                                                             : model_.kv_heads % tp_ == 0);
    if (!kv_fits) {
        refuse(attention + "k_proj.weight", "raises", "",
               std::to_string(model_.kv_heads) + " key and value heads", by + " or a divisor of it",
               remedy);
    }
    std::int64_t dense = -1;
    std::int64_t sparse = -1;
    for (std::int64_t layer = 0; layer < model_.layers + model_.mtp_layers; ++layer) {
        std::int64_t& first = model::is_moe_layer(model_, layer) ? sparse : dense;
        if (first < 0) first = layer;
    }
    if (dense >= 0 && model_.intermediate % tp_ != 0) {
        refuse("model.layers." + std::to_string(dense) + ".mlp.gate_proj.weight", "raises", "",
               std::to_string(model_.intermediate) + " intermediate rows", by, remedy);
    }
    if (sparse >= 0) {
        const std::string mlp = "model.layers." + std::to_string(sparse) + ".mlp.";
        if (model_.moe_intermediate % expert_tp() != 0) {
            refuse(mlp + "experts.0.gate_proj.weight", "raises", "",
                   std::to_string(model_.moe_intermediate) + " rows of an expert", by,
                   "choose a TP size that divides the model, or ep = tp for whole experts");
        }
        const std::int64_t shared = model_.shared_experts * model_.moe_intermediate;
        if (shared % tp_ != 0) {
            refuse(mlp + "shared_experts.gate_proj.weight", "raises", "",
                   std::to_string(shared) + " rows of the shared experts", by, remedy);
        }
    }
    if (padded_vocabulary() % tp_ != 0) {
        refuse("model.embed_tokens.weight", "raises", "",
               "a vocabulary padded to " + std::to_string(padded_vocabulary()), by, remedy);
    }
    return out_.refusals.size() == before;
}

std::int64_t ContractApplier::padded_vocabulary() const {
    return ceil_div(model_.vocabulary, kVocabularyPadding) * kVocabularyPadding;
}

void ContractApplier::refuse(const std::string& tensor, const std::string& behaviour,
                             const std::string& engine_message, const std::string& measured,
                             const std::string& limit, const std::string& remedy) {
    core::Finding finding;
    finding.check = "shape_contract";
    finding.severity = core::Severity::error;
    finding.tensor = tensor;
    finding.measured = measured;
    finding.limit = limit;
    finding.engine_behaviour = behaviour;
    finding.engine_message = engine_message;
    finding.remedy = remedy;
    finding.message = tensor + ": " + measured + ", " + contract_.name + " at TP " +
                      std::to_string(tp_) + " wants " + limit + "; " + remedy;
    out_.refusals.push_back(std::move(finding));
}

// Skip list
// -------------------------------------------------------------------------------------------------

bool ContractApplier::is_pattern(const std::string& entry) const {
    return out_.config.quant_method == "compressed-tensors" && entry.starts_with("re:");
}

bool ContractApplier::listed(const std::string& module) const {
    if (exact_.count(module) != 0) return true;
    // A pattern must match from the start on, but need not reach the end.
    return std::any_of(patterns_.begin(), patterns_.end(), [&](const std::regex& pattern) {
        return std::regex_search(module, pattern, std::regex_constants::match_continuous);
    });
}

/// Whether the skip list leaves the layer in BF16; parts that disagree are refused once.
bool ContractApplier::skip_of(const Layer& layer) {
    if (!quantizes()) return true;
    std::size_t count = 0;
    for (const Part& part : layer.parts) count += listed(part.module) ? 1 : 0;
    if (count == layer.parts.size() || listed(layer.module)) return true;
    if (count == 0) return false;
    const bool compressed = out_.config.quant_method == "compressed-tensors";
    std::string parts;
    std::string names;
    for (const Part& part : layer.parts) {
        const bool is_listed = listed(part.module);
        parts += (parts.empty() ? "'" : ", '") +
                 part.module.substr(module_of(part.module).size() + 1) + "'";
        if (is_listed) names += (names.empty() ? "" : ", ") + part.module;
    }
    refuse(layer.parts[0].module + ".weight", "raises",
           compressed
               ? "ValueError: Found a different quantization schemes for [" + parts + "] in " +
                     layer.module + ". vLLM requires all to use the same scheme."
               : "ValueError: Detected some but not all shards of " + layer.module +
                     " are quantized. All shards of fused layers to have the same precision.",
           "the skip list names only " + names, "all parts of " + layer.module + " or none",
           "list every part of the fused layer");
    return false;
}

// Layers
// -------------------------------------------------------------------------------------------------

/// The engine's layer that holds the module, with the rows of all its parts.
Layer ContractApplier::layer_of(const model::TensorSpec& spec, const std::string& module) const {
    const std::string parent = module_of(module) + ".";
    const std::string leaf = module.substr(parent.size());
    const std::int64_t rows = core::matrix_rows(spec.shape);
    Layer layer;
    layer.cols = core::matrix_cols(spec.shape);
    layer.module = module;
    const bool dense_qkv = leaf == "q_proj" || leaf == "k_proj" || leaf == "v_proj";
    const bool latent_a = leaf == "q_a_proj" || leaf == "kv_a_proj_with_mqa";
    if (dense_qkv && !latent()) {
        const std::int64_t kv_local = tp_ >= model_.kv_heads ? 1 : model_.kv_heads / tp_;
        const std::int64_t replicas = tp_ >= model_.kv_heads ? tp_ / model_.kv_heads : 1;
        const std::int64_t kv_rows = model_.kv_heads * model_.head_dim;
        layer.module = parent + "qkv_proj";
        layer.parts = {{parent + "q_proj", model_.heads * model_.head_dim,
                        model_.heads / tp_ * model_.head_dim, 1},
                       {parent + "k_proj", kv_rows, kv_local * model_.head_dim, replicas},
                       {parent + "v_proj", kv_rows, kv_local * model_.head_dim, replicas}};
    } else if (leaf == "gate_proj" || leaf == "up_proj") {
        layer.module = parent + "gate_up_proj";
        for (const char* name : {"gate_proj", "up_proj"}) {
            layer.parts.push_back({parent + name, rows, rows / tp_, 1});
        }
    } else if (latent_a && model_.q_lora_rank > 0) {
        const std::int64_t kv_rows = model_.kv_lora_rank + model_.rope_head_dim;
        layer.module = parent + "fused_qkv_a_proj";
        layer.cut = LayerCut::whole;
        layer.parts = {{parent + "q_a_proj", model_.q_lora_rank, model_.q_lora_rank, 1},
                       {parent + "kv_a_proj_with_mqa", kv_rows, kv_rows, 1}};
    } else if (latent_a) {
        layer.cut = LayerCut::whole;
        layer.parts = {{module, rows, rows, 1}};
    } else if (dense_qkv || leaf == "q_b_proj" || leaf == "kv_b_proj") {
        layer.parts = {{module, rows, rows / tp_, 1}};
    } else {
        layer.cut = LayerCut::row;
        layer.parts = {{module, rows, rows, 1}};
    }
    for (std::size_t i = 0; i < layer.parts.size(); ++i) {
        if (layer.parts[i].module == module) layer.index = i;
    }
    return layer;
}

/// The layer as first met; `layer` itself, with its answer of the skip list, when it is new.
Layer& ContractApplier::known_layer(Layer layer) {
    const auto [it, added] = layer_index_.try_emplace(layer.module, layers_.size());
    if (added) {
        layer.skipped = skip_of(layer);
        layers_.push_back(std::move(layer));
    }
    return layers_[it->second];
}

// Placing
// -------------------------------------------------------------------------------------------------

std::size_t ContractApplier::destination(const std::string& name, DType dtype, core::Shape shape,
                                         bool is_scale) {
    const auto [it, added] = destination_index_.try_emplace(name, out_.destinations.size());
    if (added) {
        DestinationParameter parameter;
        parameter.name = name;
        parameter.dtype = dtype;
        parameter.shape = std::move(shape);
        parameter.is_scale = is_scale;
        out_.destinations.push_back(std::move(parameter));
    }
    return it->second;
}

std::size_t ContractApplier::want(wire::WantedParameter wanted) {
    out_.wanted.push_back(std::move(wanted));
    return out_.wanted.size() - 1;
}

wire::WantedParameter ContractApplier::wanted(const std::string& name, std::vector<DType> dtypes,
                                              core::Shape shape) {
    wire::WantedParameter result;
    result.name = name;
    result.dtypes = std::move(dtypes);
    result.row_cuts = {0, core::matrix_rows(shape)};
    result.col_cuts = {0, core::matrix_cols(shape)};
    result.shape = std::move(shape);
    return result;
}

std::size_t ContractApplier::want_scale(std::size_t weight, const std::string& rule) {
    const std::string suffix = scale_suffix();
    const std::string name = module_of(out_.wanted[weight].name) + "." + suffix;
    const core::Shape& shape = out_.wanted[weight].shape;
    const std::size_t scale =
        want(wanted(name, dtypes_of(suffix, scheme_, rule),
                    scale_shape(core::matrix_rows(shape), core::matrix_cols(shape))));
    out_.wanted[weight].scale = name;
    out_.wanted[scale].scale_of = out_.wanted[weight].name;
    out_.wanted[scale].fuse_group = out_.wanted[weight].fuse_group;
    return scale;
}

const std::vector<DType>& ContractApplier::dtypes_of(const std::string& suffix,
                                                     const std::string& scheme,
                                                     const std::string& rule) const {
    return find_row(contract_, suffix, scheme, rule).wire_dtypes;
}

std::string ContractApplier::scale_suffix() const {
    return out_.config.scheme == Scheme::fp8_blockwise ? contract_.block_scale_suffix
                                                       : "weight_scale";
}

core::Shape ContractApplier::scale_shape(std::int64_t rows, std::int64_t cols) const {
    switch (out_.config.scheme) {
        case Scheme::fp8_blockwise:
            if (four_dimensional()) return {ceil_div(rows, kBlock), 1, ceil_div(cols, kBlock), 1};
            return {ceil_div(rows, kBlock), ceil_div(cols, kBlock)};
        case Scheme::fp8_channelwise:
            return contract_.channel_scale_rank == 1 ? core::Shape{rows} : core::Shape{rows, 1};
        default:
            return {1};
    }
}

void ContractApplier::add_spans(std::size_t index, std::size_t dest, const Cut& cut) {
    wire::WantedParameter& parameter = out_.wanted[index];
    const std::int64_t rows = core::matrix_rows(parameter.shape);
    const std::int64_t cols = core::matrix_cols(parameter.shape);
    parameter.row_cuts = cuts(rows, cut.row_size);
    parameter.col_cuts = cuts(cols, cut.col_size);
    const std::int64_t col_cells = static_cast<std::int64_t>(parameter.col_cuts.size()) - 1;
    const std::int64_t dest_rows = out_.destinations[dest].rows();
    for (int rank = 0; rank < tp_; ++rank) {
        if (cut.only_rank >= 0 && rank != cut.only_rank) continue;
        const std::int64_t row_cell = cut.row_size > 0 ? rank / cut.replicas : 0;
        const std::int64_t col_cell = cut.col_size > 0 ? rank : 0;
        const std::int64_t row = row_cell * cut.row_size;
        const std::int64_t col = col_cell * cut.col_size;
        std::int64_t height = cut.row_size > 0 ? std::min(cut.row_size, rows - row) : rows;
        height = std::min(height, dest_rows - cut.dest_row);
        const std::int64_t width = cut.col_size > 0 ? std::min(cut.col_size, cols - col) : cols;
        if (height <= 0 || width <= 0) continue;
        LoadSpan span;
        span.wanted = index;
        span.cell = static_cast<std::uint32_t>(row_cell * col_cells + col_cell);
        span.source = {row, col, height, width};
        span.destination = dest;
        span.dest_row = cut.dest_row;
        span.dest_col = cut.dest_col;
        out_.spans[static_cast<std::size_t>(rank)].push_back(span);
    }
}

void ContractApplier::place_vocabulary(const model::TensorSpec& spec) {
    const std::int64_t local = padded_vocabulary() / tp_;
    const std::int64_t cols = core::matrix_cols(spec.shape);
    const std::size_t dest = destination(spec.name, DType::bf16, {local, cols}, false);
    // The last ranks hold the padding; the loader finds each rank's share of it from the rows
    // that no span covers.
    out_.destinations[dest].padding_rows = std::min(local, padded_vocabulary() - model_.vocabulary);
    const std::size_t index =
        want(wanted(spec.name, dtypes_of("vocabulary", "any", "column"), spec.shape));
    add_spans(index, dest, {.row_size = local});
}

void ContractApplier::place(const model::TensorSpec& spec) {
    if (is_router_bias(spec)) {
        place_router_bias(spec);
        return;
    }
    if (is_whole(spec.role)) {
        place_whole(spec);
        return;
    }
    switch (spec.role) {
        case Role::embedding:
        case Role::head:
            place_vocabulary(spec);
            return;
        case Role::bias:
            place_bias(spec);
            return;
        default:
            break;
    }
    if (spec.expert >= 0) {
        place_expert(spec);
    } else {
        place_weight(spec);
    }
}

void ContractApplier::place_whole(const model::TensorSpec& spec) {
    const std::size_t dest = destination(spec.name, DType::bf16, spec.shape, false);
    add_spans(want(wanted(spec.name, dtypes_of("norm", "any", "replicated"), spec.shape)), dest,
              {});
}

/// The engine keeps it in F32 whatever the model's type; the training type is the one to send.
void ContractApplier::place_router_bias(const model::TensorSpec& spec) {
    const std::size_t dest = destination(spec.name, DType::f32, spec.shape, false);
    std::vector<DType> dtypes = {DType::bf16, DType::f32};
    if (spec.dtype == DType::f32) std::swap(dtypes[0], dtypes[1]);
    add_spans(want(wanted(spec.name, std::move(dtypes), spec.shape)), dest, {});
}

void ContractApplier::place_bias(const model::TensorSpec& spec) {
    const Layer layer = layer_of(spec, module_of(spec.name));
    const std::size_t dest =
        destination(layer.module + ".bias", DType::bf16, {layer.local_rows()}, false);
    const std::size_t index = want(wanted(spec.name, dtypes_of("bias", "any", "qkv"), spec.shape));
    if (layer.fused()) out_.wanted[index].fuse_group = layer.module;
    if (layer.cut != LayerCut::column) {
        add_spans(index, dest, {.dest_row = layer.offset(layer.index)});
        return;
    }
    const Part& part = layer.parts[layer.index];
    add_spans(
        index, dest,
        {.row_size = part.local, .replicas = part.replicas, .dest_row = layer.offset(layer.index)});
}

void ContractApplier::place_weight(const model::TensorSpec& spec) {
    const Layer layer = layer_of(spec, module_of(spec.name));
    const bool skipped = known_layer(layer).skipped;
    const bool row_parallel = layer.cut == LayerCut::row;

    const std::string rule = row_parallel ? "row" : "column";
    const Part& part = layer.parts[layer.index];
    const std::int64_t local_cols = row_parallel ? layer.cols / tp_ : layer.cols;
    const std::size_t dest =
        destination(layer.module + ".weight", skipped ? DType::bf16 : DType::f8_e4m3,
                    {layer.local_rows(), local_cols}, false);
    const std::size_t weight =
        want(wanted(spec.name, dtypes_of("weight", skipped ? "bf16" : scheme_, rule), spec.shape));
    if (layer.fused()) out_.wanted[weight].fuse_group = layer.module;
    Cut cut;
    cut.replicas = part.replicas;
    cut.dest_row = layer.offset(layer.index);
    if (row_parallel) cut.col_size = local_cols;
    if (layer.cut == LayerCut::column) cut.row_size = part.local;
    add_spans(weight, dest, cut);
    if (spec.role == Role::kv_b_proj) {
        out_.latent.push_back({.module = module_of(part.module),
                               .destination = dest,
                               .heads = model_.heads / tp_,
                               .nope_dim = model_.nope_head_dim,
                               .v_dim = model_.v_head_dim,
                               .kv_lora_rank = model_.kv_lora_rank});
    }
    if (skipped) return;

    const std::size_t scale = want_scale(weight, rule);
    core::Shape dest_shape = scale_shape(layer.local_rows(), local_cols);
    Granularity granularity = Granularity::block;
    Cut scale_cut;
    if (out_.config.scheme == Scheme::fp8_blockwise) {
        // The engine divides by the TP size first and then rounds up, offsets and sizes alike.
        scale_cut.row_size = ceil_div(cut.row_size, kBlock);
        scale_cut.replicas = part.replicas;
        scale_cut.col_size = ceil_div(cut.col_size, kBlock);
        scale_cut.dest_row = ceil_div(cut.dest_row, kBlock);
    } else if (out_.config.scheme == Scheme::fp8_channelwise) {
        granularity = Granularity::channel;
        // A row-parallel layer keeps every output row, and so every scale.
        scale_cut.row_size = cut.row_size;
        scale_cut.replicas = part.replicas;
        scale_cut.dest_row = cut.dest_row;
    } else {
        granularity = Granularity::tensor;
        dest_shape = {static_cast<std::int64_t>(layer.parts.size())};
        scale_cut.dest_row = static_cast<std::int64_t>(layer.index);
    }
    const std::size_t scale_dest =
        destination(layer.module + "." + scale_suffix(), DType::f32, dest_shape, true);
    out_.destinations[dest].scale = static_cast<std::int64_t>(scale_dest);
    out_.destinations[dest].granularity = granularity;
    add_spans(scale, scale_dest, scale_cut);
}

/// The list for a model that has no layout at this TP size: names and shapes only.
void ContractApplier::list_uncut(const model::TensorSpec& spec) {
    const bool vocabulary = spec.role == Role::embedding || spec.role == Role::head;
    if (is_router_bias(spec)) {
        want(wanted(spec.name, {DType::bf16, DType::f32}, spec.shape));
        return;
    }
    if (vocabulary || is_whole(spec.role) || spec.role == Role::bias) {
        const std::string suffix = vocabulary                ? "vocabulary"
                                   : spec.role == Role::bias ? "bias"
                                                             : "norm";
        want(wanted(spec.name, dtypes_of(suffix, "any", ""), spec.shape));
        return;
    }
    const std::string module = module_of(spec.name);
    const bool expert = spec.expert >= 0;
    const bool skipped = expert ? known_experts(module_of(module_of(module))).skipped
                                : known_layer(layer_of(spec, module)).skipped;
    const std::string rule = expert ? "experts" : "";
    const std::size_t weight =
        want(wanted(spec.name, dtypes_of("weight", skipped ? "bf16" : scheme_, rule), spec.shape));
    if (!skipped) want_scale(weight, rule);
}

}  // namespace refit::receiver
