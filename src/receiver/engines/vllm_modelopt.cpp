// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// vLLM, quant_method "modelopt": FP8, FP8_PER_CHANNEL_PER_TOKEN and FP8_PB_WO.
//
// The layers of algorithm FP8 also hold an input_scale that only a calibration gives: it is a
// contract for checkpoints, and no scenario can ask for it. So do the experts of every algorithm:
// ModelOptFp8MoEMethod (modelopt.py, class and its create_weights) is the only class for them, with
// one weight scale and one input scale for each projection of an expert, all 1.0 before loading, so
// that scales of the other two algorithms raise. Experts that the config leaves out stay in BF16.
#include <string>
#include <vector>

#include "receiver/engines/engines.hpp"

namespace refit::receiver {

namespace {

/// The loader reshapes a weight scale to a scalar, which raises for more than one element; an input
/// scale is assigned to one element, which does so too.
ContractRow vllm_one_value_of_expert_row(const std::string& suffix) {
    ContractRow row = vllm_expert_scale_row(suffix, "fp8_tensorwise", "(1,) or ()");
    row.engine_message = suffix == "weight_scale"
                             ? "RuntimeError: shape '[]' is invalid for input of size ..."
                             : "RuntimeError";
    return row;
}

}  // namespace

EngineContract vllm_modelopt_contract() {
    EngineContract contract =
        vllm_contract("vllm-modelopt", true,
                      "layers/quantization/modelopt.py, layers/fused_moe/routed_experts.py");
    contract.schemes = {quant::Scheme::fp8_channelwise, quant::Scheme::fp8_blockwise};
    contract.static_schemes = {quant::Scheme::fp8_tensorwise};
    contract.algos = {"FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "FP8"};
    contract.channel_scale_rank = 1;
    contract.block_scale_suffix = "weight_scale";
    contract.formats = {ConfigFormat::modelopt};
    contract.skip_rule = SkipRule::wildcards;
    contract.one_modelopt_skip_key = true;
    // ModelOptQuantConfigBase.get_quant_method asks for ParallelLMHead as for linear layers, and
    // every model class gives its head the config.
    contract.quantized_head = true;
    contract.block_rule = BlockRule::exact_tiles;
    contract.layout.expert_format = ExpertFormat::one_value;
    const std::string grid = "[N/128, 1, K/128, 1]";
    append(contract.rows, {vllm_cut_scale_row("weight_scale", "fp8_channelwise", "(N,)", "column"),
                           vllm_whole_scale_row("fp8_channelwise", "(N,)"),
                           vllm_cut_scale_row("weight_scale", "fp8_blockwise", grid, "column"),
                           vllm_cut_scale_row("weight_scale", "fp8_blockwise", grid, "row"),
                           vllm_value_row("weight_scale", "fp8_tensorwise"),
                           vllm_value_row("input_scale", "fp8_tensorwise"),
                           vllm_one_value_of_expert_row("weight_scale"),
                           vllm_one_value_of_expert_row("input_scale")});
    contract.cache_scales.under_projections = true;
    return contract;
}

}  // namespace refit::receiver
