// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/contract_applier.hpp"

#include <algorithm>
#include <utility>

#include "core/error.hpp"
#include "receiver/engine_finding.hpp"
#include "receiver/engines/engines.hpp"

namespace refit::receiver {
namespace {

using core::ceil_div;
using core::DType;
using model::Role;

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

/// Moves the dtype of the training weights to the front.
void send_first(std::vector<DType>& dtypes, DType first) {
    const auto it = std::find(dtypes.begin(), dtypes.end(), first);
    if (it != dtypes.end()) std::rotate(dtypes.begin(), it, it + 1);
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
    : contract_(contract), model_(model), tp_(tp), skip_(contract, config) {
    out_.engine = contract.name;
    out_.engine_version = contract.version;
    out_.config = config;
    out_.tp = tp;
    out_.ep = ep;
    out_.architecture = model.architecture;
    out_.kv_heads = model.kv_heads;
    out_.layers = model.layers;
    out_.mtp_layers = model.mtp_layers;
    out_.spans.resize(static_cast<std::size_t>(tp));
}

ContractInstance ContractApplier::run(CacheScales cache_scales) {
    feasible_ = fits();
    for (const model::TensorSpec& spec : model::tensors_of(model_)) {
        if (feasible_) {
            place(spec);
        } else {
            list_uncut(spec);
        }
    }
    place_cache_scales(cache_scales);
    if (feasible_) check_layers();
    check_defects();
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
    const std::int64_t multiple = contract_.layout.vocabulary_multiple;
    return ceil_div(model_.vocabulary, multiple) * multiple;
}

void ContractApplier::refuse(const std::string& tensor, const std::string& behaviour,
                             const std::string& engine_message, const std::string& measured,
                             const std::string& limit, const std::string& remedy,
                             core::Severity severity) {
    core::Finding finding = engine_finding(
        "shape_contract", tensor, measured, limit, behaviour, engine_message,
        measured + ", " + contract_.name + " at TP " + std::to_string(tp_) + " wants " + limit,
        remedy);
    finding.severity = severity;
    finding.message += " (contract: " + contract_.snapshot + ")";
    out_.refusals.push_back(std::move(finding));
}

// Skip list
// -------------------------------------------------------------------------------------------------

/// Whether the skip list leaves the layer in BF16, and else how it is quantized; what the engine
/// cannot follow is refused once.
void ContractApplier::read_format(Layer& layer) {
    layer.skipped = true;
    if (!quantizes()) return;
    SkipQuestion question{layer.module, {}, layer.class_name};
    for (const Part& part : layer.parts) question.parts.push_back(part.module);
    const std::string leaf = layer.module.substr(layer.module.rfind('.') + 1);
    for (const KnownParts& known : contract_.known_parts) {
        question.parts_known |=
            known.architecture == model_.architecture &&
            std::find(known.layers.begin(), known.layers.end(), leaf) != known.layers.end();
    }
    const SkipAnswer answer = skip_.ask(question);
    layer.skipped = answer.skipped;
    layer.format = answer.format;
    if (answer.behaviour.empty()) return;
    if (answer.behaviour == "raises" && answer.skipped) {
        refuse(layer.parts[0].module + ".weight", answer.behaviour, answer.engine_message,
               "no target of a group, and not on the ignore list", "a group that targets it",
               "name " + layer.module + " in a group, or on the ignore list");
        return;
    }
    std::string names;
    for (const Part& part : layer.parts) {
        if (!skip_.listed(part.module)) continue;
        names += (names.empty() ? "" : ", ") + part.module;
    }
    const bool raises = answer.behaviour == "raises";
    const bool all = std::all_of(layer.parts.begin(), layer.parts.end(),
                                 [this](const Part& part) { return skip_.listed(part.module); });
    refuse(layer.parts[0].module + ".weight", answer.behaviour, answer.engine_message,
           all ? "the skip list names its parts " + names : "the skip list names only " + names,
           all ? layer.module + " on the list" : "all parts of " + layer.module + " or none",
           raises ? "list every part of the fused layer"
                  : "list " + layer.module + " itself: the engine does not look for its parts");
}

// Layers
// -------------------------------------------------------------------------------------------------

/// The engine's layer that holds the module, with the rows of all its parts.
Layer ContractApplier::layer_of(const model::TensorSpec& spec, const std::string& module) const {
    Layer layer;
    layer.cols = core::matrix_cols(spec.shape);
    layer.module = module;
    name_parts(layer, module, core::matrix_rows(spec.shape));
    for (std::size_t i = 0; i < layer.parts.size(); ++i) {
        if (layer.parts[i].module == module) layer.index = i;
    }
    return layer;
}

void ContractApplier::name_parts(Layer& layer, const std::string& module, std::int64_t rows) const {
    const std::string parent = module_of(module) + ".";
    const std::string leaf = module.substr(parent.size());
    const bool fuses = contract_.layout.fuses;
    const bool dense_qkv = leaf == "q_proj" || leaf == "k_proj" || leaf == "v_proj";
    const bool gate_up = leaf == "gate_proj" || leaf == "up_proj";
    const bool latent_a = leaf == "q_a_proj" || leaf == "kv_a_proj_with_mqa";
    if (fuses && dense_qkv && !latent()) {
        const std::int64_t kv_local = tp_ >= model_.kv_heads ? 1 : model_.kv_heads / tp_;
        const std::int64_t replicas = tp_ >= model_.kv_heads ? tp_ / model_.kv_heads : 1;
        const std::int64_t kv_rows = model_.kv_heads * model_.head_dim;
        layer.module = parent + "qkv_proj";
        layer.class_name = "QKVParallelLinear";
        layer.rule = "qkv";
        layer.parts = {{parent + "q_proj", model_.heads * model_.head_dim,
                        model_.heads / tp_ * model_.head_dim, 1},
                       {parent + "k_proj", kv_rows, kv_local * model_.head_dim, replicas},
                       {parent + "v_proj", kv_rows, kv_local * model_.head_dim, replicas}};
    } else if (fuses && gate_up) {
        layer.module = parent + "gate_up_proj";
        layer.class_name = "MergedColumnParallelLinear";
        layer.rule = "merged";
        for (const char* name : {"gate_proj", "up_proj"}) {
            layer.parts.push_back({parent + name, rows, rows / tp_, 1});
        }
    } else if (fuses && latent_a && model_.q_lora_rank > 0) {
        const std::int64_t kv_rows = model_.kv_lora_rank + model_.rope_head_dim;
        layer.module = parent + contract_.layout.latent_module;
        layer.class_name = "MergedColumnParallelLinear";
        layer.rule = "latent";
        layer.cut = LayerCut::whole;
        layer.parts = {{parent + "q_a_proj", model_.q_lora_rank, model_.q_lora_rank, 1},
                       {parent + "kv_a_proj_with_mqa", kv_rows, kv_rows, 1}};
    } else if (latent_a) {
        layer.class_name = "ReplicatedLinear";
        layer.rule = "replicated";
        layer.cut = LayerCut::whole;
        layer.parts = {{module, rows, rows, 1}};
    } else if (dense_qkv || gate_up || leaf == "q_b_proj" || leaf == "kv_b_proj") {
        layer.class_name = "ColumnParallelLinear";
        layer.rule = "column";
        layer.parts = {{module, rows, rows / tp_, 1}};
    } else {
        layer.class_name = "RowParallelLinear";
        layer.rule = "row";
        layer.cut = LayerCut::row;
        layer.parts = {{module, rows, rows, 1}};
    }
}

/// The layer as first met; `layer` itself, with its answer of the skip list, when it is new.
Layer& ContractApplier::known_layer(Layer layer) {
    const auto [it, added] = layer_index_.try_emplace(layer.module, layers_.size());
    if (added) {
        read_format(layer);
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

std::size_t ContractApplier::want(const std::string& name, const core::Shape& shape,
                                  const std::string& suffix, const std::string& scheme,
                                  const std::string& rule) {
    const std::size_t row = find_row(contract_, suffix, scheme, rule);
    wire::WantedParameter wanted;
    wanted.name = name;
    wanted.dtypes = contract_.rows[row].wire_dtypes;
    wanted.row_cuts = {0, core::matrix_rows(shape)};
    wanted.col_cuts = {0, core::matrix_cols(shape)};
    wanted.shape = shape;
    out_.wanted.push_back(std::move(wanted));
    out_.rows.push_back(row);
    return out_.wanted.size() - 1;
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
    const std::size_t index = want(spec.name, spec.shape, "vocabulary", "any", "column");
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
    add_spans(want(spec.name, spec.shape, "norm", "any", "replicated"), dest, {});
}

/// The engine keeps it in F32 whatever the model's type; the training type is the one to send.
void ContractApplier::place_router_bias(const model::TensorSpec& spec) {
    const std::size_t dest = destination(spec.name, DType::f32, spec.shape, false);
    const std::size_t index = want(spec.name, spec.shape, "norm", "any", "replicated");
    send_first(out_.wanted[index].dtypes, spec.dtype);
    add_spans(index, dest, {});
}

void ContractApplier::place_bias(const model::TensorSpec& spec) {
    const Layer layer = layer_of(spec, module_of(spec.name));
    const std::size_t dest =
        destination(layer.module + ".bias", DType::bf16, {layer.local_rows()}, false);
    const std::size_t index = want(spec.name, spec.shape, "bias", "any", layer.rule);
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
    Layer layer = layer_of(spec, module_of(spec.name));
    const Layer& known = known_layer(layer);
    layer.skipped = known.skipped;
    layer.format = known.format;
    const bool row_parallel = layer.cut == LayerCut::row;

    const Part& part = layer.parts[layer.index];
    const std::int64_t local_cols = row_parallel ? layer.cols / tp_ : layer.cols;
    const std::size_t dest =
        destination(layer.module + ".weight", layer.skipped ? DType::bf16 : DType::f8_e4m3,
                    {layer.local_rows(), local_cols}, false);
    const std::size_t weight = want(spec.name, spec.shape, "weight", layer.scheme(), layer.rule);
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
    if (!layer.skipped) place_scale(layer, weight, dest, cut, local_cols);
}

/// The list for a model that has no layout at this TP size: names and shapes only.
void ContractApplier::list_uncut(const model::TensorSpec& spec) {
    const bool vocabulary = spec.role == Role::embedding || spec.role == Role::head;
    if (is_router_bias(spec)) {
        const std::size_t index = want(spec.name, spec.shape, "norm", "any", "replicated");
        send_first(out_.wanted[index].dtypes, spec.dtype);
        return;
    }
    if (vocabulary || is_whole(spec.role) || spec.role == Role::bias) {
        const std::string suffix = vocabulary                ? "vocabulary"
                                   : spec.role == Role::bias ? "bias"
                                                             : "norm";
        want(spec.name, spec.shape, suffix, "any", "");
        return;
    }
    const std::string module = module_of(spec.name);
    const bool expert = spec.expert >= 0;
    const Layer layer =
        expert ? known_experts(module_of(module_of(module))) : known_layer(layer_of(spec, module));
    const std::string rule = expert ? "experts" : layer.rule;
    const std::size_t weight = want(spec.name, spec.shape, "weight", layer.scheme(), rule);
    if (layer.skipped) return;
    want_scale(weight, layer.format, rule);
    if (layer.format.static_activations) want_input_scale(weight, layer.format, rule);
}

}  // namespace refit::receiver
