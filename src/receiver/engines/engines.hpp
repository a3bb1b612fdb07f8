// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The contracts of the single engines, gathered by engine_catalog.cpp.
#pragma once

#include <string>
#include <vector>

#include "receiver/engine_contract.hpp"

namespace refit::receiver {

[[nodiscard]] EngineContract vllm_bf16_contract();
[[nodiscard]] EngineContract vllm_fp8_contract();
[[nodiscard]] EngineContract vllm_compressed_tensors_contract();
[[nodiscard]] EngineContract vllm_modelopt_contract();

/// The version that every vLLM row was read from and run with.
[[nodiscard]] std::string vllm_version();
/// The repository, commit and files behind the rows that all vLLM contracts share.
[[nodiscard]] std::string vllm_source(const std::string& quantization_files);
/// Rows that do not depend on the scheme: norms, biases, vocabulary tensors.
[[nodiscard]] std::vector<ContractRow> vllm_common_rows();
/// Row of the scale of one expert's projection.
[[nodiscard]] ContractRow vllm_expert_scale_row(const std::string& suffix,
                                                const std::string& scheme,
                                                const std::string& wire_shape);
/// Rows of FP8 weights: column, qkv and merged layers, then row layers, then experts.
[[nodiscard]] std::vector<ContractRow> vllm_code_rows();
/// Rows of weights that stay in BF16, of the same three kinds.
[[nodiscard]] std::vector<ContractRow> vllm_raw_rows();

/// The row of `contract` for a suffix, scheme and rule; a row for scheme "any" fits each. Throws
/// ShapeError without one.
[[nodiscard]] const ContractRow& find_row(const EngineContract& contract, const std::string& suffix,
                                          const std::string& scheme, const std::string& tp_rule);

}  // namespace refit::receiver
