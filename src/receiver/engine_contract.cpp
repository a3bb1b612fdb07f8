// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/engine_contract.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "receiver/cache_scales.hpp"
#include "receiver/contract_applier.hpp"
#include "receiver/contract_members.hpp"

namespace refit::receiver {
namespace {

/// Refuses what no placement of experts follows from.
void check_expert_parallel(const EngineContract& contract, const model::ModelConfig& model, int tp,
                           int ep) {
    const std::string found = "receiver.ep is " + std::to_string(ep);
    if (ep != 1 && ep != tp) {
        throw core::ScenarioError(
            found + " and receiver.tp is " + std::to_string(tp) + ": " + contract.name +
            " spreads experts over all TP ranks or none; write ep: 1 or ep: " + std::to_string(tp));
    }
    if (ep == 1) return;
    if (model.experts == 0) {
        throw core::ScenarioError(found + ", but " + model.name +
                                  " has no experts; write ep: 1 or choose a model with experts");
    }
    if (model.experts % ep != 0) {
        throw core::ScenarioError(found + ", but the " + std::to_string(model.experts) +
                                  " experts of " + model.name +
                                  " do not divide by it; choose an ep that divides them");
    }
}

}  // namespace

std::int64_t DestinationParameter::rows() const {
    return shape.size() == 3 ? shape[0] * shape[1] : core::matrix_rows(shape);
}

std::int64_t DestinationParameter::cols() const {
    return shape.size() == 3 ? shape[2] : core::matrix_cols(shape);
}

std::int64_t DestinationParameter::block_row(std::int64_t row) const {
    if (shape.size() != 3) return row / block_rows;
    return row / shape[1] * core::ceil_div(shape[1], block_rows) + row % shape[1] / block_rows;
}

ContractInstance apply_contract(const EngineContract& contract, const model::ModelConfig& model,
                                const QuantizationConfig& config, int tp, int ep,
                                CacheScales cache_scales) {
    if (tp < 1) {
        throw core::ScenarioError("receiver.tp is " + std::to_string(tp) + ", expected at least 1");
    }
    check_expert_parallel(contract, model, tp, ep);
    if (!contract.layout.tensor_parallel && tp > 1) {
        throw core::ScenarioError("receiver.tp is " + std::to_string(tp) + ", but " +
                                  contract.name +
                                  " has no tensor parallelism for these weights: the original "
                                  "shards them by a plan of each model class, with weights and "
                                  "scales cut apart, which was not run and so has no contract; "
                                  "write tp: 1, on the command line --tp 1, or choose another "
                                  "engine");
    }
    const auto& unread = contract.unread_architectures;
    if (std::find(unread.begin(), unread.end(), model.architecture) != unread.end()) {
        throw core::ScenarioError(
            "engine " + contract.name + " has no contract for " +
            model::architecture_name(model.architecture) +
            ": its loader of this family was not read; choose another engine");
    }
    const auto has = [&](const WeightFormat& format) {
        const auto& schemes =
            format.static_activations ? contract.static_schemes : contract.schemes;
        return std::find(schemes.begin(), schemes.end(), format.scheme) != schemes.end();
    };
    if (!has(config.format())) {
        std::string names;
        for (const quant::Scheme scheme : contract.schemes) {
            names += (names.empty() ? "" : ", ") + std::string(quant::scheme_name(scheme));
        }
        throw core::ScenarioError("engine " + contract.name + " has no scheme " +
                                  std::string(quant::scheme_name(config.scheme)) +
                                  (config.static_activations ? " with static activations" : "") +
                                  "; it has: " + names);
    }
    const std::string no_scales =
        cache_scale_refusal(contract, config, model.architecture, cache_scales);
    if (!no_scales.empty()) {
        throw core::ScenarioError("payload.kv_cache_scales: " + no_scales);
    }
    ContractInstance instance = ContractApplier(contract, model, config, tp, ep).run(cache_scales);
    if (contract.intersection) add_members(instance, model, cache_scales);
    return instance;
}

}  // namespace refit::receiver
