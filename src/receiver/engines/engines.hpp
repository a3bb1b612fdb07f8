// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The contracts of the single engines, gathered by engine_catalog.cpp, and the rows that contracts
// of one engine share.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "receiver/engine_contract.hpp"

namespace refit::receiver {

[[nodiscard]] EngineContract vllm_bf16_contract();
[[nodiscard]] EngineContract vllm_fp8_contract();
[[nodiscard]] EngineContract vllm_compressed_tensors_contract();
[[nodiscard]] EngineContract vllm_modelopt_contract();
[[nodiscard]] EngineContract sglang_bf16_contract();
[[nodiscard]] EngineContract sglang_fp8_contract();
[[nodiscard]] EngineContract sglang_compressed_tensors_contract();
[[nodiscard]] EngineContract transformers_fp8_contract();
[[nodiscard]] EngineContract trtllm_fp8_contract();
[[nodiscard]] EngineContract strict_contract();

/// Types of unquantized tensors and of scales that an engine converts without loss of meaning; the
/// first is the one to send.
[[nodiscard]] std::vector<core::DType> model_dtypes();
[[nodiscard]] std::vector<core::DType> scale_dtypes();
void append(std::vector<ContractRow>& rows, std::vector<ContractRow> more);

/// What an engine does with a tensor that is not as its row says, in the words of `on_*` of
/// ContractRow; of a wrong rank every engine raises.
struct RowBehaviour {
    std::string too_long;
    std::string too_short;
    std::string missing;
    std::string message;
    LoaderRule loader = LoaderRule::same_shape;
    std::string wrong_dtype = "silently_wrong";
};
[[nodiscard]] ContractRow make_row(const std::string& suffix, const std::string& scheme,
                                   const std::string& parameter_dtype,
                                   std::vector<core::DType> wire, const std::string& shape,
                                   const std::string& rule, const RowBehaviour& behaviour);
/// The row of a tensor that an engine compares whole, so that every other shape raises `message`.
[[nodiscard]] ContractRow whole_row(const std::string& suffix, const std::string& scheme,
                                    const std::string& parameter_dtype,
                                    std::vector<core::DType> wire, const std::string& shape,
                                    const std::string& rule, LoaderRule loader,
                                    const std::string& message);

/// A contract with what all contracts of vLLM have: version, layout, raw and code weights, norms,
/// biases, vocabulary, KV-cache scales. `files` names the quantization files behind the rest.
[[nodiscard]] EngineContract vllm_contract(const std::string& name, bool quantized,
                                           const std::string& files);
/// The rows of scales of vLLM by shape: cut like the weight, whole, of one value, of an expert.
[[nodiscard]] ContractRow vllm_cut_scale_row(const std::string& suffix, const std::string& scheme,
                                             const std::string& wire_shape,
                                             const std::string& rule);
[[nodiscard]] ContractRow vllm_whole_scale_row(const std::string& scheme,
                                               const std::string& wire_shape);
[[nodiscard]] ContractRow vllm_value_row(const std::string& suffix, const std::string& scheme);
[[nodiscard]] ContractRow vllm_expert_scale_row(const std::string& suffix,
                                                const std::string& scheme,
                                                const std::string& wire_shape);

/// The same for SGLang.
[[nodiscard]] EngineContract sglang_contract(const std::string& name, bool quantized,
                                             const std::string& files);
/// Rows of a scale that is cut like its weight: one for each kind of layer. `row_layers`: also for
/// row-parallel layers, which channel scales are not cut over.
[[nodiscard]] std::vector<ContractRow> sglang_cut_scale_rows(const std::string& suffix,
                                                             const std::string& scheme,
                                                             const std::string& wire_shape,
                                                             bool row_layers);
[[nodiscard]] ContractRow sglang_whole_scale_row(const std::string& scheme,
                                                 const std::string& wire_shape);
[[nodiscard]] ContractRow sglang_value_row(const std::string& suffix, const std::string& scheme);
[[nodiscard]] ContractRow sglang_expert_scale_row(const std::string& suffix,
                                                  const std::string& scheme,
                                                  const std::string& wire_shape);

/// Index of the row of `contract` for a suffix, scheme and rule; a row for scheme "any" fits each,
/// and the first row of suffix and scheme stands in where none has the rule. Throws ShapeError
/// without one.
[[nodiscard]] std::size_t find_row(const EngineContract& contract, const std::string& suffix,
                                   const std::string& scheme, const std::string& tp_rule);

}  // namespace refit::receiver
