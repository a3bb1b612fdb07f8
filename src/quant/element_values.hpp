// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Stored elements as numbers and back, by the definitions of kernels/numerics.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/dtype.hpp"

namespace refit::quant {

/// The F32 of each E4M3FN code: it is read from here faster than it is put together.
[[nodiscard]] const std::array<float, 256>& e4m3_values();

/// `count` elements from any address as F32; exact. Of F32, BF16, F16, F8_E4M3 and F8_E8M0; U8 are
/// exponents of E8M0 too. Throws ShapeError for another type.
void read_values(core::DType dtype, const std::byte* from, std::int64_t count, float* to);

/// `count` values to any address as F32, or as the nearest BF16, ties to even; NaN stays NaN.
/// Throws ShapeError for another type.
void write_values(core::DType dtype, const float* from, std::int64_t count, std::byte* to);

}  // namespace refit::quant
