// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Routed experts: stacked into w13 and w2, cut over the TP ranks or kept whole by expert-parallel
// ranks.
#include <algorithm>

#include "receiver/contract_applier.hpp"
#include "receiver/engines/engines.hpp"

namespace refit::receiver {

using core::ceil_div;
using core::DType;
using quant::Scheme;

namespace {

/// "...w13_weight" and "weight_scale_inv" make "...w13_weight_scale_inv"; a stack whose name has no
/// "weight" gets the ending alone: "...gate_up_proj_scale_inv".
std::string stack_suffix(const std::string& stack, const std::string& suffix) {
    return stack + suffix.substr(std::string("weight").size());
}

}  // namespace

bool ContractApplier::skip_of_experts(const std::string& experts) {
    if (!quantizes()) return true;
    const SkipAnswer answer = skip_.ask_experts(experts, model_.experts);
    if (!answer.behaviour.empty()) {
        refuse(experts + ".0.gate_proj.weight", answer.behaviour, answer.engine_message,
               "the skip list names some projections of " + experts,
               "all experts of a layer or none",
               "list every projection of every expert of the layer, or none");
    }
    return answer.skipped;
}

/// The stack of experts as a layer of its own.
Layer& ContractApplier::known_experts(const std::string& experts) {
    const auto [it, added] = layer_index_.try_emplace(experts, layers_.size());
    if (added) {
        Layer layer;
        layer.module = experts;
        layer.cut = LayerCut::experts;
        layer.cols = model_.hidden;
        const std::int64_t local = model_.moe_intermediate / expert_tp();
        for (const char* name : {".gate_proj", ".up_proj", ".down_proj"}) {
            layer.parts.push_back({experts + ".0" + name, model_.moe_intermediate, local, 1});
        }
        layer.skipped = skip_of_experts(experts);
        layers_.push_back(std::move(layer));
    }
    return layers_[it->second];
}

void ContractApplier::place_expert(const model::TensorSpec& spec) {
    const std::string expert_module = module_of(module_of(spec.name));
    const std::string experts = module_of(expert_module);
    const bool skipped = known_experts(experts).skipped;
    const bool down = spec.role == model::Role::down_proj;
    const std::int64_t hidden = model_.hidden;
    const std::int64_t local = model_.moe_intermediate / expert_tp();
    const std::int64_t stacked = model_.experts / out_.ep;
    const std::int64_t at = spec.expert % stacked;

    const std::size_t dest = destination(
        experts + "." + (down ? contract_.layout.experts_down : contract_.layout.experts_gate_up),
        skipped ? DType::bf16 : DType::f8_e4m3,
        down ? core::Shape{stacked, hidden, local} : core::Shape{stacked, 2 * local, hidden},
        false);
    const std::size_t weight =
        want(spec.name, spec.shape, "weight", skipped ? "bf16" : scheme_, "experts");
    // Gate and up of one expert are fused, the experts of a layer are only neighbours.
    if (!down) out_.wanted[weight].fuse_group = expert_module + ".gate_up_proj";

    Cut cut;
    if (out_.ep > 1) {
        cut.only_rank = static_cast<int>(spec.expert / stacked);
    } else if (down) {
        cut.col_size = local;
    } else {
        cut.row_size = local;
    }
    const bool up = spec.role == model::Role::up_proj;
    cut.dest_row = down ? at * hidden : at * 2 * local + (up ? local : 0);
    add_spans(weight, dest, cut);
    if (!skipped) place_expert_scale(spec, weight, dest, cut);
}

void ContractApplier::place_expert_scale(const model::TensorSpec& spec, std::size_t weight,
                                         std::size_t weight_dest, const Cut& weight_cut) {
    const bool down = spec.role == model::Role::down_proj;
    const bool up = spec.role == model::Role::up_proj;
    // A destination's name may move when others are added behind it.
    const std::string stack = out_.destinations[weight_dest].name;
    const std::int64_t local = model_.moe_intermediate / expert_tp();
    const std::int64_t stacked = model_.experts / out_.ep;
    const std::int64_t at = spec.expert % stacked;
    const std::size_t scale = want_scale(weight, "experts");

    core::Shape shape;
    Cut cut;
    cut.only_rank = weight_cut.only_rank;
    Granularity granularity = Granularity::tensor;
    if (out_.config.scheme == Scheme::fp8_blockwise) {
        granularity = Granularity::block;
        const std::int64_t grid = ceil_div(local, kBlock);
        const std::int64_t hidden_grid = ceil_div(model_.hidden, kBlock);
        shape = down ? core::Shape{stacked, hidden_grid, grid}
                     : core::Shape{stacked, 2 * grid, hidden_grid};
        cut.row_size = ceil_div(weight_cut.row_size, kBlock);
        cut.col_size = ceil_div(weight_cut.col_size, kBlock);
        cut.dest_row = down ? at * hidden_grid : at * 2 * grid + (up ? grid : 0);
    } else if (out_.config.scheme == Scheme::fp8_channelwise) {
        granularity = Granularity::channel;
        shape = down ? core::Shape{stacked, model_.hidden, 1} : core::Shape{stacked, 2 * local, 1};
        // w2 keeps all its rows on every rank, and so all their scales.
        cut.row_size = weight_cut.row_size;
        cut.dest_row = weight_cut.dest_row;
    } else {
        shape = down ? core::Shape{stacked} : core::Shape{stacked, 2};
        cut.dest_row = at;
        cut.dest_col = up ? 1 : 0;
    }
    const std::size_t dest =
        destination(stack_suffix(stack, scale_suffix()), DType::f32, shape, true);
    out_.destinations[weight_dest].scale = static_cast<std::int64_t>(dest);
    out_.destinations[weight_dest].granularity = granularity;
    add_spans(scale, dest, cut);
    if (!out_.config.static_activations) return;
    // Gate and up share a value, which must be the same for both.
    const std::size_t input = want_input_scale(weight, "experts");
    Cut slot;
    slot.only_rank = weight_cut.only_rank;
    slot.dest_row = at;
    add_spans(input,
              destination(stack.substr(0, stack.rfind("weight")) + "input_scale", DType::f32,
                          {stacked}, true),
              slot);
}

}  // namespace refit::receiver
