// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Weights made from (seed, step, tensor name, position): any region on any rank, without
// communication.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "weights/weight_source.hpp"

namespace refit::weights {

struct Outliers {
    double share = 0.0;   ///< fraction of the elements that are outliers
    double times = 20.0;  ///< how many times larger than their neighbours they are
};

enum class PlantKind { nan, inf, zero, subnormal, huge };

/// One planted fault: a cell, a row, or `count` positions spread over the tensor by hash of the
/// seed.
struct Plant {
    std::string tensor;  ///< glob over Hugging Face names
    PlantKind kind = PlantKind::nan;
    std::int64_t row = -1;
    std::int64_t col = -1;
    std::int64_t count = 0;
};

/// 1-d tensors (norms, biases) are near 1 (norms) or small (biases); matrices are Gaussian with a
/// standard deviation near 0.02 and a spread from row to row.
[[nodiscard]] std::unique_ptr<WeightSource> make_synthetic_weights(std::uint64_t seed,
                                                                   std::int64_t step,
                                                                   Outliers outliers);

/// Decorator that plants faults into any source. A plant whose tensor glob matches nothing, or
/// whose cell lies outside, is the caller's to refuse: see check_plants.
[[nodiscard]] std::unique_ptr<WeightSource> make_faulty_weights(
    std::unique_ptr<WeightSource> source, std::vector<Plant> plants, std::uint64_t seed);

/// Throws ScenarioError when a plant matches no tensor or points outside of one; names the nearest
/// tensors.
void check_plants(const std::vector<Plant>& plants, const std::vector<model::TensorSpec>& tensors);

/// Shell-style match: '*' any run of characters (dots included), '?' one.
[[nodiscard]] bool glob_match(const std::string& pattern, const std::string& text);

}  // namespace refit::weights
