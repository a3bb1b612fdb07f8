// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// vLLM, quant_method "compressed-tensors", W8A8-FP8: channel, tensor and block strategies.
#include "receiver/engines/engines.hpp"

namespace refit::receiver {

EngineContract vllm_compressed_tensors_contract() {
    EngineContract contract = vllm_contract(
        "vllm-compressed-tensors", true,
        "layers/quantization/compressed_tensors/compressed_tensors.py, "
        "layers/quantization/compressed_tensors/schemes/compressed_tensors_w8a8_fp8.py, "
        "layers/quantization/compressed_tensors/compressed_tensors_moe, "
        "layers/fused_moe/routed_experts.py");
    contract.schemes = {quant::Scheme::fp8_channelwise, quant::Scheme::fp8_tensorwise,
                        quant::Scheme::fp8_blockwise};
    contract.static_schemes = {quant::Scheme::fp8_channelwise, quant::Scheme::fp8_tensorwise};
    contract.channel_scale_rank = 2;
    // The block scale of this format has no "_inv", unlike quant_method fp8.
    contract.block_scale_suffix = "weight_scale";
    contract.groups_inputs_by_rows = true;
    contract.checks_cache_scheme = true;
    contract.formats = {ConfigFormat::compressed_tensors};
    contract.skip_rule = SkipRule::patterns;
    contract.block_rule = BlockRule::at_construction;
    const std::string grid = "[cd(N,128), cd(K,128)]";
    append(contract.rows,
           {vllm_cut_scale_row("weight_scale", "fp8_channelwise", "(N, 1)", "column"),
            vllm_whole_scale_row("fp8_channelwise", "(N, 1)"),
            vllm_expert_scale_row("weight_scale", "fp8_channelwise", "(N, 1)"),
            vllm_value_row("weight_scale", "fp8_tensorwise"),
            vllm_expert_scale_row("weight_scale", "fp8_tensorwise", "(1,) or ()"),
            vllm_cut_scale_row("weight_scale", "fp8_blockwise", grid, "column"),
            vllm_cut_scale_row("weight_scale", "fp8_blockwise", grid, "row"),
            vllm_expert_scale_row("weight_scale", "fp8_blockwise", grid),
            vllm_value_row("input_scale", "any"),
            vllm_expert_scale_row("input_scale", "any", "(1,) or ()")});
    // The parameters of this format hold one element in one dimension, begin at 1.0, and are copied
    // by the loader of all plain parameters.
    contract.cache_scales.starts_at_one = true;
    contract.cache_scales.shape = {1};
    for (ContractRow& row : contract.rows) {
        if (row.suffix != "cache_scale") continue;
        row.engine_message =
            "AssertionError: Attempted to load weight (torch.Size({came})) into parameter "
            "(torch.Size([1]))";
    }
    return contract;
}

}  // namespace refit::receiver
