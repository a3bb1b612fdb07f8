// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Block divisibility: what the engine refuses when it builds a layer, what its loader refuses
// later, and what it accepts and gets wrong.
#include <algorithm>
#include <utility>

#include "receiver/contract_applier.hpp"

namespace refit::receiver {

using core::ceil_div;

namespace {

std::string number(std::int64_t value) {
    return std::to_string(value);
}

std::string error_text(const std::string& kind, const std::string& text) {
    return kind + ": " + text;
}

std::string narrow_text(std::int64_t start, std::int64_t length, std::int64_t size) {
    return "RuntimeError: start (" + number(start) + ") + length (" + number(length) +
           ") exceeds dimension size (" + number(size) + ").";
}

std::string column_text(std::int64_t rows, std::int64_t block) {
    return error_text("ValueError", "Weight output_partition_size = " + number(rows) +
                                        " is not divisible by weight quantization block_n = " +
                                        number(block) + ".");
}

std::string multiple_of(std::int64_t block, const std::string& of) {
    return "a multiple of " + number(block) + " " + of;
}

/// Rows of a block of the group that targets "Linear"; 0 where there is none, or it has no blocks.
std::int64_t rows_of_linear_block(const QuantizationConfig& config) {
    const auto rows_of = [](const WeightFormat& format) {
        return format.scheme == quant::Scheme::fp8_blockwise ? format.block_rows : 0;
    };
    for (const TargetFormat& target : config.mixed) {
        if (target.target == "Linear") return rows_of(target.format);
    }
    const bool linear = config.mixed.empty() && config.targets.empty();
    return linear ? rows_of(config.format()) : 0;
}

const char* const kLowerTp = "lower the TP size, or leave the layer in BF16";
const char* const kOtherScheme = "leave the layer in BF16 or use another scheme";

}  // namespace

void ContractApplier::check_layers() {
    for (const Layer& layer : layers_) {
        if (!layer.blockwise()) continue;
        if (contract_.warns_of_ragged_grids) check_scale_grid(layer, false);
        if (contract_.block_rule == BlockRule::scale_grid) {
            check_scale_grid(layer, true);
        } else if (layer.cut == LayerCut::experts) {
            check_experts(layer);
        } else if (contract_.block_rule == BlockRule::exact_tiles) {
            check_exact_tiles(layer);
        } else if (layer.cut == LayerCut::row) {
            check_row_layer(layer);
        } else if (contract_.block_rule == BlockRule::every_part) {
            check_every_part(layer);
        } else if (contract_.block_rule == BlockRule::at_construction || !layer.fused()) {
            check_parts_at_construction(layer);
        }
    }
    // The engine loads only after every layer is built.
    for (const Layer& layer : layers_) {
        if (contract_.fused_blocks_of_linear) check_blocks_of_linear(layer);
    }
    if (contract_.block_rule != BlockRule::fused_at_load) return;
    for (const Layer& layer : layers_) {
        const bool parts = layer.cut == LayerCut::column || layer.cut == LayerCut::whole;
        if (layer.blockwise() && parts && layer.fused()) check_parts_at_load(layer);
    }
}

/// A model class whose own loader loses tensors of this scheme: one finding for all of them.
void ContractApplier::check_defects() {
    for (const LoaderDefect& defect : contract_.defects) {
        if (defect.architecture != model_.architecture || defect.scheme != out_.config.scheme) {
            continue;
        }
        std::int64_t count = 0;
        std::string first;
        for (const wire::WantedParameter& wanted : out_.wanted) {
            if (wanted.scale_of.empty() || !wanted.name.ends_with("." + defect.suffix)) continue;
            if (count++ == 0) first = wanted.name;
        }
        if (count == 0) continue;
        refuse(first, defect.behaviour, "",
               number(count) + " scales named " + defect.suffix + " (" + defect.cause + ")",
               "scales that its loader keeps", defect.remedy,
               defect.fatal ? core::Severity::error : core::Severity::warning);
    }
}

/// Gate and up rows come first; down has the same number of columns.
void ContractApplier::check_experts(const Layer& layer) {
    const std::int64_t local = layer.parts[0].local;
    const WeightFormat& block = layer.format;
    const int cut_by = expert_tp();
    const std::string remedy =
        cut_by > 1
            ? "lower the TP size, keep whole experts with ep = tp, or leave the experts in BF16"
            : "leave the experts in BF16 or use another scheme";
    const bool named = cut_by > 1 || contract_.block_rule == BlockRule::every_part;
    if (local % block.block_rows != 0) {
        refuse(layer.parts[0].module + ".weight", "raises",
               named ? error_text("ValueError",
                                  "The output_size of gate's and up's weight = " + number(local) +
                                      " is not divisible by weight quantization "
                                      "block_n = " +
                                      number(block.block_rows) + ".")
                     : "RuntimeError",
               number(local) + " rows of an expert a rank", multiple_of(block.block_rows, "rows"),
               remedy);
    }
    if (cut_by == 1 || local % block.block_cols == 0) return;
    refuse(layer.parts[2].module + ".weight", "raises",
           error_text("ValueError", "The input_size of down's weight = " + number(local) +
                                        " is not divisible by weight quantization block_k = " +
                                        number(block.block_cols) + "."),
           number(local) + " columns of an expert a rank", multiple_of(block.block_cols, "columns"),
           remedy);
}

void ContractApplier::check_row_layer(const Layer& layer) {
    const std::int64_t cols = layer.cols / tp_;
    const std::int64_t block = layer.format.block_cols;
    if (tp_ == 1 || cols % block == 0) return;
    refuse(layer.module + ".weight", "raises",
           error_text("ValueError", "Weight input_size_per_partition = " + number(cols) +
                                        " is not divisible by weight quantization block_k = " +
                                        number(block) + "."),
           number(cols) + " columns a rank", multiple_of(block, "columns a rank"), kLowerTp);
}

/// The engine without the escape hatch for ragged fused layers: refused when the layer is
/// built.
void ContractApplier::check_parts_at_construction(const Layer& layer) {
    for (std::size_t i = 0; i < layer.parts.size(); ++i) {
        const Part& part = layer.parts[i];
        // A layer that the ranks do not share may end within a block.
        const bool shared = tp_ > 1 && layer.cut == LayerCut::column;
        const bool last_may = !shared && i + 1 == layer.parts.size();
        const std::int64_t block = layer.format.block_rows;
        if (part.local % block == 0 || last_may) continue;
        refuse(part.module + ".weight", "raises", column_text(part.local, block),
               number(part.local) + " rows a rank", multiple_of(block, "rows a rank"), kLowerTp);
    }
}

/// Every part of a layer that is fused or shared, the last one too. A latent layer is one part of
/// its own, which no rank cuts.
void ContractApplier::check_every_part(const Layer& layer) {
    if (layer.rule == "latent") {
        check_concatenation(layer);
        return;
    }
    const bool shared = tp_ > 1 && layer.cut == LayerCut::column;
    if (!shared && !layer.fused()) return;
    const std::int64_t block = layer.format.block_rows;
    for (const Part& part : layer.parts) {
        if (part.local % block == 0) continue;
        refuse(part.module + ".weight", "raises", column_text(part.local, block),
               number(part.local) + " rows a rank", multiple_of(block, "rows a rank"), kLowerTp);
    }
}

/// The scales of both parts are joined before they are loaded, so that only the last part may end
/// within a block.
void ContractApplier::check_concatenation(const Layer& layer) {
    const Part& first = layer.parts.front();
    const std::int64_t block = layer.format.block_rows;
    if (first.local % block == 0) return;
    std::int64_t joined = 0;
    for (const Part& part : layer.parts) joined += ceil_div(part.local, block);
    const std::int64_t held = ceil_div(layer.local_rows(), block);
    const bool raises = joined != held;
    refuse(first.module + ".weight", raises ? "raises" : "silently_wrong",
           raises ? "AssertionError: param.shape=torch.Size([" + number(held) +
                        ", ...]) ... loaded_weight.shape=torch.Size([" + number(joined) + ", ...])"
                  : "",
           number(first.local) + " rows before " + layer.parts.back().module,
           multiple_of(block, "rows"), "leave all parts of " + layer.module + " in BF16");
}

/// Whole blocks without a rest, in every layer.
void ContractApplier::check_exact_tiles(const Layer& layer) {
    const bool row = layer.cut == LayerCut::row;
    const std::int64_t cols = row ? layer.cols / tp_ : layer.cols;
    const WeightFormat& block = layer.format;
    for (const Part& part : layer.parts) {
        if (part.local % block.block_rows == 0) continue;
        refuse(part.module + ".weight", "raises", "ValueError",
               number(part.local) + " rows" + (row ? "" : " a rank"),
               multiple_of(block.block_rows, row ? "rows" : "rows a rank"), kOtherScheme);
    }
    if (cols % block.block_cols == 0) return;
    refuse(layer.parts[0].module + ".weight", "raises", "ValueError",
           number(cols) + " columns" + (row ? " a rank" : ""),
           multiple_of(block.block_cols, row ? "columns a rank" : "columns"), kOtherScheme);
}

/// Block sizes are the weight's sizes over the numbers of scales: a size that is more than one
/// block and no multiple of one has other blocks than those it was quantized with, or none.
void ContractApplier::check_scale_grid(const Layer& layer, bool fatal) {
    const bool experts = layer.cut == LayerCut::experts;
    const std::int64_t tile[] = {layer.format.block_rows, layer.format.block_cols};
    for (std::size_t i = 0; i < layer.parts.size(); ++i) {
        const Part& part = layer.parts[i];
        std::int64_t sizes[] = {part.rows, layer.cols};
        if (experts && i == 2) std::swap(sizes[0], sizes[1]);
        for (std::size_t at = 0; at < 2; ++at) {
            const std::int64_t size = sizes[at];
            const std::int64_t blocks = ceil_div(size, tile[at]);
            if (blocks <= 1 || size % tile[at] == 0) continue;
            const bool raises = size % blocks != 0;
            refuse(part.module + ".weight", raises ? "raises" : "silently_wrong",
                   raises ? "RuntimeError: Weight shape (" + number(sizes[0]) + ", " +
                                number(sizes[1]) + ") not divisible by scale grid (" +
                                number(ceil_div(sizes[0], tile[0])) + ", " +
                                number(ceil_div(sizes[1], tile[1])) + ")"
                          : "",
                   number(size) + " rows or columns in " + number(blocks) + " blocks" +
                       (fatal ? "" : ", which transformers reads with other block sizes"),
                   "a multiple of " + number(tile[at]) + ", or at most " + number(tile[at]),
                   kOtherScheme, fatal ? core::Severity::error : core::Severity::warning);
            break;
        }
    }
}

/// The loader of a fused layer finds a part's scales by the blocks of the group of "Linear".
void ContractApplier::check_blocks_of_linear(const Layer& layer) {
    if (!layer.blockwise() || !layer.fused() || layer.cut != LayerCut::column) return;
    const std::int64_t counted_by = rows_of_linear_block(out_.config);
    const std::int64_t block = layer.format.block_rows;
    if (counted_by == block) return;
    const std::string tensor = layer.parts[0].module + ".weight";
    const std::string remedy = "give the group that targets Linear the blocks of " + layer.module +
                               ", or that layer the format of the group";
    const std::string limit = "blocks of the group that targets Linear";
    if (counted_by == 0) {
        refuse(tensor, "raises", "TypeError: 'NoneType' object is not subscriptable",
               "blocks, and a config whose group for Linear has none", limit, remedy);
        return;
    }
    bool fits = true;
    bool raises = false;
    for (std::size_t i = 0; i < layer.parts.size(); ++i) {
        const std::int64_t rows = layer.parts[i].local;
        const std::int64_t size = ceil_div(rows, counted_by);
        const std::int64_t offset = ceil_div(layer.offset(i), counted_by);
        fits = fits && size == ceil_div(rows, block) && offset == ceil_div(layer.offset(i), block);
        raises = raises || offset + size > ceil_div(layer.local_rows(), block) ||
                 size * (tp_ / layer.parts[i].replicas) > ceil_div(layer.parts[i].rows, block);
    }
    if (fits) return;
    refuse(tensor, raises ? "raises" : "silently_wrong",
           raises ? "RuntimeError: start (...) + length (...) exceeds dimension size (...)." : "",
           "blocks of " + number(block) + " rows beside " + number(counted_by) + " of Linear",
           limit, remedy);
}

/// quant_method fp8 builds a ragged fused layer; its loader then leaves the scale's range or,
/// where the ranges happen to fit, lets parts share scale rows without a word.
void ContractApplier::check_parts_at_load(const Layer& layer) {
    const std::int64_t block = layer.format.block_rows;
    const auto is_ragged = [&](const Part& part) { return part.local % block != 0; };
    if (std::none_of(layer.parts.begin(), layer.parts.end(), is_ragged)) return;
    // Rows behind the last block of an uncut layer belong to no other part.
    const bool only_last = std::none_of(layer.parts.begin(), layer.parts.end() - 1, is_ragged);
    if (only_last && layer.parts.back().local == layer.parts.back().rows) return;
    const std::int64_t dest_rows = ceil_div(layer.local_rows(), block);
    // The first rank that fails is the first to be heard: its text, and its part before others.
    std::vector<bool> raised(layer.parts.size(), false);
    for (int rank = 0; rank < tp_; ++rank) {
        for (std::size_t i = 0; i < layer.parts.size(); ++i) {
            const Part& part = layer.parts[i];
            const std::int64_t size = ceil_div(part.local, block);
            const std::int64_t offset = ceil_div(layer.offset(i), block);
            const std::int64_t grid = ceil_div(part.rows, block);
            const std::int64_t start = rank / part.replicas * size;
            std::string text;
            if (offset + size > dest_rows) {
                text = narrow_text(offset, size, dest_rows);
            } else if (start + size > grid) {
                text = narrow_text(start, size, grid);
            }
            if (text.empty() || raised[i]) continue;
            raised[i] = true;
            refuse(part.module + ".weight", "raises", text, number(part.local) + " rows a rank",
                   multiple_of(block, "rows a rank"),
                   "lower the TP size, or leave all parts of " + layer.module + " in BF16");
        }
    }
    if (std::find(raised.begin(), raised.end(), true) != raised.end()) return;
    for (std::size_t i = 0; i < layer.parts.size(); ++i) {
        const Part& part = layer.parts[i];
        if (part.local % block == 0 && layer.offset(i) % block == 0) continue;
        refuse(part.module + ".weight", "silently_wrong", "",
               number(part.local) + " rows from row " + number(layer.offset(i)) + " of " +
                   layer.module,
               "parts that begin and end at multiples of " + number(block) + " rows",
               "leave all parts of " + layer.module +
                   " in BF16: the engine accepts it, and scale rows of neighbouring parts "
                   "overwrite each other");
    }
}

}  // namespace refit::receiver
