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

std::size_t ContractApplier::want_scale(std::size_t weight, const std::string& rule) {
    const std::string suffix = scale_suffix();
    const std::string name = module_of(out_.wanted[weight].name) + "." + suffix;
    const core::Shape shape = out_.wanted[weight].shape;
    const std::size_t scale =
        want(name, scale_shape(core::matrix_rows(shape), core::matrix_cols(shape)), suffix, scheme_,
             rule);
    out_.wanted[weight].scale = name;
    out_.wanted[scale].scale_of = out_.wanted[weight].name;
    out_.wanted[scale].fuse_group = out_.wanted[weight].fuse_group;
    return scale;
}

std::size_t ContractApplier::want_input_scale(std::size_t weight, const std::string& rule) {
    const std::string name = module_of(out_.wanted[weight].name) + ".input_scale";
    const std::size_t scale = want(name, {1}, "input_scale", scheme_, rule);
    out_.wanted[scale].fuse_group = out_.wanted[weight].fuse_group;
    return scale;
}

std::string ContractApplier::scale_suffix() const {
    if (out_.config.scheme == Scheme::fp8_tensorwise) return contract_.tensor_scale_suffix;
    // Only the format of quant_method fp8 has the name with "_inv".
    const bool inv = out_.config.scheme == Scheme::fp8_blockwise &&
                     out_.config.quant_method != "compressed-tensors";
    return inv ? contract_.block_scale_suffix : "weight_scale";
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

void ContractApplier::place_scale(const Layer& layer, std::size_t weight, std::size_t dest,
                                  const Cut& cut, std::int64_t local_cols) {
    const Part& part = layer.parts[layer.index];
    const std::size_t scale = want_scale(weight, layer.rule);
    core::Shape dest_shape = scale_shape(layer.local_rows(), local_cols);
    Granularity granularity = Granularity::block;
    const core::Shape one_each = {static_cast<std::int64_t>(layer.parts.size())};
    const Cut slot = {.dest_row = static_cast<std::int64_t>(layer.index)};
    Cut scale_cut;
    if (out_.config.scheme == Scheme::fp8_blockwise) {
        // The engine divides by the TP size first and then rounds up, offsets and sizes alike,
        // unless it does so the other way round for merged layers.
        scale_cut.row_size = ceil_div(cut.row_size, kBlock);
        scale_cut.replicas = part.replicas;
        scale_cut.col_size = ceil_div(cut.col_size, kBlock);
        scale_cut.dest_row = ceil_div(cut.dest_row, kBlock);
        if (contract_.layout.ceil_then_divide && layer.rule == "merged") {
            scale_cut.row_size = ceil_div(part.rows, kBlock) / tp_;
            scale_cut.dest_row =
                ceil_div(part.rows * static_cast<std::int64_t>(layer.index), kBlock) / tp_;
        }
    } else if (out_.config.scheme == Scheme::fp8_channelwise) {
        granularity = Granularity::channel;
        // A row-parallel layer keeps every output row, and so every scale.
        scale_cut.row_size = cut.row_size;
        scale_cut.replicas = part.replicas;
        scale_cut.dest_row = cut.dest_row;
    } else {
        granularity = Granularity::tensor;
        dest_shape = one_each;
        scale_cut = slot;
    }
    const std::size_t scale_dest =
        destination(layer.module + "." + scale_suffix(), DType::f32, dest_shape, true);
    out_.destinations[dest].scale = static_cast<std::int64_t>(scale_dest);
    out_.destinations[dest].granularity = granularity;
    add_spans(scale, scale_dest, scale_cut);
    if (!out_.config.static_activations) return;
    const std::size_t input = want_input_scale(weight, layer.rule);
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
