// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// F16: IEEE-754 binary16, 5 exponent bits (bias 15), 10 mantissa bits.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/numerics/host_device.hpp"

namespace refit::numerics {

/// Value of an F16 pattern; exact. Every NaN gives the quiet NaN 0x7fc00000.
[[nodiscard]] REFIT_HD constexpr float f16_to_f32(std::uint16_t bits) {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16;
    const std::uint32_t exponent = (bits >> 10) & 0x1fU;
    const std::uint32_t mantissa = bits & 0x3ffU;
    if (exponent == 0x1fU) {
        return std::bit_cast<float>(mantissa != 0U ? 0x7fc00000U : sign | 0x7f800000U);
    }
    if (exponent == 0U) {  // subnormal: mantissa * 2^-24
        const float value = static_cast<float>(mantissa) * 5.9604644775390625e-8F;
        return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) | sign);
    }
    return std::bit_cast<float>(sign | (exponent + 112U) << 23 | mantissa << 13);
}

}  // namespace refit::numerics
