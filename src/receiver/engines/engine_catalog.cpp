// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include <iterator>
#include <utility>

#include "core/error.hpp"
#include "core/nearest_name.hpp"
#include "receiver/engines/engines.hpp"

namespace refit::receiver {
namespace {

/// Whether `rule` is one of the words of "column | qkv | merged".
bool has_rule(const std::string& rules, const std::string& rule) {
    const std::size_t at = (" " + rules + " ").find(" " + rule + " ");
    return at != std::string::npos;
}

}  // namespace

const std::vector<EngineContract>& engine_catalog() {
    static const std::vector<EngineContract> catalog = {
        vllm_bf16_contract(),
        vllm_fp8_contract(),
        vllm_compressed_tensors_contract(),
        vllm_modelopt_contract(),
        sglang_bf16_contract(),
        sglang_fp8_contract(),
        sglang_compressed_tensors_contract(),
        transformers_fp8_contract(),
        trtllm_fp8_contract(),
        strict_contract(),
    };
    return catalog;
}

std::vector<std::string> engine_names() {
    std::vector<std::string> names;
    for (const EngineContract& contract : engine_catalog()) names.push_back(contract.name);
    return names;
}

const EngineContract& find_engine(const std::string& name) {
    for (const EngineContract& contract : engine_catalog()) {
        if (contract.name == name) return contract;
    }
    const std::vector<std::string> names = engine_names();
    throw core::UsageError(core::unknown_name_message("engine", name, names));
}

std::vector<core::DType> model_dtypes() {
    return {core::DType::bf16, core::DType::f32, core::DType::f16};
}

std::vector<core::DType> scale_dtypes() {
    return {core::DType::f32, core::DType::bf16, core::DType::f16};
}

ContractRow make_row(const std::string& suffix, const std::string& scheme,
                     const std::string& parameter_dtype, std::vector<core::DType> wire,
                     const std::string& shape, const std::string& rule,
                     const RowBehaviour& behaviour) {
    return {.suffix = suffix,
            .scheme = scheme,
            .parameter_dtype = parameter_dtype,
            .wire_dtypes = std::move(wire),
            .wire_shape = shape,
            .tp_rule = rule,
            .on_wrong_rank = "raises",
            .on_too_long = behaviour.too_long,
            .on_too_short = behaviour.too_short,
            .on_wrong_dtype = behaviour.wrong_dtype,
            .on_missing = behaviour.missing,
            .engine_message = behaviour.message,
            .loader = behaviour.loader};
}

ContractRow whole_row(const std::string& suffix, const std::string& scheme,
                      const std::string& parameter_dtype, std::vector<core::DType> wire,
                      const std::string& shape, const std::string& rule, LoaderRule loader,
                      const std::string& message) {
    return make_row(suffix, scheme, parameter_dtype, std::move(wire), shape, rule,
                    {"raises", "raises", "keeps_sentinel", message, loader});
}

void append(std::vector<ContractRow>& rows, std::vector<ContractRow> more) {
    rows.insert(rows.end(), std::make_move_iterator(more.begin()),
                std::make_move_iterator(more.end()));
}

std::size_t find_row(const EngineContract& contract, const std::string& suffix,
                     const std::string& scheme, const std::string& tp_rule) {
    std::size_t fallback = contract.rows.size();
    for (std::size_t i = 0; i < contract.rows.size(); ++i) {
        const ContractRow& row = contract.rows[i];
        if (row.suffix != suffix || row.after_load) continue;
        if (row.scheme != scheme && row.scheme != "any") continue;
        if (has_rule(row.tp_rule, tp_rule)) return i;
        if (fallback == contract.rows.size()) fallback = i;
    }
    if (fallback < contract.rows.size()) return fallback;
    throw core::ShapeError("the contract of " + contract.name + " has no row for '" + suffix +
                           "' of scheme " + scheme + "; the engine catalogue is incomplete");
}

}  // namespace refit::receiver
