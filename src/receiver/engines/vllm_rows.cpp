// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The rows that the contracts of vLLM share. Read at the commit below; what its loaders do was seen
// by running them on a CPU.
#include <utility>

#include "receiver/engines/engines.hpp"

namespace refit::receiver {
namespace {

using core::DType;

constexpr const char* kBare = "AssertionError without text";
constexpr const char* kCut = "column | qkv | merged | latent | replicated";

/// A surplus of rows (columns of a row-parallel layer) is cut off without a word; the other
/// dimension is compared by a bare assert.
ContractRow cut_row(const std::string& suffix, const std::string& scheme,
                    const std::string& parameter_dtype, std::vector<DType> wire,
                    const std::string& shape, const std::string& rule) {
    return make_row(suffix, scheme, parameter_dtype, std::move(wire), shape, rule,
                    {"silently_wrong", "raises", "keeps_sentinel", kBare, LoaderRule::narrow});
}

/// A tensor of one expert. The loader narrows the parameter to what came, so that almost nothing
/// raises.
ContractRow expert_row(const std::string& suffix, const std::string& scheme,
                       const std::string& parameter_dtype, std::vector<DType> wire,
                       const std::string& shape) {
    return make_row(
        suffix, scheme, parameter_dtype, std::move(wire), shape, "experts",
        {"raises", "silently_wrong", "keeps_sentinel", "RuntimeError", LoaderRule::expert_corner});
}

std::vector<ContractRow> common_rows() {
    return {
        whole_row("norm", "any", "model dtype", model_dtypes(), "[H]", "replicated",
                  LoaderRule::same_size,
                  "AssertionError: Attempted to load weight (torch.Size({came})) into parameter "
                  "(torch.Size({wanted}))"),
        cut_row("bias", "any", "model dtype", model_dtypes(), "[N]", kCut),
        whole_row("vocabulary", "any", "model dtype", model_dtypes(),
                  "[V, H], V exact; stored padded to a multiple of 64 with zeros", "column",
                  LoaderRule::whole_rows, kBare),
        whole_row("cache_scale", "any", "float32", scale_dtypes(), "one element", "replicated",
                  LoaderRule::one_element,
                  "ValueError: KV-cache scale expects a scalar weight, got shape {came}"),
    };
}

}  // namespace

EngineContract vllm_contract(const std::string& name, bool quantized, const std::string& files) {
    EngineContract contract;
    contract.name = name;
    contract.version = "vLLM 017e9f4 (2026-08-17)";
    contract.snapshot = "neuralmagic/vllm 017e9f4448b7";
    contract.source = contract.snapshot +
                      ": vllm/model_executor/parameter.py, layers/linear.py, "
                      "layers/vocab_parallel_embedding.py" +
                      (files.empty() ? std::string() : ", " + files);
    contract.unknown_names = UnknownNames::vllm;
    contract.normalizes_methods = true;
    contract.cache_scales.absent = "makes no scales of the KV cache without a quantization_config";
    if (quantized) contract.cache_scales.loader = CacheScaleLoader::vllm;
    contract.tied_head = TiedHead::stored;
    contract.router_bias_by_method = true;
    contract.own_heads = {model::Architecture::deepseek_v3};
    contract.tied_head_source = "vLLM 0.33.0";
    const std::string expert_shape = "[I, H] gate and up, [H, I] down";
    contract.rows = {cut_row("weight", "bf16", "model dtype", model_dtypes(), "[N, K]", kCut),
                     cut_row("weight", "bf16", "model dtype", model_dtypes(), "[N, K]", "row"),
                     expert_row("weight", "bf16", "model dtype", model_dtypes(), expert_shape)};
    if (quantized) {
        contract.quantized_routers = {model::Architecture::qwen3_moe};
        append(contract.rows,
               {cut_row("weight", "any", "float8_e4m3fn", {DType::f8_e4m3}, "[N, K]", kCut),
                cut_row("weight", "any", "float8_e4m3fn", {DType::f8_e4m3}, "[N, K]", "row"),
                expert_row("weight", "any", "float8_e4m3fn", {DType::f8_e4m3}, expert_shape)});
    }
    append(contract.rows, common_rows());
    return contract;
}

ContractRow vllm_cut_scale_row(const std::string& suffix, const std::string& scheme,
                               const std::string& wire_shape, const std::string& rule) {
    return cut_row(suffix, scheme, "float32", scale_dtypes(), wire_shape,
                   rule == "row" ? rule : std::string(kCut));
}

ContractRow vllm_whole_scale_row(const std::string& scheme, const std::string& wire_shape) {
    return whole_row("weight_scale", scheme, "float32", scale_dtypes(), wire_shape, "row",
                     LoaderRule::same_shape, kBare);
}

ContractRow vllm_value_row(const std::string& suffix, const std::string& scheme) {
    return whole_row(suffix, scheme, "float32", scale_dtypes(), "(1,) or ()",
                     "column | qkv | merged | latent | replicated | row", LoaderRule::one_value,
                     kBare);
}

ContractRow vllm_expert_scale_row(const std::string& suffix, const std::string& scheme,
                                  const std::string& wire_shape) {
    return expert_row(suffix, scheme, "float32", scale_dtypes(), wire_shape);
}

}  // namespace refit::receiver
