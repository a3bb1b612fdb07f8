// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// vLLM, quant_method "modelopt": FP8, FP8_PER_CHANNEL_PER_TOKEN and FP8_PB_WO, of dense models.
//
// The layers of algorithm FP8 also hold an input_scale that only a calibration gives: it is a
// contract for checkpoints, and no scenario can ask for it.
#include <vector>

#include "receiver/engines/engines.hpp"

namespace refit::receiver {

EngineContract vllm_modelopt_contract() {
    EngineContract contract =
        vllm_contract("vllm-modelopt", true, "layers/quantization/modelopt.py");
    contract.schemes = {quant::Scheme::fp8_channelwise, quant::Scheme::fp8_blockwise};
    contract.static_schemes = {quant::Scheme::fp8_tensorwise};
    contract.algos = {"FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "FP8"};
    contract.channel_scale_rank = 1;
    contract.block_scale_suffix = "weight_scale";
    contract.formats = {ConfigFormat::modelopt};
    contract.skip_rule = SkipRule::wildcards;
    contract.block_rule = BlockRule::exact_tiles;
    contract.layout.experts = false;
    std::erase_if(contract.rows, [](const ContractRow& row) { return row.tp_rule == "experts"; });
    const std::string grid = "[N/128, 1, K/128, 1]";
    append(contract.rows, {vllm_cut_scale_row("weight_scale", "fp8_channelwise", "(N,)", "column"),
                           vllm_whole_scale_row("fp8_channelwise", "(N,)"),
                           vllm_cut_scale_row("weight_scale", "fp8_blockwise", grid, "column"),
                           vllm_cut_scale_row("weight_scale", "fp8_blockwise", grid, "row"),
                           vllm_value_row("weight_scale", "fp8_tensorwise"),
                           vllm_value_row("input_scale", "fp8_tensorwise")});
    contract.cache_scales.under_projections = true;
    return contract;
}

}  // namespace refit::receiver
