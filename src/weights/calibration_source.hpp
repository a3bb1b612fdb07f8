// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Activations of a calibration: other prompts, and so other values, at every step.
#pragma once

#include <cstdint>
#include <memory>

#include "weights/weight_source.hpp"

namespace refit::weights {

/// Values made from (seed, step, tensor name, position), finite and not all zero, the same on every
/// rank. Unlike synthetic weights, which move by one unit at a time, all values change with the
/// step.
[[nodiscard]] std::unique_ptr<WeightSource> make_calibration_source(std::uint64_t seed,
                                                                    std::int64_t step);

}  // namespace refit::weights
