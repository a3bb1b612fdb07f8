// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/tp_feasibility.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "receiver/engine_contract.hpp"
#include "receiver/quantization_config.hpp"

namespace refit::receiver {
namespace {

/// The least number of first layers that has a layer of each kind.
model::ModelConfig without_repetition(model::ModelConfig model) {
    bool dense = false;
    bool sparse = false;
    std::int64_t count = 0;
    for (std::int64_t layer = 0; layer < model.layers; ++layer) {
        bool& kind = model::is_moe_layer(model, layer) ? sparse : dense;
        if (!kind) count = layer + 1;
        kind = true;
    }
    model.layers = count;
    // Layers for multi-token prediction are decoder layers with tensors that no rank cuts by
    // blocks.
    model.mtp_layers = 0;
    return model;
}

TpFeasibility at(const model::ModelConfig& model, const EngineContract& contract,
                 const QuantizationConfig& config, int tp, int ep) {
    const ContractInstance instance = apply_contract(contract, model, config, tp, ep);
    if (!instance.not_for_scenarios.empty()) {
        throw core::ScenarioError(instance.not_for_scenarios);
    }
    TpFeasibility result;
    result.tp = tp;
    result.ep = ep;
    result.passes = !core::has_error(instance.refusals);
    if (!result.passes) {
        const core::Finding& first = *std::find_if(
            instance.refusals.begin(), instance.refusals.end(),
            [](const core::Finding& finding) { return finding.severity == core::Severity::error; });
        result.tensor = first.tensor;
        result.found = first.measured;
        result.expected = first.limit;
        result.engine_message = first.engine_message;
    }
    return result;
}

}  // namespace

std::vector<TpFeasibility> tp_feasibility(const model::ModelConfig& model,
                                          const std::string& engine, quant::Scheme scheme) {
    const EngineContract& contract = find_engine(engine);
    const QuantizationConfig config =
        parse_quantization_config(engine, default_quantization_config(engine, scheme, ""));
    const model::ModelConfig sample = without_repetition(model);
    std::vector<TpFeasibility> results;
    for (const int tp : kTpSizes) results.push_back(at(sample, contract, config, tp, 1));
    if (model.experts == 0) return results;
    for (const int tp : kTpSizes) {
        if (tp > 1 && model.experts % tp == 0) {
            results.push_back(at(sample, contract, config, tp, tp));
        }
    }
    return results;
}

}  // namespace refit::receiver
