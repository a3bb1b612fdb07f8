// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// transformers, quant_method "fp8" (fine-grained FP8): block scales and scales of whole tensors, on
// one device. Tensors are compared whole; block sizes follow from the shapes of weight and scale.
#include <utility>

#include "receiver/engines/engines.hpp"

namespace refit::receiver {
namespace {

using core::DType;

ContractRow row_of(const std::string& suffix, const std::string& scheme,
                   const std::string& parameter_dtype, std::vector<DType> wire,
                   const std::string& shape, const std::string& rule, LoaderRule loader,
                   const std::string& on_missing) {
    const bool scale = loader == LoaderRule::grid_of_the_scale || loader == LoaderRule::one_element;
    return make_row(
        suffix, scheme, parameter_dtype, std::move(wire), shape, rule,
        {scale ? "silently_wrong" : "raises", scale ? "silently_wrong" : "raises", on_missing,
         scale ? "RuntimeError: We encountered some issues during automatic conversion of "
                 "the weights. For details look at the `CONVERSION` entries of the above "
                 "report!"
               : "RuntimeError: You set `ignore_mismatched_sizes` to `False`, thus raising "
                 "an error. For details look at the above report!",
         loader});
}

}  // namespace

EngineContract transformers_fp8_contract() {
    EngineContract contract;
    contract.name = "transformers-fp8";
    contract.version = "transformers 5.23.0";
    contract.snapshot = "vasqu/transformers 33d1bc04";
    contract.source =
        contract.snapshot +
        ": src/transformers/integrations/finegrained_fp8.py, "
        "quantizers/quantizer_finegrained_fp8.py, utils/quantization_config.py; run with 5.23.0";
    contract.schemes = {quant::Scheme::fp8_blockwise, quant::Scheme::fp8_tensorwise};
    contract.block_scale_suffix = "weight_scale_inv";
    contract.tensor_scale_suffix = "weight_scale_inv";
    contract.formats = {ConfigFormat::fp8};
    // A latent projection has 576 or 192 rows in the models that have one: no block grid of it can
    // be read back.
    contract.default_skip_list = {"lm_head", "kv_a_proj_with_mqa"};
    contract.tied_head = TiedHead::either;
    contract.tied_head_source = contract.version;
    contract.needs_activation_scheme = false;
    contract.defaults_to_blocks = true;
    contract.skip_rule = SkipRule::prefix_or_suffix;
    contract.block_rule = BlockRule::scale_grid;
    contract.unknown_names = UnknownNames::transformers;
    contract.layout.fuses = false;
    // update_tp_plan() of quantizers/quantizer_finegrained_fp8.py cuts weights and scales of Qwen3
    // apart, by a plan that changed from release to release; other families follow the plans of
    // their own classes. On a CPU the weights are dequantized while they load, so that none of it
    // could be run.
    contract.layout.tensor_parallel = false;
    contract.layout.experts_gate_up = "gate_up_proj";
    contract.layout.experts_down = "down_proj";
    contract.layout.vocabulary_multiple = 1;

    const std::string layers = "column | replicated | row";
    const auto same = LoaderRule::same_size;
    const auto grid = LoaderRule::grid_of_the_scale;
    const std::string grid_shape = "[N/128, K/128]";
    // uint8 scales are read as E8M0 codes.
    std::vector<DType> scales = scale_dtypes();
    scales.push_back(DType::f8_e8m0);
    scales.push_back(DType::u8);
    // A missing weight is initialised anew and named in the load report; a missing scale is not
    // named, and codes are then taken for values; a missing expert leaves a hole in its stack.
    contract.rows = {
        row_of("weight", "bf16", "model dtype", model_dtypes(), "[N, K]", layers, same, "warns"),
        row_of("weight", "bf16", "model dtype", model_dtypes(), "[I, H] gate and up, [H, I] down",
               "experts", same, "raises"),
        row_of("weight", "any", "float8_e4m3fn", {DType::f8_e4m3}, "[N, K]", layers, same, "warns"),
        row_of("weight", "any", "float8_e4m3fn", {DType::f8_e4m3},
               "[I, H] gate and up, [H, I] down", "experts", same, "raises"),
        row_of("weight_scale_inv", "fp8_blockwise", "float32", scales, grid_shape, layers, grid,
               "silently_wrong"),
        row_of("weight_scale_inv", "fp8_blockwise", "float32", scales, grid_shape, "experts", grid,
               "silently_wrong"),
        row_of("weight_scale_inv", "fp8_tensorwise", "float32", scales, "one element", layers,
               LoaderRule::one_element, "silently_wrong"),
        row_of("weight_scale_inv", "fp8_tensorwise", "float32", scales, "one element", "experts",
               LoaderRule::one_element, "silently_wrong"),
        row_of("norm", "any", "model dtype", model_dtypes(), "[H]", "replicated", same, "warns"),
        row_of("bias", "any", "model dtype", model_dtypes(), "[N]", layers, same, "warns"),
        row_of("vocabulary", "any", "model dtype", model_dtypes(), "[V, H]", "column", same,
               "warns"),
    };
    contract.cache_scales.absent = "has no FP8 KV cache: it drops scales of one as unexpected";
    return contract;
}

}  // namespace refit::receiver
