// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "core/error.hpp"
#include "core/nearest_name.hpp"
#include "receiver/engines/engines.hpp"

namespace refit::receiver {

const std::vector<EngineContract>& engine_catalog() {
    static const std::vector<EngineContract> catalog = {
        vllm_bf16_contract(),
        vllm_fp8_contract(),
        vllm_compressed_tensors_contract(),
        vllm_modelopt_contract(),
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

const ContractRow& find_row(const EngineContract& contract, const std::string& suffix,
                            const std::string& scheme, const std::string& tp_rule) {
    const ContractRow* fallback = nullptr;
    for (const ContractRow& row : contract.rows) {
        if (row.suffix != suffix || (row.scheme != scheme && row.scheme != "any")) continue;
        if (row.tp_rule.find(tp_rule) != std::string::npos) return row;
        if (fallback == nullptr) fallback = &row;
    }
    if (fallback != nullptr) return *fallback;
    throw core::ShapeError("the contract of " + contract.name + " has no row for '" + suffix +
                           "' of scheme " + scheme + "; the engine catalogue is incomplete");
}

}  // namespace refit::receiver
