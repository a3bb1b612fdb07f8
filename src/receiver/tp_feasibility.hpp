// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// At which tensor-parallel sizes an engine can hold a model.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "model/model_config.hpp"
#include "quant/recipe.hpp"

namespace refit::receiver {

inline constexpr std::array<int, 5> kTpSizes = {1, 2, 4, 8, 16};

/// What the contract says about one size. The texts are those of the first refusal, empty where it
/// passes.
struct TpFeasibility {
    int tp = 1;
    int ep = 1;  ///< 1, or tp: every rank keeps whole experts
    bool passes = false;
    std::string tensor;
    std::string found;     ///< "192 rows of an expert a rank"
    std::string expected;  ///< "a multiple of 128 rows"
    std::string engine_message;
};

/// Applies the contract of `engine` with its default config for `scheme` at every size of kTpSizes
/// with ep 1, then, for a model with experts, at every size above 1 that divides them with ep = tp.
/// Layers that repeat are applied once. Throws UsageError or ScenarioError for an engine that does
/// not exist or has no such scheme or architecture.
[[nodiscard]] std::vector<TpFeasibility> tp_feasibility(const model::ModelConfig& model,
                                                        const std::string& engine,
                                                        quant::Scheme scheme);

}  // namespace refit::receiver
