// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/scale_range.hpp"

#include <algorithm>
#include <cmath>

#include "checks/decode.hpp"

namespace refit::checks {
namespace {

/// Largest magnitude of the codes in tile `number`, NaN left out.
double largest_code(std::span<const std::byte> codes, const core::Shape& weight,
                    const ScaleLayout& layout, std::int64_t number) {
    const std::int64_t top = number / layout.grid_cols * layout.tile_rows;
    const std::int64_t left = number % layout.grid_cols * layout.tile_cols;
    const std::int64_t row_end = std::min(weight[0], top + layout.tile_rows);
    const std::int64_t col_end = std::min(weight[1], left + layout.tile_cols);
    unsigned largest = 0;
    for (std::int64_t row = top; row < row_end; ++row) {
        for (std::int64_t col = left; col < col_end; ++col) {
            const auto code = codes[static_cast<std::size_t>(row * weight[1] + col)];
            const unsigned magnitude = std::to_integer<unsigned>(code) & 0x7FU;
            if (magnitude != 0x7FU) largest = std::max(largest, magnitude);
        }
    }
    return decode_e4m3(static_cast<std::uint8_t>(largest));
}

}  // namespace

bool is_extreme_scale(core::DType dtype, double scale) {
    if (!std::isfinite(scale) || scale <= 0.0) return false;
    const bool exponents = dtype == core::DType::f8_e8m0 || dtype == core::DType::u8;
    return scale * kE4m3Max >= kBf16Overflow || (!exponents && scale < kSmallestNormal);
}

ScaleRange check_scale_range(std::span<const std::byte> codes, const core::Shape& weight,
                             core::DType scale_dtype, std::span<const double> scales,
                             const ScaleLayout& layout) {
    ScaleRange range;
    for (std::size_t i = 0; i < scales.size(); ++i) {
        if (!is_extreme_scale(scale_dtype, scales[i])) continue;
        const auto number = static_cast<std::int64_t>(i);
        const double code = largest_code(codes, weight, layout, number);
        if (scales[i] < kSmallestNormal) {
            if (code == 0.0) continue;
            if (range.subnormal++ == 0) range.first_subnormal = number;
        } else if (code * scales[i] >= kBf16Overflow) {
            if (range.overflowing++ == 0) {
                range.first_overflowing = number;
                range.largest_code = code;
            }
        }
    }
    return range;
}

}  // namespace refit::checks
