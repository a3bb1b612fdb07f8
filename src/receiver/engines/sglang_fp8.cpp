// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// SGLang, quant_method "fp8": block scales and per-tensor scales.
#include "receiver/engines/engines.hpp"

namespace refit::receiver {

EngineContract sglang_fp8_contract() {
    EngineContract contract = sglang_contract(
        "sglang-fp8", true, "layers/quantization/fp8.py, layers/quantization/fp8_utils.py");
    contract.schemes = {quant::Scheme::fp8_blockwise, quant::Scheme::fp8_tensorwise};
    contract.static_schemes = {quant::Scheme::fp8_tensorwise};
    contract.block_scale_suffix = "weight_scale_inv";
    contract.formats = {ConfigFormat::fp8};
    contract.skip_rule = SkipRule::dotted;
    contract.block_rule = BlockRule::every_part;
    contract.defects = {{.architecture = model::Architecture::llama,
                         .scheme = quant::Scheme::fp8_blockwise,
                         .suffix = "weight_scale_inv",
                         .behaviour = "silently_wrong",
                         .cause = "the engine's loader of Llama models renames weight_scale_inv to "
                                  "weight_scale, so that every block scale stays at its initial "
                                  "-3.4e38 without an error",
                         .remedy = "use channel scales for a Llama model, or another engine"}};
    const std::string grid = "[cd(N,128), cd(K,128)]";
    append(contract.rows, sglang_cut_scale_rows("weight_scale_inv", "fp8_blockwise", grid, true));
    append(contract.rows,
           {sglang_expert_scale_row("weight_scale_inv", "fp8_blockwise", grid),
            // On Blackwell the scales are packed after loading, four exponents in an int32, and
            // the loaders then cut by single rows: a sender of updates has to pack them itself.
            {.suffix = "weight_scale_inv",
             .scheme = "fp8_blockwise",
             .parameter_dtype = "int32",
             .wire_dtypes = {core::DType::i32},
             .wire_shape = "[N, cd(K/128, 4)], UE8M0 packed, after loading on Blackwell",
             .tp_rule = "column | qkv | merged | row",
             .on_wrong_rank = "raises",
             .on_too_long = "silently_wrong",
             .on_too_short = "raises",
             .on_wrong_dtype = "silently_wrong",
             .on_missing = "keeps_sentinel",
             .engine_message = "AssertionError without text",
             .loader = LoaderRule::narrow,
             .after_load = true}});
    for (const char* suffix : {"weight_scale", "input_scale"}) {
        append(contract.rows, {sglang_value_row(suffix, "fp8_tensorwise"),
                               sglang_expert_scale_row(suffix, "fp8_tensorwise", "(1,) or ()")});
    }
    return contract;
}

}  // namespace refit::receiver
