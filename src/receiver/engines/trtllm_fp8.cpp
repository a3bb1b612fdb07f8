// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// TensorRT-LLM's PyTorch backend, row-wise FP8: one scale a row. Its parameter has one dimension;
// scales of (N, 1) are flattened since pull request 15415 and were refused before. No class for
// experts takes row-wise scales (fused_moe_cutlass.py, _get_quant_method at 7b437aaa: FP8 of one
// static scale a tensor, FP8 blocks, FP4, INT4 and INT8, else ValueError), so that they stay in
// BF16; their stack holds the rows of up before those of gate (fused_moe/quantization.py at
// 002366a4, w3_w1_weight).
#include <utility>

#include "receiver/engines/engines.hpp"

namespace refit::receiver {
namespace {

using core::DType;

ContractRow row_of(const std::string& suffix, const std::string& scheme,
                   const std::string& parameter_dtype, std::vector<DType> wire,
                   const std::string& shape, const std::string& rule, LoaderRule loader) {
    return make_row(suffix, scheme, parameter_dtype, std::move(wire), shape, rule,
                    {"raises", "raises", "raises", "RuntimeError", loader});
}

}  // namespace

EngineContract trtllm_fp8_contract() {
    EngineContract contract;
    contract.name = "trtllm-fp8";
    contract.version = "TensorRT-LLM with pull request 15415";
    contract.snapshot = "NVIDIA/TensorRT-LLM#15415";
    contract.source = contract.snapshot +
                      ": tensorrt_llm/_torch/modules/linear.py, FP8 row-wise linear method (scale "
                      "shape as stated there; the other behaviours follow from copying whole "
                      "tensors and were not run); experts: "
                      "modules/fused_moe/fused_moe_cutlass.py at 7b437aaa, "
                      "modules/fused_moe/quantization.py at 002366a4 (read, not run)";
    contract.schemes = {quant::Scheme::fp8_channelwise};
    contract.channel_scale_rank = 1;
    contract.block_scale_suffix = "weight_scale";
    contract.formats = {ConfigFormat::modelopt, ConfigFormat::compressed_tensors};
    contract.skip_rule = SkipRule::wildcards;
    contract.one_format_for_all = true;
    contract.layout.expert_format = ExpertFormat::raw_only;
    contract.layout.up_before_gate = true;
    contract.layout.experts_gate_up = "w3_w1_weight";
    contract.layout.experts_down = "w2_weight";
    contract.unread_architectures = {model::Architecture::deepseek_v3};
    const std::string cut = "column | qkv | merged | latent | replicated | row";
    contract.rows = {
        row_of("weight", "bf16", "model dtype", model_dtypes(), "[N, K]", cut,
               LoaderRule::same_shape),
        row_of("weight", "bf16", "model dtype", model_dtypes(), "[I, H] gate and up, [H, I] down",
               "experts", LoaderRule::same_shape),
        row_of("weight", "any", "float8_e4m3fn", {DType::f8_e4m3}, "[N, K]", cut,
               LoaderRule::same_shape),
        row_of("weight_scale", "fp8_channelwise", "float32", scale_dtypes(), "(N,) or (N, 1)", cut,
               LoaderRule::flattened),
        row_of("norm", "any", "model dtype", model_dtypes(), "[H]", "replicated",
               LoaderRule::same_shape),
        row_of("bias", "any", "model dtype", model_dtypes(), "[N]", cut, LoaderRule::same_shape),
        row_of("vocabulary", "any", "model dtype", model_dtypes(), "[V, H]", "column",
               LoaderRule::same_shape),
        row_of("cache_scale", "any", "float32", scale_dtypes(), "(1,) or ()", "replicated",
               LoaderRule::one_value),
    };
    contract.cache_scales.absent =
        "has no scales of the KV cache in its row-wise FP8 linear method";
    return contract;
}

}  // namespace refit::receiver
