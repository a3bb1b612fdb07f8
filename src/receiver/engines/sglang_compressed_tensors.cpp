// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// SGLang, quant_method "compressed-tensors", W8A8-FP8: channel, tensor and block strategies.
#include "receiver/engines/engines.hpp"

namespace refit::receiver {

EngineContract sglang_compressed_tensors_contract() {
    EngineContract contract = sglang_contract(
        "sglang-compressed-tensors", true,
        "layers/quantization/compressed_tensors/compressed_tensors.py, "
        "layers/quantization/compressed_tensors/utils.py, "
        "layers/quantization/compressed_tensors/schemes/compressed_tensors_w8a8_fp8.py");
    contract.schemes = {quant::Scheme::fp8_channelwise, quant::Scheme::fp8_tensorwise,
                        quant::Scheme::fp8_blockwise};
    contract.static_schemes = {quant::Scheme::fp8_channelwise, quant::Scheme::fp8_tensorwise};
    contract.channel_scale_rank = 2;
    contract.block_scale_suffix = "weight_scale";
    contract.formats = {ConfigFormat::compressed_tensors};
    contract.refuses_packed_formats = false;
    // CompressedTensorsConfig.weight_block_size and its use in layers/linear.py of SGLang 0.5.23.
    contract.fused_blocks_of_linear = true;
    // compressed_tensors/utils.py, should_ignore_layer and check_equal_or_regex_match, and
    // packed_modules_mapping of models/qwen3_moe.py and deepseek_v2.py, all of SGLang 0.5.23.
    contract.skip_rule = SkipRule::path_endings;
    contract.known_parts = {{model::Architecture::qwen3_moe, {"qkv_proj", "gate_up_proj"}},
                            {model::Architecture::deepseek_v3, {"fused_qkv_a_proj_with_mqa"}}};
    contract.block_rule = BlockRule::every_part;
    const std::string grid = "[cd(N,128), cd(K,128)]";
    append(contract.rows,
           sglang_cut_scale_rows("weight_scale", "fp8_channelwise", "(N, 1)", false));
    append(contract.rows,
           {sglang_whole_scale_row("fp8_channelwise", "(N, 1)"),
            sglang_expert_scale_row("weight_scale", "fp8_channelwise", "(N, 1)"),
            sglang_value_row("weight_scale", "fp8_tensorwise"),
            sglang_expert_scale_row("weight_scale", "fp8_tensorwise", "(1,) or ()")});
    append(contract.rows, sglang_cut_scale_rows("weight_scale", "fp8_blockwise", grid, true));
    append(contract.rows, {sglang_expert_scale_row("weight_scale", "fp8_blockwise", grid),
                           sglang_value_row("input_scale", "any"),
                           sglang_expert_scale_row("input_scale", "any", "(1,) or ()")});
    return contract;
}

}  // namespace refit::receiver
