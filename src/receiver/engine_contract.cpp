// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/engine_contract.hpp"

#include <algorithm>
#include <map>
#include <regex>
#include <utility>

#include "core/error.hpp"
#include "receiver/engines/engines.hpp"

namespace refit::receiver {
namespace {

using core::ceil_div;
using core::DType;
using model::Role;
using quant::Scheme;

constexpr std::int64_t kBlock = 128;
constexpr std::int64_t kVocabularyPadding = 64;

/// One matrix of a layer that the engine may hold fused with others.
struct Part {
    std::string module;      ///< "model.layers.0.self_attn.k_proj"
    std::int64_t rows = 0;   ///< global
    std::int64_t local = 0;  ///< on one rank
    std::int64_t replicas = 1;
};

/// A layer as the engine holds it: its parts in order and how they are cut.
struct Layer {
    std::string module;  ///< "model.layers.0.self_attn.qkv_proj"
    std::vector<Part> parts;
    std::int64_t cols = 0;  ///< global
    bool row_parallel = false;
    bool skipped = false;
    std::size_t index = 0;  ///< of the part at hand

    [[nodiscard]] bool fused() const { return parts.size() > 1; }
    [[nodiscard]] std::int64_t offset(std::size_t part) const {
        std::int64_t sum = 0;
        for (std::size_t i = 0; i < part; ++i) sum += parts[i].local;
        return sum;
    }
    [[nodiscard]] std::int64_t local_rows() const { return offset(parts.size()); }
};

std::string error_text(const std::string& kind, const std::string& text) {
    return kind + ": " + text;
}

std::string narrow_text(std::int64_t start, std::int64_t length, std::int64_t size) {
    return "RuntimeError: start (" + std::to_string(start) + ") + length (" +
           std::to_string(length) + ") exceeds dimension size (" + std::to_string(size) + ").";
}

/// Boundaries 0, size, 2 size ... total; {0, total} for a size of nothing.
std::vector<std::int64_t> cuts(std::int64_t total, std::int64_t size) {
    std::vector<std::int64_t> result = {0};
    if (size > 0) {
        for (std::int64_t at = size; at < total; at += size) result.push_back(at);
    }
    result.push_back(total);
    return result;
}

/// The module of "X.weight" and "X.bias".
std::string module_of(const std::string& tensor) {
    return tensor.substr(0, tensor.rfind('.'));
}

class Applier {
 public:
    Applier(const EngineContract& contract, const model::ModelConfig& model,
            const QuantizationConfig& config, int tp)
        : contract_(contract), model_(model), tp_(tp) {
        out_.engine = contract.name;
        out_.engine_version = contract.version;
        out_.config = config;
        out_.tp = tp;
        out_.spans.resize(static_cast<std::size_t>(tp));
        scheme_ = std::string(quant::scheme_name(config.scheme));
        for (const std::string& entry : config.skip_list) {
            if (!is_pattern(entry)) continue;
            try {
                patterns_.emplace_back(entry.substr(3));
            } catch (const std::regex_error&) {
                throw core::ScenarioError("quantization_config for " + contract.name +
                                          ": the ignore entry '" + entry +
                                          "' is not a regular expression; correct it");
            }
        }
    }

    ContractInstance run() {
        const std::vector<model::TensorSpec> tensors = model::tensors_of(model_);
        feasible_ = fits();
        for (const model::TensorSpec& spec : tensors) {
            if (feasible_) {
                place(spec);
            } else {
                list_uncut(spec);
            }
        }
        if (feasible_) {
            for (const auto& [name, layer] : layers_) check_layer(layer);
        }
        return std::move(out_);
    }

 private:
    [[nodiscard]] bool is_pattern(const std::string& entry) const {
        return out_.config.quant_method == "compressed-tensors" && entry.starts_with("re:");
    }

    [[nodiscard]] bool listed(const std::string& module) const {
        for (const std::string& entry : out_.config.skip_list) {
            if (!is_pattern(entry) && entry == module) return true;
        }
        // A pattern must match from the start on, but need not reach the end.
        return std::any_of(patterns_.begin(), patterns_.end(), [&](const std::regex& pattern) {
            return std::regex_search(module, pattern, std::regex_constants::match_continuous);
        });
    }

    void refuse(const std::string& tensor, const std::string& behaviour,
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

    /// Heads, intermediate rows and vocabulary over the ranks; false where no layout exists at all.
    bool fits() {
        const std::string first = "model.layers.0.";
        const std::string remedy = "choose a TP size that divides the model";
        const std::string by = "a multiple of " + std::to_string(tp_);
        const std::size_t before = out_.refusals.size();
        if (model_.heads % tp_ != 0) {
            refuse(first + "self_attn.q_proj.weight", "raises", "",
                   std::to_string(model_.heads) + " query heads", by, remedy);
        }
        const bool kv_fits =
            tp_ >= model_.kv_heads ? tp_ % model_.kv_heads == 0 : model_.kv_heads % tp_ == 0;
        if (!kv_fits) {
            refuse(first + "self_attn.k_proj.weight", "raises", "",
                   std::to_string(model_.kv_heads) + " key and value heads",
                   by + " or a divisor of it", remedy);
        }
        if (model_.intermediate % tp_ != 0) {
            refuse(first + "mlp.gate_proj.weight", "raises", "",
                   std::to_string(model_.intermediate) + " intermediate rows", by, remedy);
        }
        if (padded_vocabulary() % tp_ != 0) {
            refuse("model.embed_tokens.weight", "raises", "",
                   "a vocabulary padded to " + std::to_string(padded_vocabulary()), by, remedy);
        }
        return out_.refusals.size() == before;
    }

    [[nodiscard]] std::int64_t padded_vocabulary() const {
        return ceil_div(model_.vocabulary, kVocabularyPadding) * kVocabularyPadding;
    }

    /// Name of the engine's layer that holds the part, with every part's rows.
    [[nodiscard]] Layer layer_of(const model::TensorSpec& spec, const std::string& module) const {
        const std::string parent = module_of(module) + ".";
        Layer layer;
        layer.cols = core::matrix_cols(spec.shape);
        const std::string leaf = module.substr(parent.size());
        if (leaf == "q_proj" || leaf == "k_proj" || leaf == "v_proj") {
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
                layer.parts.push_back(
                    {parent + name, model_.intermediate, model_.intermediate / tp_, 1});
            }
        } else {
            layer.module = module;
            layer.row_parallel = true;
            layer.parts = {
                {module, core::matrix_rows(spec.shape), core::matrix_rows(spec.shape), 1}};
        }
        for (std::size_t i = 0; i < layer.parts.size(); ++i) {
            if (layer.parts[i].module == module) layer.index = i;
        }
        return layer;
    }

    [[nodiscard]] bool quantizes() const { return out_.config.scheme != Scheme::bf16; }

    /// Whether the skip list leaves the layer in BF16; parts that disagree are refused once.
    bool skip_of(const Layer& layer) {
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

    std::size_t destination(const std::string& name, DType dtype, core::Shape shape,
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

    std::size_t want(wire::WantedParameter wanted) {
        out_.wanted.push_back(std::move(wanted));
        return out_.wanted.size() - 1;
    }

    static wire::WantedParameter wanted(const std::string& name, std::vector<DType> dtypes,
                                        core::Shape shape) {
        wire::WantedParameter result;
        result.name = name;
        result.dtypes = std::move(dtypes);
        result.row_cuts = {0, core::matrix_rows(shape)};
        result.col_cuts = {0, core::matrix_cols(shape)};
        result.shape = std::move(shape);
        return result;
    }

    [[nodiscard]] std::vector<DType> dtypes_of(const std::string& suffix, const std::string& scheme,
                                               const std::string& rule) const {
        return find_row(contract_, suffix, scheme, rule).wire_dtypes;
    }

    [[nodiscard]] std::string scale_suffix() const {
        return out_.config.scheme == Scheme::fp8_blockwise ? contract_.block_scale_suffix
                                                           : "weight_scale";
    }

    [[nodiscard]] bool four_dimensional() const { return out_.config.algo == "FP8_PB_WO"; }

    [[nodiscard]] core::Shape scale_shape(std::int64_t rows, std::int64_t cols) const {
        switch (out_.config.scheme) {
            case Scheme::fp8_blockwise:
                if (four_dimensional())
                    return {ceil_div(rows, kBlock), 1, ceil_div(cols, kBlock), 1};
                return {ceil_div(rows, kBlock), ceil_div(cols, kBlock)};
            case Scheme::fp8_channelwise:
                return contract_.channel_scale_rank == 1 ? core::Shape{rows} : core::Shape{rows, 1};
            default:
                return {1};
        }
    }

    /// A span of every rank whose row and column sizes are given; whatever leaves source or
    /// destination is cut off (such a layer has a refusal).
    struct Cut {
        std::int64_t row_size = 0;  ///< 0: not cut
        std::int64_t replicas = 1;
        std::int64_t col_size = 0;
        std::int64_t dest_row = 0;
    };
    void add_spans(std::size_t index, std::size_t dest, const Cut& cut) {
        wire::WantedParameter& parameter = out_.wanted[index];
        const std::int64_t rows = core::matrix_rows(parameter.shape);
        const std::int64_t cols = core::matrix_cols(parameter.shape);
        parameter.row_cuts = cuts(rows, cut.row_size);
        parameter.col_cuts = cuts(cols, cut.col_size);
        const std::int64_t col_cells = static_cast<std::int64_t>(parameter.col_cuts.size()) - 1;
        const std::int64_t dest_rows = core::matrix_rows(out_.destinations[dest].shape);
        for (int rank = 0; rank < tp_; ++rank) {
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
            out_.spans[static_cast<std::size_t>(rank)].push_back(span);
        }
    }

    void place(const model::TensorSpec& spec) {
        switch (spec.role) {
            case Role::embedding:
            case Role::head:
                place_vocabulary(spec);
                return;
            case Role::norm:
                place_replicated(spec);
                return;
            case Role::bias:
                place_bias(spec);
                return;
            case Role::q_proj:
            case Role::k_proj:
            case Role::v_proj:
            case Role::o_proj:
            case Role::gate_proj:
            case Role::up_proj:
            case Role::down_proj:
                place_weight(spec);
                return;
            case Role::router:
                break;
        }
        throw core::ScenarioError(contract_.name + " has no contract for " + spec.name + " (role " +
                                  std::string(model::role_name(spec.role)) +
                                  "); only dense Llama, Qwen2 and Qwen3 models are supported");
    }

    void place_vocabulary(const model::TensorSpec& spec) {
        const std::int64_t local = padded_vocabulary() / tp_;
        const std::int64_t cols = core::matrix_cols(spec.shape);
        const std::size_t dest = destination(spec.name, DType::bf16, {local, cols}, false);
        // The last ranks hold the padding; the loader finds each rank's share of it from the rows
        // that no span covers.
        out_.destinations[dest].padding_rows =
            std::min(local, padded_vocabulary() - model_.vocabulary);
        const std::size_t index =
            want(wanted(spec.name, dtypes_of("vocabulary", "any", "column"), spec.shape));
        add_spans(index, dest, {.row_size = local});
    }

    void place_replicated(const model::TensorSpec& spec) {
        const std::size_t dest = destination(spec.name, DType::bf16, spec.shape, false);
        add_spans(want(wanted(spec.name, dtypes_of("norm", "any", "replicated"), spec.shape)), dest,
                  {});
    }

    void place_bias(const model::TensorSpec& spec) {
        const Layer layer = layer_of(spec, module_of(spec.name));
        const std::size_t dest =
            destination(layer.module + ".bias", DType::bf16, {layer.local_rows()}, false);
        const std::size_t index =
            want(wanted(spec.name, dtypes_of("bias", "any", "qkv"), spec.shape));
        if (layer.fused()) out_.wanted[index].fuse_group = layer.module;
        if (layer.row_parallel) {
            add_spans(index, dest, {});
            return;
        }
        const Part& part = layer.parts[layer.index];
        add_spans(index, dest,
                  {.row_size = part.local,
                   .replicas = part.replicas,
                   .dest_row = layer.offset(layer.index)});
    }

    void place_weight(const model::TensorSpec& spec) {
        Layer layer = layer_of(spec, module_of(spec.name));
        const auto known = layers_.find(layer.module);
        layer.skipped = known != layers_.end() ? known->second.skipped : skip_of(layer);
        layers_.try_emplace(layer.module, layer);

        const std::string rule = layer.row_parallel ? "row" : "column";
        const Part& part = layer.parts[layer.index];
        const std::int64_t rows = core::matrix_rows(spec.shape);
        const std::int64_t local_cols = layer.row_parallel ? layer.cols / tp_ : layer.cols;
        const std::string group = layer.fused() ? layer.module : "";
        const std::size_t dest =
            destination(layer.module + ".weight", layer.skipped ? DType::bf16 : DType::f8_e4m3,
                        {layer.local_rows(), local_cols}, false);
        const std::size_t weight = want(wanted(
            spec.name, dtypes_of("weight", layer.skipped ? "bf16" : scheme_, rule), spec.shape));
        out_.wanted[weight].fuse_group = group;
        Cut cut;
        cut.replicas = part.replicas;
        cut.dest_row = layer.offset(layer.index);
        if (layer.row_parallel) {
            cut.col_size = local_cols;
        } else {
            cut.row_size = part.local;
        }
        add_spans(weight, dest, cut);
        if (layer.skipped) return;

        const std::string suffix = scale_suffix();
        const std::string scale_name = part.module + "." + suffix;
        const std::size_t scale = want(
            wanted(scale_name, dtypes_of(suffix, scheme_, rule), scale_shape(rows, layer.cols)));
        out_.wanted[weight].scale = scale_name;
        out_.wanted[scale].scale_of = spec.name;
        out_.wanted[scale].fuse_group = group;

        core::Shape dest_shape = scale_shape(layer.local_rows(), local_cols);
        Granularity granularity = Granularity::block;
        Cut scale_cut;
        if (out_.config.scheme == Scheme::fp8_blockwise) {
            // The engine divides by the TP size first and then rounds up, offsets and sizes alike.
            scale_cut = {.row_size = layer.row_parallel ? 0 : ceil_div(cut.row_size, kBlock),
                         .replicas = part.replicas,
                         .col_size = layer.row_parallel ? ceil_div(local_cols, kBlock) : 0,
                         .dest_row = ceil_div(cut.dest_row, kBlock)};
        } else if (out_.config.scheme == Scheme::fp8_channelwise) {
            granularity = Granularity::channel;
            // A row-parallel layer keeps every output row, and so every scale.
            if (!layer.row_parallel) scale_cut = {part.local, part.replicas, 0, cut.dest_row};
        } else {
            granularity = Granularity::tensor;
            dest_shape = {static_cast<std::int64_t>(layer.parts.size())};
            scale_cut.dest_row = static_cast<std::int64_t>(layer.index);
        }
        const std::size_t scale_dest =
            destination(layer.module + "." + suffix, DType::f32, dest_shape, true);
        out_.destinations[dest].scale = static_cast<std::int64_t>(scale_dest);
        out_.destinations[dest].granularity = granularity;
        add_spans(scale, scale_dest, scale_cut);
    }

    /// The list for a model that has no layout at this TP size: names and shapes only.
    void list_uncut(const model::TensorSpec& spec) {
        const bool vocabulary = spec.role == Role::embedding || spec.role == Role::head;
        if (vocabulary || spec.role == Role::norm || spec.role == Role::bias) {
            const std::string suffix = vocabulary                ? "vocabulary"
                                       : spec.role == Role::norm ? "norm"
                                                                 : "bias";
            want(wanted(spec.name, dtypes_of(suffix, "any", ""), spec.shape));
            return;
        }
        const std::string module = module_of(spec.name);
        const Layer layer = layer_of(spec, module);
        const auto known = layers_.find(layer.module);
        const bool skipped = known != layers_.end() ? known->second.skipped : skip_of(layer);
        layers_.try_emplace(layer.module, layer).first->second.skipped = skipped;
        const std::size_t weight = want(
            wanted(spec.name, dtypes_of("weight", skipped ? "bf16" : scheme_, ""), spec.shape));
        if (skipped) return;
        const std::string suffix = scale_suffix();
        const std::size_t scale =
            want(wanted(module + "." + suffix, dtypes_of(suffix, scheme_, ""),
                        scale_shape(core::matrix_rows(spec.shape), core::matrix_cols(spec.shape))));
        out_.wanted[weight].scale = out_.wanted[scale].name;
        out_.wanted[scale].scale_of = spec.name;
    }

    // Block divisibility
    // --------------------------------------------------------------------------------------------

    void check_layer(const Layer& layer) {
        if (layer.skipped || out_.config.scheme != Scheme::fp8_blockwise) return;
        if (layer.row_parallel) {
            check_row_layer(layer);
        } else if (four_dimensional() || out_.config.quant_method == "compressed-tensors") {
            check_parts_at_construction(layer);
        } else {
            check_parts_at_load(layer);
        }
    }

    void check_row_layer(const Layer& layer) {
        const std::string tensor = layer.module + ".weight";
        const std::int64_t cols = layer.cols / tp_;
        if (four_dimensional() && layer.parts[0].local % kBlock != 0) {
            refuse(tensor, "raises", "ValueError", std::to_string(layer.parts[0].local) + " rows",
                   "a multiple of 128 rows", "leave the layer in BF16 or use another scheme");
        } else if (cols % kBlock != 0 && (tp_ > 1 || four_dimensional())) {
            refuse(tensor, "raises",
                   four_dimensional()
                       ? "ValueError"
                       : error_text("ValueError",
                                    "Weight input_size_per_partition = " + std::to_string(cols) +
                                        " is not divisible by weight quantization "
                                        "block_k = 128."),
                   std::to_string(cols) + " columns a rank", "a multiple of 128 columns a rank",
                   "lower the TP size, or leave the layer in BF16");
        }
    }

    /// The engine without the escape hatch for ragged fused layers: refused when the layer is
    /// built.
    void check_parts_at_construction(const Layer& layer) {
        if (four_dimensional() && layer.cols % kBlock != 0) {
            refuse(layer.parts[0].module + ".weight", "raises", "ValueError",
                   std::to_string(layer.cols) + " columns", "a multiple of 128 columns",
                   "leave the layer in BF16 or use another scheme");
            return;
        }
        for (std::size_t i = 0; i < layer.parts.size(); ++i) {
            const Part& part = layer.parts[i];
            const bool last_may = tp_ == 1 && i + 1 == layer.parts.size() && !four_dimensional();
            if (part.local % kBlock == 0 || last_may) continue;
            refuse(part.module + ".weight", "raises",
                   four_dimensional()
                       ? "ValueError"
                       : error_text("ValueError",
                                    "Weight output_partition_size = " + std::to_string(part.local) +
                                        " is not divisible by weight quantization "
                                        "block_n = 128."),
                   std::to_string(part.local) + " rows a rank", "a multiple of 128 rows a rank",
                   "lower the TP size, or leave the fused layer in BF16");
        }
    }

    /// quant_method fp8 builds a ragged fused layer; its loader then leaves the scale's range or,
    /// where the ranges happen to fit, lets parts share scale rows without a word.
    void check_parts_at_load(const Layer& layer) {
        const bool ragged = std::any_of(layer.parts.begin(), layer.parts.end(),
                                        [](const Part& part) { return part.local % kBlock != 0; });
        if (!ragged) return;
        const std::int64_t dest_rows = ceil_div(layer.local_rows(), kBlock);
        bool raised = false;
        for (std::size_t i = 0; i < layer.parts.size(); ++i) {
            const Part& part = layer.parts[i];
            const std::int64_t size = ceil_div(part.local, kBlock);
            const std::int64_t offset = ceil_div(layer.offset(i), kBlock);
            const std::int64_t grid = ceil_div(part.rows, kBlock);
            std::string text;
            if (offset + size > dest_rows) text = narrow_text(offset, size, dest_rows);
            for (int rank = 0; rank < tp_ && text.empty(); ++rank) {
                const std::int64_t start = rank / part.replicas * size;
                if (start + size > grid) text = narrow_text(start, size, grid);
            }
            if (text.empty()) continue;
            raised = true;
            refuse(part.module + ".weight", "raises", text,
                   std::to_string(part.local) + " rows a rank", "a multiple of 128 rows a rank",
                   "lower the TP size, or leave all parts of " + layer.module + " in BF16");
        }
        if (raised) return;
        for (std::size_t i = 0; i < layer.parts.size(); ++i) {
            const Part& part = layer.parts[i];
            if (part.local % kBlock == 0 && layer.offset(i) % kBlock == 0) continue;
            refuse(part.module + ".weight", "silently_wrong", "",
                   std::to_string(part.local) + " rows from row " +
                       std::to_string(layer.offset(i)) + " of " + layer.module,
                   "parts that begin and end at multiples of 128 rows",
                   "leave all parts of " + layer.module +
                       " in BF16: the engine accepts it, and scale rows of neighbouring parts "
                       "overwrite each other");
        }
    }

    const EngineContract& contract_;
    const model::ModelConfig& model_;
    int tp_;
    std::string scheme_;
    bool feasible_ = true;
    std::vector<std::regex> patterns_;
    ContractInstance out_;
    std::map<std::string, std::size_t> destination_index_;
    std::map<std::string, Layer> layers_;
};

}  // namespace

ContractInstance apply_contract(const EngineContract& contract, const model::ModelConfig& model,
                                const QuantizationConfig& config, int tp) {
    if (tp < 1) {
        throw core::ScenarioError("receiver.tp is " + std::to_string(tp) + ", expected at least 1");
    }
    const auto& schemes = contract.schemes;
    if (std::find(schemes.begin(), schemes.end(), config.scheme) == schemes.end()) {
        std::string names;
        for (const Scheme scheme : schemes) {
            names += (names.empty() ? "" : ", ") + std::string(quant::scheme_name(scheme));
        }
        throw core::ScenarioError("engine " + contract.name + " has no scheme " +
                                  std::string(quant::scheme_name(config.scheme)) +
                                  "; it has: " + names);
    }
    return Applier(contract, model, config, tp).run();
}

}  // namespace refit::receiver
