// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Which scheme, recipe, algorithm and quantization_config a case means, where any of them may be
// left out.
#pragma once

#include <optional>
#include <string>

#include "harness/scenario.hpp"
#include "harness/scenario_tree.hpp"
#include "model/model_config.hpp"

namespace refit::harness {

/// How the keys that decide the format were written.
struct WantedFormat {
    const Node* receiver = nullptr;
    const Node* payload = nullptr;
    const Node* algo = nullptr;
    std::optional<std::string> config;  ///< JSON text of the scenario's quantization_config
    std::string config_where;
    bool without_config = false;  ///< `quantization_config: none`, which overrides the model's own
};

/// Settles scheme, recipe, algo and quantization_config of `result`, whose engine, algo and recipe
/// hold what was written (empty: nothing). `scheme: auto` follows from, in this order,
/// quantization_config (the scenario's, else the model's), algo, recipe, the engine's first scheme.
/// Throws ScenarioError where two of them contradict each other or the engine lacks the scheme;
/// says what would fit.
void resolve_format(const WantedFormat& wanted, const MapReader& payload,
                    const model::ModelConfig& model, Case& result);

}  // namespace refit::harness
