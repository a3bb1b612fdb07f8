// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// vLLM without quantization, and the rows that all vLLM contracts share.
#include "receiver/engines/engines.hpp"

namespace refit::receiver {
namespace {

using core::DType;

constexpr const char* kNarrow = "start (a) + length (b) exceeds dimension size (c).";

ContractRow weight_row(const std::string& scheme, const std::string& parameter_dtype, DType wire,
                       bool row_parallel) {
    // A surplus of rows (columns of a row-parallel layer) is cut off without a word; the other
    // dimension is compared by a bare assert.
    return {.suffix = "weight",
            .scheme = scheme,
            .parameter_dtype = parameter_dtype,
            .wire_dtypes = {wire},
            .wire_shape = "[N, K]",
            .tp_rule = row_parallel ? "row" : "column | qkv | merged",
            .on_wrong_rank = "raises",
            .on_too_long = "silently_wrong",
            .on_too_short = "raises",
            .on_wrong_dtype = "silently_wrong",
            .on_missing = "keeps_sentinel",
            .engine_message = kNarrow};
}

/// A weight of one expert. The loader narrows the parameter to what came, so that almost nothing
/// raises.
ContractRow expert_row(const std::string& scheme, const std::string& parameter_dtype, DType wire) {
    return {.suffix = "weight",
            .scheme = scheme,
            .parameter_dtype = parameter_dtype,
            .wire_dtypes = {wire},
            .wire_shape = "[I, H] gate and up, [H, I] down",
            .tp_rule = "experts",
            .on_wrong_rank = "raises",
            .on_too_long = "raises",
            .on_too_short = "silently_wrong",
            .on_wrong_dtype = "silently_wrong",
            .on_missing = "keeps_sentinel",
            .engine_message = "RuntimeError"};
}

}  // namespace

ContractRow vllm_expert_scale_row(const std::string& suffix, const std::string& scheme,
                                  const std::string& wire_shape) {
    return {.suffix = suffix,
            .scheme = scheme,
            .parameter_dtype = "float32",
            .wire_dtypes = {DType::f32, DType::bf16, DType::f16},
            .wire_shape = wire_shape,
            .tp_rule = "experts",
            .on_wrong_rank = "raises",
            .on_too_long = "raises",
            .on_too_short = "silently_wrong",
            .on_wrong_dtype = "silently_wrong",
            .on_missing = "keeps_sentinel",
            .engine_message = "RuntimeError"};
}

std::string vllm_version() {
    return "vLLM 017e9f4 (2026-08-17)";
}

std::string vllm_source(const std::string& quantization_files) {
    return "neuralmagic/vllm 017e9f4448b7: vllm/model_executor/parameter.py, layers/linear.py, "
           "layers/vocab_parallel_embedding.py" +
           (quantization_files.empty() ? std::string() : ", " + quantization_files);
}

std::vector<ContractRow> vllm_common_rows() {
    const std::string unequal = "Attempted to load weight (...) into parameter (...)";
    return {
        {.suffix = "norm",
         .scheme = "any",
         .parameter_dtype = "model dtype",
         .wire_dtypes = {DType::bf16, DType::f32},
         .wire_shape = "[H]",
         .tp_rule = "replicated",
         .on_wrong_rank = "raises",
         .on_too_long = "raises",
         .on_too_short = "raises",
         .on_wrong_dtype = "silently_wrong",
         .on_missing = "keeps_sentinel",
         .engine_message = unequal},
        {.suffix = "bias",
         .scheme = "any",
         .parameter_dtype = "model dtype",
         .wire_dtypes = {DType::bf16, DType::f32},
         .wire_shape = "[N]",
         .tp_rule = "qkv",
         .on_wrong_rank = "raises",
         .on_too_long = "silently_wrong",
         .on_too_short = "raises",
         .on_wrong_dtype = "silently_wrong",
         .on_missing = "keeps_sentinel",
         .engine_message = kNarrow},
        {.suffix = "vocabulary",
         .scheme = "any",
         .parameter_dtype = "model dtype",
         .wire_dtypes = {DType::bf16, DType::f32},
         .wire_shape = "[V, H], V exact; stored padded to a multiple of 64 with zeros",
         .tp_rule = "column",
         .on_wrong_rank = "raises",
         .on_too_long = "raises",
         .on_too_short = "raises",
         .on_wrong_dtype = "silently_wrong",
         .on_missing = "keeps_sentinel",
         .engine_message = "AssertionError without text"},
    };
}

std::vector<ContractRow> vllm_code_rows() {
    return {weight_row("any", "float8_e4m3fn", DType::f8_e4m3, false),
            weight_row("any", "float8_e4m3fn", DType::f8_e4m3, true),
            expert_row("any", "float8_e4m3fn", DType::f8_e4m3)};
}

std::vector<ContractRow> vllm_raw_rows() {
    return {weight_row("bf16", "model dtype", DType::bf16, false),
            weight_row("bf16", "model dtype", DType::bf16, true),
            expert_row("bf16", "model dtype", DType::bf16)};
}

EngineContract vllm_bf16_contract() {
    EngineContract contract;
    contract.name = "vllm-bf16";
    contract.version = vllm_version();
    contract.schemes = {quant::Scheme::bf16};
    contract.rows = vllm_raw_rows();
    for (ContractRow& row : vllm_common_rows()) contract.rows.push_back(std::move(row));
    contract.source = vllm_source("");
    return contract;
}

}  // namespace refit::receiver
