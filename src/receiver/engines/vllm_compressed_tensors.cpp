// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// vLLM, quant_method "compressed-tensors", W8A8-FP8: channel, tensor and block strategies.
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

EngineContract vllm_compressed_tensors_contract() {
    const std::string narrow = "start (a) + length (b) exceeds dimension size (c).";
    const std::string bare = "AssertionError without text";
    EngineContract contract;
    contract.name = "vllm-compressed-tensors";
    contract.version = vllm_version();
    contract.schemes = {quant::Scheme::fp8_channelwise, quant::Scheme::fp8_tensorwise,
                        quant::Scheme::fp8_blockwise};
    contract.channel_scale_rank = 2;
    // The block scale of this format has no "_inv", unlike quant_method fp8.
    contract.block_scale_suffix = "weight_scale";
    contract.rows = vllm_raw_rows();
    for (ContractRow& row : vllm_code_rows()) contract.rows.push_back(std::move(row));
    contract.rows.push_back(
        scale_row("fp8_channelwise", "(N, 1)", "column | qkv | merged", "silently_wrong", narrow));
    contract.rows.push_back(scale_row("fp8_channelwise", "(N, 1)", "row", "raises", bare));
    contract.rows.push_back(
        scale_row("fp8_tensorwise", "(1,) or ()", "replicated", "raises", bare));
    contract.rows.push_back(scale_row("fp8_blockwise", "[cd(N,128), cd(K,128)]",
                                      "column | qkv | merged | row", "silently_wrong", narrow));
    contract.rows.push_back(vllm_expert_scale_row("weight_scale", "fp8_channelwise", "(N, 1)"));
    contract.rows.push_back(vllm_expert_scale_row("weight_scale", "fp8_tensorwise", "(1,) or ()"));
    contract.rows.push_back(
        vllm_expert_scale_row("weight_scale", "fp8_blockwise", "[cd(N,128), cd(K,128)]"));
    for (ContractRow& row : vllm_common_rows()) contract.rows.push_back(std::move(row));
    contract.source = vllm_source(
        "layers/quantization/compressed_tensors/compressed_tensors.py, "
        "layers/quantization/compressed_tensors/schemes/compressed_tensors_w8a8_fp8.py, "
        "layers/quantization/compressed_tensors/compressed_tensors_moe, "
        "layers/fused_moe/routed_experts.py");
    return contract;
}

}  // namespace refit::receiver
