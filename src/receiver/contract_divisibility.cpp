// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Block divisibility: what the engine refuses when it builds a layer, what its loader refuses
// later, and what it accepts and gets wrong.
#include <algorithm>

#include "receiver/contract_applier.hpp"

namespace refit::receiver {

using core::ceil_div;
using quant::Scheme;

namespace {

std::string error_text(const std::string& kind, const std::string& text) {
    return kind + ": " + text;
}

std::string narrow_text(std::int64_t start, std::int64_t length, std::int64_t size) {
    return "RuntimeError: start (" + std::to_string(start) + ") + length (" +
           std::to_string(length) + ") exceeds dimension size (" + std::to_string(size) + ").";
}

}  // namespace

/// quant_method fp8 lets every column layer of several parts be built, ragged or not.
bool ContractApplier::builds_ragged_layers(const Layer& layer) const {
    return layer.fused() && !four_dimensional() && out_.config.quant_method != "compressed-tensors";
}

void ContractApplier::check_layers() {
    if (out_.config.scheme != Scheme::fp8_blockwise) return;
    for (const Layer& layer : layers_) {
        if (layer.skipped) continue;
        if (layer.cut == LayerCut::row) {
            check_row_layer(layer);
        } else if (layer.cut == LayerCut::experts) {
            check_experts(layer);
        } else if (!builds_ragged_layers(layer)) {
            check_parts_at_construction(layer);
        }
    }
    // The engine loads only after every layer is built.
    for (const Layer& layer : layers_) {
        const bool parts = layer.cut == LayerCut::column || layer.cut == LayerCut::whole;
        if (!layer.skipped && parts && builds_ragged_layers(layer)) check_parts_at_load(layer);
    }
}

/// Gate and up rows come first; down has the same number of columns.
void ContractApplier::check_experts(const Layer& layer) {
    const std::int64_t local = layer.parts[0].local;
    if (local % kBlock == 0) return;
    const int cut_by = expert_tp();
    const std::string number = std::to_string(local);
    const std::string remedy =
        cut_by > 1
            ? "lower the TP size, keep whole experts with ep = tp, or leave the experts in BF16"
            : "leave the experts in BF16 or use another scheme";
    refuse(layer.parts[0].module + ".weight", "raises",
           cut_by > 1 ? error_text("ValueError",
                                   "The output_size of gate's and up's weight = " + number +
                                       " is not divisible by weight quantization block_n = 128.")
                      : "RuntimeError",
           number + " rows of an expert a rank", "a multiple of 128 rows", remedy);
    if (cut_by == 1) return;
    refuse(layer.parts[2].module + ".weight", "raises",
           error_text("ValueError", "The input_size of down's weight = " + number +
                                        " is not divisible by weight quantization block_k = 128."),
           number + " columns of an expert a rank", "a multiple of 128 columns", remedy);
}

void ContractApplier::check_row_layer(const Layer& layer) {
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
void ContractApplier::check_parts_at_construction(const Layer& layer) {
    if (four_dimensional() && layer.cols % kBlock != 0) {
        refuse(layer.parts[0].module + ".weight", "raises", "ValueError",
               std::to_string(layer.cols) + " columns", "a multiple of 128 columns",
               "leave the layer in BF16 or use another scheme");
        return;
    }
    for (std::size_t i = 0; i < layer.parts.size(); ++i) {
        const Part& part = layer.parts[i];
        // A layer that the ranks do not share may end within a block.
        const bool shared = tp_ > 1 && layer.cut == LayerCut::column;
        const bool last_may = !shared && i + 1 == layer.parts.size() && !four_dimensional();
        if (part.local % kBlock == 0 || last_may) continue;
        refuse(part.module + ".weight", "raises",
               four_dimensional()
                   ? "ValueError"
                   : error_text("ValueError",
                                "Weight output_partition_size = " + std::to_string(part.local) +
                                    " is not divisible by weight quantization "
                                    "block_n = 128."),
               std::to_string(part.local) + " rows a rank", "a multiple of 128 rows a rank",
               "lower the TP size, or leave the layer in BF16");
    }
}

/// quant_method fp8 builds a ragged fused layer; its loader then leaves the scale's range or,
/// where the ranges happen to fit, lets parts share scale rows without a word.
void ContractApplier::check_parts_at_load(const Layer& layer) {
    const auto is_ragged = [](const Part& part) { return part.local % kBlock != 0; };
    if (std::none_of(layer.parts.begin(), layer.parts.end(), is_ragged)) return;
    // Rows behind the last block of an uncut layer belong to no other part.
    const bool only_last = std::none_of(layer.parts.begin(), layer.parts.end() - 1, is_ragged);
    if (only_last && layer.parts.back().local == layer.parts.back().rows) return;
    const std::int64_t dest_rows = ceil_div(layer.local_rows(), kBlock);
    // The first rank that fails is the first to be heard: its text, and its part before others.
    std::vector<bool> raised(layer.parts.size(), false);
    for (int rank = 0; rank < tp_; ++rank) {
        for (std::size_t i = 0; i < layer.parts.size(); ++i) {
            const Part& part = layer.parts[i];
            const std::int64_t size = ceil_div(part.local, kBlock);
            const std::int64_t offset = ceil_div(layer.offset(i), kBlock);
            const std::int64_t grid = ceil_div(part.rows, kBlock);
            const std::int64_t start = rank / part.replicas * size;
            std::string text;
            if (offset + size > dest_rows) {
                text = narrow_text(offset, size, dest_rows);
            } else if (start + size > grid) {
                text = narrow_text(start, size, grid);
            }
            if (text.empty() || raised[i]) continue;
            raised[i] = true;
            refuse(part.module + ".weight", "raises", text,
                   std::to_string(part.local) + " rows a rank", "a multiple of 128 rows a rank",
                   "lower the TP size, or leave all parts of " + layer.module + " in BF16");
        }
    }
    if (std::find(raised.begin(), raised.end(), true) != raised.end()) return;
    for (std::size_t i = 0; i < layer.parts.size(); ++i) {
        const Part& part = layer.parts[i];
        if (part.local % kBlock == 0 && layer.offset(i) % kBlock == 0) continue;
        refuse(part.module + ".weight", "silently_wrong", "",
               std::to_string(part.local) + " rows from row " + std::to_string(layer.offset(i)) +
                   " of " + layer.module,
               "parts that begin and end at multiples of 128 rows",
               "leave all parts of " + layer.module +
                   " in BF16: the engine accepts it, and scale rows of neighbouring parts "
                   "overwrite each other");
    }
}

}  // namespace refit::receiver
