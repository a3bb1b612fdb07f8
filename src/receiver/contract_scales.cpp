// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Scales of linear layers and of the KV cache: their names and shapes, and where each rank keeps
// them.
#include "receiver/cache_scales.hpp"
#include "receiver/contract_applier.hpp"

namespace refit::receiver {

using core::ceil_div;
using core::DType;
using quant::Scheme;

std::size_t ContractApplier::want_scale(std::size_t weight, const WeightFormat& format,
                                        const std::string& rule) {
    const std::string suffix = scale_suffix(format);
    const std::string name = module_of(out_.wanted[weight].name) + "." + suffix;
    const core::Shape shape = out_.wanted[weight].shape;
    const std::size_t scale =
        want(name, scale_shape(format, core::matrix_rows(shape), core::matrix_cols(shape)), suffix,
             std::string(quant::scheme_name(format.scheme)), rule);
    out_.wanted[weight].scale = name;
    out_.wanted[scale].scale_of = out_.wanted[weight].name;
    out_.wanted[scale].fuse_group = out_.wanted[weight].fuse_group;
    return scale;
}

std::size_t ContractApplier::want_input_scale(std::size_t weight, const WeightFormat& format,
                                              const std::string& rule) {
    const std::string name = module_of(out_.wanted[weight].name) + ".input_scale";
    const std::size_t scale =
        want(name, {1}, "input_scale", std::string(quant::scheme_name(format.scheme)), rule);
    out_.wanted[scale].fuse_group = out_.wanted[weight].fuse_group;
    return scale;
}

std::string ContractApplier::scale_suffix(const WeightFormat& format) const {
    if (format.scheme == Scheme::fp8_tensorwise) return contract_.tensor_scale_suffix;
    // Only the format of quant_method fp8 has the name with "_inv".
    const bool inv =
        format.scheme == Scheme::fp8_blockwise && out_.config.quant_method != "compressed-tensors";
    return inv ? contract_.block_scale_suffix : "weight_scale";
}

core::Shape ContractApplier::scale_shape(const WeightFormat& format, std::int64_t rows,
                                         std::int64_t cols) const {
    const std::int64_t grid_rows = ceil_div(rows, format.block_rows);
    const std::int64_t grid_cols = ceil_div(cols, format.block_cols);
    switch (format.scheme) {
        case Scheme::fp8_blockwise:
            if (four_dimensional()) return {grid_rows, 1, grid_cols, 1};
            return {grid_rows, grid_cols};
        case Scheme::fp8_channelwise:
            return contract_.channel_scale_rank == 1 ? core::Shape{rows} : core::Shape{rows, 1};
        default:
            return {1};
    }
}

/// How the kernel finds the scale of an element of the weight.
void ContractApplier::apply_scale(std::size_t weight_dest, std::size_t scale_dest,
                                  const WeightFormat& format) {
    DestinationParameter& weight = out_.destinations[weight_dest];
    weight.scale = static_cast<std::int64_t>(scale_dest);
    weight.granularity = format.scheme == Scheme::fp8_blockwise     ? Granularity::block
                         : format.scheme == Scheme::fp8_channelwise ? Granularity::channel
                                                                    : Granularity::tensor;
    weight.block_rows = format.block_rows;
    weight.block_cols = format.block_cols;
}

void ContractApplier::place_scale(const Layer& layer, std::size_t weight, std::size_t dest,
                                  const Cut& cut, std::int64_t local_cols) {
    const Part& part = layer.parts[layer.index];
    const WeightFormat& format = layer.format;
    const std::size_t scale = want_scale(weight, format, layer.rule);
    core::Shape dest_shape = scale_shape(format, layer.local_rows(), local_cols);
    const core::Shape one_each = {static_cast<std::int64_t>(layer.parts.size())};
    const Cut slot = {.dest_row = static_cast<std::int64_t>(layer.index)};
    Cut scale_cut;
    if (format.scheme == Scheme::fp8_blockwise) {
        // The engine divides by the TP size first and then rounds up, offsets and sizes alike,
        // unless it does so the other way round for merged layers.
        scale_cut.row_size = ceil_div(cut.row_size, format.block_rows);
        scale_cut.replicas = part.replicas;
        scale_cut.col_size = ceil_div(cut.col_size, format.block_cols);
        scale_cut.dest_row = ceil_div(cut.dest_row, format.block_rows);
        if (contract_.layout.ceil_then_divide && layer.rule == "merged") {
            const std::int64_t before = part.rows * static_cast<std::int64_t>(layer.index);
            scale_cut.row_size = ceil_div(part.rows, format.block_rows) / tp_;
            scale_cut.dest_row = ceil_div(before, format.block_rows) / tp_;
        }
    } else if (format.scheme == Scheme::fp8_channelwise) {
        // A row-parallel layer keeps every output row, and so every scale.
        scale_cut.row_size = cut.row_size;
        scale_cut.replicas = part.replicas;
        scale_cut.dest_row = cut.dest_row;
    } else {
        dest_shape = one_each;
        scale_cut = slot;
    }
    const std::size_t scale_dest =
        destination(layer.module + "." + scale_suffix(format), DType::f32, dest_shape, true);
    apply_scale(dest, scale_dest, format);
    add_spans(scale, scale_dest, scale_cut);
    if (!format.static_activations) return;
    const std::size_t input = want_input_scale(weight, format, layer.rule);
    add_spans(input, destination(layer.module + ".input_scale", DType::f32, one_each, true), slot);
}

void ContractApplier::place_cache_scales(CacheScales which) {
    for (std::int64_t layer = 0; which != CacheScales::none && layer < model_.layers; ++layer) {
        for (const CacheScaleName& name :
             cache_scales_of_layer(contract_, out_.config, model_, layer, which)) {
            const std::size_t index = want(name.wire, {1}, "cache_scale", "any", "replicated");
            out_.wanted[index].calibration = name.calibration;
            for (const std::string& alias : name.aliases) out_.aliases[alias] = name.wire;
            if (!feasible_) continue;
            const std::size_t dest =
                destination(name.parameter, DType::f32, contract_.cache_scales.shape, true);
            out_.destinations[dest].is_cache_scale = true;
            add_spans(index, dest, {});
        }
    }
}

}  // namespace refit::receiver
