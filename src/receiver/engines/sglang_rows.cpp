// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The rows that the contracts of SGLang share. Read at the commit below; what its loaders do was
// seen by running them on a CPU.
#include <utility>

#include "receiver/engines/engines.hpp"

namespace refit::receiver {
namespace {

using core::DType;

constexpr const char* kBare = "AssertionError without text";
/// Of the copy that compares before it writes.
constexpr const char* kChecked =
    "AssertionError: param.shape=torch.Size({wanted}) ... loaded_weight.shape=torch.Size({came})";

struct Kind {
    const char* rule;
    LoaderRule loader;
    const char* too_short;
    const char* wrong_dtype;
    const char* message;
};

/// How a layer's tensors are loaded, by the layer's class. Only the layers that are not fused
/// compare dtypes; merged and row-parallel ones fill a tensor that ends early with zeros.
constexpr Kind kKinds[] = {
    {"column | replicated", LoaderRule::checked_narrow, "raises", "raises", kChecked},
    {"merged", LoaderRule::narrow_or_pad, "silently_wrong", "silently_wrong", kBare},
    {"qkv", LoaderRule::narrow, "raises", "silently_wrong", kBare},
    {"latent", LoaderRule::concatenated, "raises", "raises", kChecked},
    {"row", LoaderRule::narrow_or_pad, "silently_wrong", "silently_wrong", kBare},
};

ContractRow row_of_kind(const Kind& kind, const std::string& suffix, const std::string& scheme,
                        const std::string& parameter_dtype, std::vector<DType> wire,
                        const std::string& shape) {
    return make_row(
        suffix, scheme, parameter_dtype, std::move(wire), shape, kind.rule,
        {kind.loader == LoaderRule::concatenated ? "raises" : "silently_wrong", kind.too_short,
         "keeps_sentinel", kind.message, kind.loader, kind.wrong_dtype});
}

ContractRow expert_row(const std::string& suffix, const std::string& scheme,
                       const std::string& parameter_dtype, std::vector<DType> wire,
                       const std::string& shape) {
    return make_row(
        suffix, scheme, parameter_dtype, std::move(wire), shape, "experts",
        {"silently_wrong", "raises", "keeps_sentinel", "RuntimeError", LoaderRule::expert_narrow});
}

std::vector<ContractRow> weight_rows(const std::string& scheme, const std::string& parameter_dtype,
                                     const std::vector<DType>& wire) {
    std::vector<ContractRow> rows;
    for (const Kind& kind : kKinds) {
        rows.push_back(row_of_kind(kind, "weight", scheme, parameter_dtype, wire, "[N, K]"));
    }
    rows.push_back(
        expert_row("weight", scheme, parameter_dtype, wire, "[I, H] gate and up, [H, I] down"));
    return rows;
}

}  // namespace

EngineContract sglang_contract(const std::string& name, bool quantized, const std::string& files) {
    EngineContract contract;
    contract.name = name;
    contract.version = "SGLang 8905cbd (2026-07-20)";
    contract.snapshot = "modal-projects/sglang 8905cbd42f4a";
    contract.source = contract.snapshot +
                      ": python/sglang/srt/layers/parameter.py, layers/linear.py, "
                      "layers/vocab_parallel_embedding.py, layers/moe/fused_moe_triton/layer.py" +
                      (files.empty() ? std::string() : ", " + files);
    contract.unknown_names = UnknownNames::sglang;
    contract.cache_scales.absent = "makes no scales of the KV cache without a quantization_config";
    if (quantized) contract.cache_scales.loader = CacheScaleLoader::sglang;
    contract.tied_head = TiedHead::embedding;
    for (const char* key : {"moe_layer_freq", "topk_method"}) {
        contract.needed_keys.push_back(
            {model::Architecture::deepseek_v3, key,
             std::string("AttributeError: 'DeepseekV3Config' object has no attribute '") + key +
                 "'"});
    }
    contract.own_heads = {model::Architecture::qwen3_moe};
    contract.tied_head_source = "SGLang 0.5.23";
    contract.layout.ceil_then_divide = true;
    contract.layout.latent_module = "fused_qkv_a_proj_with_mqa";
    contract.layout.experts_gate_up = "w13_weight";
    contract.layout.experts_down = "w2_weight";
    contract.rows = weight_rows("bf16", "model dtype", model_dtypes());
    if (quantized) append(contract.rows, weight_rows("any", "float8_e4m3fn", {DType::f8_e4m3}));
    append(contract.rows,
           {whole_row("norm", "any", "model dtype", model_dtypes(), "[H]", "replicated",
                      LoaderRule::same_size,
                      "AssertionError: Attempted to load weight (torch.Size({came})) into "
                      "parameter (torch.Size({wanted}))"),
            row_of_kind(kKinds[2], "bias", "any", "model dtype", model_dtypes(), "[N]"),
            whole_row("vocabulary", "any", "model dtype", model_dtypes(),
                      "[V, H], V exact; stored padded to a multiple of 64 with zeros", "column",
                      LoaderRule::whole_rows,
                      "AssertionError: self.org_vocab_size={rows_wanted} "
                      "self.use_presharded_weights=False loaded_weight.shape[output_dim]={rows}"),
            whole_row("cache_scale", "any", "float32", scale_dtypes(), "one element", "replicated",
                      LoaderRule::one_element,
                      "AssertionError: Attempted to load weight (torch.Size({came})) into "
                      "parameter (torch.Size([]))")});
    return contract;
}

std::vector<ContractRow> sglang_cut_scale_rows(const std::string& suffix, const std::string& scheme,
                                               const std::string& wire_shape, bool row_layers) {
    std::vector<ContractRow> rows;
    for (const Kind& kind : kKinds) {
        if (!row_layers && std::string(kind.rule) == "row") continue;
        rows.push_back(row_of_kind(kind, suffix, scheme, "float32", scale_dtypes(), wire_shape));
        // An E8M0 scale is copied by its value where dtypes are not compared.
        if (std::string(kind.wrong_dtype) == "silently_wrong") {
            rows.back().wire_dtypes.push_back(DType::f8_e8m0);
        }
    }
    return rows;
}

ContractRow sglang_whole_scale_row(const std::string& scheme, const std::string& wire_shape) {
    return whole_row("weight_scale", scheme, "float32", scale_dtypes(), wire_shape, "row",
                     LoaderRule::same_shape, kBare);
}

ContractRow sglang_value_row(const std::string& suffix, const std::string& scheme) {
    return whole_row(suffix, scheme, "float32", scale_dtypes(), "(1,) or ()",
                     "column | qkv | merged | latent | replicated | row", LoaderRule::one_value,
                     kBare);
}

ContractRow sglang_expert_scale_row(const std::string& suffix, const std::string& scheme,
                                    const std::string& wire_shape) {
    return expert_row(suffix, scheme, "float32", scale_dtypes(), wire_shape);
}

}  // namespace refit::receiver
