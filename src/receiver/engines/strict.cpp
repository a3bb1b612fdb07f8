// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The intersection of the engines: what passes here loads in every engine that has the scheme.
// Scales are F32, (rows, 1) or one value or a 2-D grid of blocks; every part of a layer that an
// engine fuses or cuts is whole blocks; each name is known, each tensor comes once and with its
// full shape; and every engine of the catalogue that reads the config is asked in turn, with its
// own reading of skip list and config. F32 is stricter than they are, which widen scales of BF16
// and F16 without loss: loaders that take F32 for granted exist (modular#7142,
// HabanaAI/vllm-fork#2141). Two limits of a single engine are warnings, because no format avoids
// them: SGLang's Llama loader, and block grids that transformers cannot read.
#include <utility>

#include "receiver/engines/engines.hpp"

namespace refit::receiver {
namespace {

using core::DType;

ContractRow row_of(const std::string& suffix, const std::string& scheme,
                   const std::string& parameter_dtype, std::vector<DType> wire,
                   const std::string& shape, const std::string& rule,
                   LoaderRule loader = LoaderRule::same_shape) {
    // What the worst of the engines does.
    return make_row(suffix, scheme, parameter_dtype, std::move(wire), shape, rule,
                    {"silently_wrong", "silently_wrong", "silently_wrong",
                     "AssertionError or RuntimeError, by the engine", loader});
}

}  // namespace

EngineContract strict_contract() {
    EngineContract contract;
    contract.name = "strict";
    contract.version = "vLLM 017e9f4, SGLang 8905cbd, transformers 5.23.0";
    contract.snapshot =
        "neuralmagic/vllm 017e9f4448b7, modal-projects/sglang 8905cbd42f4a, vasqu/transformers "
        "33d1bc04";
    contract.source = contract.snapshot + ": the intersection of their contracts in this catalogue";
    contract.schemes = {quant::Scheme::fp8_blockwise, quant::Scheme::fp8_channelwise,
                        quant::Scheme::fp8_tensorwise};
    contract.static_schemes = {quant::Scheme::fp8_channelwise, quant::Scheme::fp8_tensorwise};
    contract.block_scale_suffix = "weight_scale_inv";
    contract.formats = {ConfigFormat::fp8, ConfigFormat::compressed_tensors};
    contract.skip_rule = SkipRule::exact;
    contract.block_rule = BlockRule::every_part;
    contract.checks_cache_scheme = true;
    contract.intersection = true;
    contract.warns_of_ragged_grids = true;
    contract.defects = {{.architecture = model::Architecture::llama,
                         .scheme = quant::Scheme::fp8_blockwise,
                         .suffix = "weight_scale_inv",
                         .behaviour = "silently_wrong",
                         .cause = "SGLang's loader of Llama models drops block scales that are "
                                  "named weight_scale_inv; vLLM and transformers load them",
                         .remedy = "use channel scales where SGLang is to load it",
                         .fatal = false}};
    const std::string cut = "column | qkv | merged | latent | replicated | row";
    const std::string expert_shape = "[I, H] gate and up, [H, I] down";
    const std::vector<DType> f32 = {DType::f32};
    contract.cache_scales.loader = CacheScaleLoader::both;
    contract.rows = {
        row_of("weight", "bf16", "model dtype", model_dtypes(), "[N, K]", cut),
        row_of("weight", "bf16", "model dtype", model_dtypes(), expert_shape, "experts"),
        row_of("weight", "any", "float8_e4m3fn", {DType::f8_e4m3}, "[N, K]", cut),
        row_of("weight", "any", "float8_e4m3fn", {DType::f8_e4m3}, expert_shape, "experts"),
        row_of("norm", "any", "model dtype", model_dtypes(), "[H]", "replicated"),
        row_of("bias", "any", "model dtype", model_dtypes(), "[N]", cut),
        row_of("vocabulary", "any", "model dtype", model_dtypes(), "[V, H]", "column"),
        row_of("cache_scale", "any", "float32", f32, "(1,) or ()", "replicated",
               LoaderRule::one_value),
    };
    const std::string everywhere = cut + " | experts";
    append(contract.rows,
           {row_of("weight_scale_inv", "fp8_blockwise", "float32", f32, "[cd(N,128), cd(K,128)]",
                   everywhere),
            row_of("weight_scale", "fp8_blockwise", "float32", f32, "[cd(N,128), cd(K,128)]",
                   everywhere),
            row_of("weight_scale", "fp8_channelwise", "float32", f32, "(N, 1)", everywhere),
            row_of("weight_scale", "fp8_tensorwise", "float32", f32, "(1,) or ()", everywhere,
                   LoaderRule::one_value),
            row_of("input_scale", "any", "float32", f32, "(1,) or ()", everywhere,
                   LoaderRule::one_value)});
    return contract;
}

}  // namespace refit::receiver
