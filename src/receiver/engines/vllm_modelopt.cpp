// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// vLLM, quant_method "modelopt": FP8_PER_CHANNEL_PER_TOKEN and FP8_PB_WO.
//
// Algorithm FP8 is not offered: its layers also hold an input_scale that only a calibration gives,
// and no trainer of a refit has one to send.
#include "receiver/engines/engines.hpp"

namespace refit::receiver {
namespace {

using core::DType;

ContractRow scale_row(const std::string& scheme, const std::string& shape, const std::string& rule,
                      const std::string& too_long, const std::string& message) {
    return {.suffix = "weight_scale",
            .scheme = scheme,
            .parameter_dtype = "float32",
            .wire_dtypes = {DType::f32, DType::bf16, DType::f16},
            .wire_shape = shape,
            .tp_rule = rule,
            .on_wrong_rank = "raises",
            .on_too_long = too_long,
            .on_too_short = "raises",
            .on_wrong_dtype = "silently_wrong",
            .on_missing = "keeps_sentinel",
            .engine_message = message};
}

}  // namespace

EngineContract vllm_modelopt_contract() {
    const std::string narrow = "start (a) + length (b) exceeds dimension size (c).";
    EngineContract contract;
    contract.name = "vllm-modelopt";
    contract.version = vllm_version();
    contract.schemes = {quant::Scheme::fp8_channelwise, quant::Scheme::fp8_blockwise};
    contract.algos = {"FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO"};
    contract.channel_scale_rank = 1;
    contract.block_scale_suffix = "weight_scale";
    contract.rows = vllm_raw_rows();
    for (ContractRow& row : vllm_code_rows()) contract.rows.push_back(std::move(row));
    contract.rows.push_back(
        scale_row("fp8_channelwise", "(N,)", "column | qkv | merged", "silently_wrong", narrow));
    contract.rows.push_back(
        scale_row("fp8_channelwise", "(N,)", "row", "raises", "AssertionError without text"));
    contract.rows.push_back(scale_row("fp8_blockwise", "[N/128, 1, K/128, 1]",
                                      "column | qkv | merged | row", "silently_wrong", narrow));
    for (ContractRow& row : vllm_common_rows()) contract.rows.push_back(std::move(row));
    contract.source = vllm_source("layers/quantization/modelopt.py");
    return contract;
}

}  // namespace refit::receiver
