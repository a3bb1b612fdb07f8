// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// vLLM, quant_method "fp8": block scales and per-tensor scales.
#include "receiver/engines/engines.hpp"

namespace refit::receiver {

using core::DType;

EngineContract vllm_fp8_contract() {
    EngineContract contract;
    contract.name = "vllm-fp8";
    contract.version = vllm_version();
    contract.schemes = {quant::Scheme::fp8_blockwise, quant::Scheme::fp8_tensorwise};
    contract.block_scale_suffix = "weight_scale_inv";
    contract.rows = vllm_raw_rows();
    for (ContractRow& row : vllm_code_rows()) contract.rows.push_back(std::move(row));
    contract.rows.push_back(
        {.suffix = "weight_scale_inv",
         .scheme = "fp8_blockwise",
         .parameter_dtype = "float32",
         .wire_dtypes = {DType::f32, DType::bf16, DType::f16},
         .wire_shape = "[cd(N,128), cd(K,128)]",
         .tp_rule = "column | qkv | merged | row",
         .on_wrong_rank = "raises",
         .on_too_long = "silently_wrong",
         .on_too_short = "raises",
         .on_wrong_dtype = "silently_wrong",
         .on_missing = "keeps_sentinel",
         .engine_message = "start (a) + length (b) exceeds dimension size (c)."});
    contract.rows.push_back({.suffix = "weight_scale",
                             .scheme = "fp8_tensorwise",
                             .parameter_dtype = "float32",
                             .wire_dtypes = {DType::f32, DType::bf16, DType::f16},
                             .wire_shape = "(1,) or ()",
                             .tp_rule = "replicated",
                             .on_wrong_rank = "raises",
                             .on_too_long = "raises",
                             .on_too_short = "raises",
                             .on_wrong_dtype = "silently_wrong",
                             .on_missing = "keeps_sentinel",
                             .engine_message = "AssertionError without text"});
    contract.rows.push_back(
        vllm_expert_scale_row("weight_scale_inv", "fp8_blockwise", "[cd(N,128), cd(K,128)]"));
    contract.rows.push_back(vllm_expert_scale_row("weight_scale", "fp8_tensorwise", "(1,) or ()"));
    for (ContractRow& row : vllm_common_rows()) contract.rows.push_back(std::move(row));
    contract.source = vllm_source(
        "layers/quantization/fp8.py, layers/quantization/utils/fp8_utils.py, "
        "layers/fused_moe/routed_experts.py");
    return contract;
}

}  // namespace refit::receiver
