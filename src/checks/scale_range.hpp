// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Scales that are numbers, but too large or too small for the codes under them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "checks/scale_layout.hpp"
#include "core/dtype.hpp"
#include "core/shape.hpp"

namespace refit::checks {

/// Smallest normal F32 and BF16 number.
inline constexpr double kSmallestNormal = 0x1p-126;
/// From here on a number is Inf once it is rounded to BF16: half a step above the largest one.
inline constexpr double kBf16Overflow = 0x1.ffp127;

/// True for a scale that can be too large or too small, whatever the codes are: 448 times it is
/// beyond BF16, or it is subnormal. The smallest E8M0 exponent is subnormal in F32 but exact in its
/// own format, so that types of E8M0 bytes are never too small. False for NaN, Inf, zero and
/// negative scales, which are wrong for other reasons.
[[nodiscard]] bool is_extreme_scale(core::DType dtype, double scale);

/// Of the extreme scales of one matrix.
struct ScaleRange {
    std::int64_t overflowing = 0;         ///< a code times the scale is Inf in BF16
    std::int64_t subnormal = 0;           ///< subnormal, over codes that are not all zero
    std::int64_t first_overflowing = -1;  ///< number of the scale
    std::int64_t first_subnormal = -1;    ///< number of the scale
    double largest_code = 0.0;            ///< under first_overflowing
};

/// `codes` : [rows, cols] F8_E4M3 of shape `weight`; `scales` : one a tile of `layout`. NaN codes
/// count for nothing.
[[nodiscard]] ScaleRange check_scale_range(std::span<const std::byte> codes,
                                           const core::Shape& weight, core::DType scale_dtype,
                                           std::span<const double> scales,
                                           const ScaleLayout& layout);

}  // namespace refit::checks
