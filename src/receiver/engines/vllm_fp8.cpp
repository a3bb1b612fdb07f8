// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// vLLM, quant_method "fp8": block scales and per-tensor scales.
#include "receiver/engines/engines.hpp"

namespace refit::receiver {

EngineContract vllm_fp8_contract() {
    EngineContract contract =
        vllm_contract("vllm-fp8", true,
                      "layers/quantization/fp8.py, layers/quantization/utils/fp8_utils.py, "
                      "layers/fused_moe/routed_experts.py");
    contract.schemes = {quant::Scheme::fp8_blockwise, quant::Scheme::fp8_tensorwise};
    contract.static_schemes = {quant::Scheme::fp8_tensorwise};
    contract.block_scale_suffix = "weight_scale_inv";
    contract.groups_inputs_by_rows = true;
    contract.formats = {ConfigFormat::fp8};
    contract.skip_rule = SkipRule::exact;
    contract.block_rule = BlockRule::fused_at_load;
    const std::string grid = "[cd(N,128), cd(K,128)]";
    std::vector<ContractRow> scales = {
        vllm_cut_scale_row("weight_scale_inv", "fp8_blockwise", grid, "column"),
        vllm_cut_scale_row("weight_scale_inv", "fp8_blockwise", grid, "row"),
        vllm_expert_scale_row("weight_scale_inv", "fp8_blockwise", grid)};
    // E8M0 scales are copied by their value; uint8 ones would be taken for numbers.
    for (ContractRow& row : scales) row.wire_dtypes.push_back(core::DType::f8_e8m0);
    append(contract.rows, std::move(scales));
    for (const char* suffix : {"weight_scale", "input_scale"}) {
        append(contract.rows, {vllm_value_row(suffix, "fp8_tensorwise"),
                               vllm_expert_scale_row(suffix, "fp8_tensorwise", "(1,) or ()")});
    }
    return contract;
}

}  // namespace refit::receiver
