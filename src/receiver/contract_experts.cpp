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

/// What the engine says of experts in a group of this format; "" where it has a class for them:
/// scales of whole tensors go with activations of whole tensors, channel scales with dynamic ones a
/// token, block scales with any, and weights alone with none. Sources: vLLM 0.33.0,
/// layers/quantization/compressed_tensors/compressed_tensors_moe/; SGLang 0.5.23,
/// srt/layers/quantization/compressed_tensors/schemes/compressed_tensors_w8a8_fp8_moe.py.
std::string expert_refusal(const WeightFormat& format, UnknownNames engine) {
    if (format.inputs.empty()) {
        if (engine == UnknownNames::sglang) {
            return "AttributeError: 'NoneType' object has no attribute 'num_bits'";
        }
        return format.scheme == Scheme::fp8_channelwise
                   ? "ValueError: For Fused MoE layers, only format: pack-quantized"
                   : "RuntimeError: Unsupported FusedMoe scheme: ...";
    }
    if (format.scheme == Scheme::fp8_blockwise) return "";
    const char* fits = format.scheme == Scheme::fp8_tensorwise ? "tensor" : "token";
    return format.inputs == fits ? "" : "AssertionError";
}

}  // namespace

/// Whether the skip list leaves the stack in BF16, and else how its engine holds it.
void ContractApplier::read_format_of_experts(Layer& layer) {
    layer.skipped = true;
    if (!quantizes()) return;
    const SkipAnswer answer = skip_.ask_experts(layer.module);
    layer.skipped = answer.skipped;
    layer.format = answer.format;
    if (!answer.behaviour.empty()) {
        refuse(layer.parts[0].module + ".weight", answer.behaviour, answer.engine_message,
               "ignore list and groups say different things of the projections of " + layer.module,
               "the same for gate_proj, up_proj and down_proj of all experts of a layer",
               "name every projection of every expert of the layer in one group, or on the ignore "
               "list");
    }
    if (layer.skipped) return;
    if (contract_.layout.expert_format == ExpertFormat::one_value) {
        layer.format = {};
        layer.format.scheme = Scheme::fp8_tensorwise;
        layer.format.static_activations = true;
        out_.not_for_scenarios =
            "the experts of " + contract_.name +
            " hold one weight scale and one input_scale for each projection, whatever algorithm "
            "the other layers have, and no trainer of a refit sends input scales; list the "
            "experts in 'ignore' (\"*.mlp.experts*\"), or choose another engine";
    }
    require_expert_format(layer);
}

/// What the engine's class for experts takes of the formats that it takes for linear layers.
void ContractApplier::require_expert_format(const Layer& layer) {
    const WeightFormat& format = layer.format;
    const std::string first = layer.parts[0].module + ".weight";
    if (contract_.layout.expert_format == ExpertFormat::raw_only) {
        refuse(first, "raises", "ValueError: Unsupported quantization mode: ...",
               "experts of scheme " + layer.scheme(), "experts in BF16",
               "list " + layer.module + " among the modules that stay in BF16");
        return;
    }
    // vLLM 0.33.0, fused_moe/oracle/fp8.py: no class of kernels names another block size. Its
    // reader of compressed-tensors takes every block for one of 128 x 128 here.
    const bool other_blocks =
        layer.blockwise() && (format.block_rows != 128 || format.block_cols != 128);
    if (other_blocks && out_.config.quant_method == "fp8" &&
        contract_.unknown_names == UnknownNames::vllm) {
        refuse(first, "raises",
               "NotImplementedError: No FP8 MoE backend supports the deployment configuration.",
               "experts in blocks of " + std::to_string(format.block_rows) + " x " +
                   std::to_string(format.block_cols),
               "experts in blocks of 128 x 128",
               "requantize the experts in blocks of 128 x 128, or leave them in BF16");
        return;
    }
    if (out_.config.quant_method != "compressed-tensors" || contract_.intersection) return;
    const std::string refusal = expert_refusal(format, contract_.unknown_names);
    if (refusal.empty()) return;
    const std::string found = format.inputs.empty()
                                  ? std::string("no input_activations")
                                  : "input_activations of strategy " + format.inputs;
    refuse(first, "raises", refusal, found + " for experts of scheme " + layer.scheme(),
           "weights and activations by tensor, by channel and token, or blocks",
           "give the experts channel scales with dynamic activations a token, or scales of whole "
           "tensors with activations of whole tensors, or blocks; or put them on the ignore list");
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
        read_format_of_experts(layer);
        layers_.push_back(std::move(layer));
    }
    return layers_[it->second];
}

void ContractApplier::place_expert(const model::TensorSpec& spec) {
    const std::string expert_module = module_of(module_of(spec.name));
    const std::string experts = module_of(expert_module);
    // A layer may move when others are added behind it.
    const bool skipped = known_experts(experts).skipped;
    const WeightFormat format = known_experts(experts).format;
    const std::string scheme = known_experts(experts).scheme();
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
    const std::size_t weight = want(spec.name, spec.shape, "weight", scheme, "experts");
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
    const bool second = (spec.role == model::Role::up_proj) != contract_.layout.up_before_gate;
    cut.dest_row = down ? at * hidden : at * 2 * local + (second ? local : 0);
    add_spans(weight, dest, cut);
    if (!skipped) place_expert_scale(spec, format, weight, dest, cut);
}

void ContractApplier::place_expert_scale(const model::TensorSpec& spec, const WeightFormat& format,
                                         std::size_t weight, std::size_t weight_dest,
                                         const Cut& weight_cut) {
    const bool down = spec.role == model::Role::down_proj;
    const bool second = (spec.role == model::Role::up_proj) != contract_.layout.up_before_gate;
    // A destination's name may move when others are added behind it.
    const std::string stack = out_.destinations[weight_dest].name;
    const std::int64_t local = model_.moe_intermediate / expert_tp();
    const std::int64_t stacked = model_.experts / out_.ep;
    const std::int64_t at = spec.expert % stacked;
    const std::size_t scale = want_scale(weight, format, "experts");

    core::Shape shape;
    Cut cut;
    cut.only_rank = weight_cut.only_rank;
    if (format.scheme == Scheme::fp8_blockwise) {
        const std::int64_t grid = ceil_div(local, format.block_rows);
        const std::int64_t hidden_rows = ceil_div(model_.hidden, format.block_rows);
        shape = down ? core::Shape{stacked, hidden_rows, ceil_div(local, format.block_cols)}
                     : core::Shape{stacked, 2 * grid, ceil_div(model_.hidden, format.block_cols)};
        cut.row_size = ceil_div(weight_cut.row_size, format.block_rows);
        cut.col_size = ceil_div(weight_cut.col_size, format.block_cols);
        cut.dest_row = down ? at * hidden_rows : at * 2 * grid + (second ? grid : 0);
    } else if (format.scheme == Scheme::fp8_channelwise) {
        shape = down ? core::Shape{stacked, model_.hidden, 1} : core::Shape{stacked, 2 * local, 1};
        // w2 keeps all its rows on every rank, and so all their scales.
        cut.row_size = weight_cut.row_size;
        cut.dest_row = weight_cut.dest_row;
    } else {
        shape = down ? core::Shape{stacked} : core::Shape{stacked, 2};
        cut.dest_row = at;
        cut.dest_col = second ? 1 : 0;
    }
    const std::size_t dest =
        destination(stack_suffix(stack, scale_suffix(format)), DType::f32, shape, true);
    apply_scale(weight_dest, dest, format);
    add_spans(scale, dest, cut);
    if (!format.static_activations) return;
    // Gate and up share a value, which must be the same for both.
    const std::size_t input = want_input_scale(weight, format, "experts");
    Cut slot;
    slot.only_rank = weight_cut.only_rank;
    slot.dest_row = at;
    add_spans(input,
              destination(stack.substr(0, stack.rfind("weight")) + "input_scale", DType::f32,
                          {stacked}, true),
              slot);
}

}  // namespace refit::receiver
