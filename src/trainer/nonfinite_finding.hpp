// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The words for NaN and Inf in a trainer's weights, whoever found them.
#pragma once

#include <cstdint>

#include "core/finding.hpp"
#include "kernels/backend.hpp"
#include "wire/manifest.hpp"

namespace refit::trainer {

/// What was found among the values of one parameter.
struct NonfiniteValues {
    std::int64_t nan_count = 0;
    std::int64_t inf_count = 0;
    std::int64_t row = 0;  ///< of the first one, global
    std::int64_t col = 0;
    std::uint16_t first = 0;  ///< its BF16 bits
};

/// The finding of the policy `reject`. `grid`: of a quantized parameter, else null.
[[nodiscard]] core::Finding nonfinite_finding(const wire::ParameterMeta& meta,
                                              const NonfiniteValues& values,
                                              const kernels::TileGrid* grid);

}  // namespace refit::trainer
