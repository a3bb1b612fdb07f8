// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// E4M3FN: 1 sign, 4 exponent (bias 7), 3 mantissa bits, no Inf, NaN only at 0x7f and 0xff.
// Source: Micikevicius et al., "FP8 Formats for Deep Learning" (arXiv 2209.05433), table 1.
// E8M0: 8 exponent bits, bias 127, NaN is 255, no zero and no sign.
// Source: OCP Microscaling Formats (MX) 1.0, section 5.4.1.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/numerics/host_device.hpp"

namespace refit::numerics {

/// Largest finite magnitude: 448 = (1 + 6/8) * 2^8.
inline constexpr float kE4m3Max = 448.0F;
/// The only NaN code that is written here; 0xff is read as NaN too.
inline constexpr std::uint8_t kE4m3Nan = 0x7f;

[[nodiscard]] REFIT_HD constexpr bool e4m3_is_nan(std::uint8_t code) {
    return (code & 0x7fU) == 0x7fU;
}

/// Nearest E4M3FN code, ties to even, saturating at +-448 (so +-Inf give +-448). The sign of zero
/// is kept. NaN gives 0x7f whatever its sign.
[[nodiscard]] REFIT_HD constexpr std::uint8_t f32_to_e4m3(float value) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t magnitude = bits & 0x7fffffffU;
    const std::uint32_t sign = (bits >> 24) & 0x80U;
    if (magnitude > 0x7f800000U) {
        return kE4m3Nan;
    }
    if (magnitude >= std::bit_cast<std::uint32_t>(kE4m3Max)) {
        return static_cast<std::uint8_t>(sign | 0x7eU);
    }
    if (magnitude < 0x3c800000U) {  // below 2^-6, the smallest normal
        // The last place of numbers in [2^14, 2^15) is 2^-9, the subnormal step: the addition
        // rounds.
        const float shifted = std::bit_cast<float>(magnitude) + 16384.0F;
        return static_cast<std::uint8_t>(sign | (std::bit_cast<std::uint32_t>(shifted) -
                                                 std::bit_cast<std::uint32_t>(16384.0F)));
    }
    const std::uint32_t rounded = magnitude + 0x7ffffU + ((magnitude >> 20) & 1U);
    // (127 - 7) moves the bias. A carry out of the mantissa moves the exponent up, as it should.
    return static_cast<std::uint8_t>(sign | ((rounded >> 20) - (120U << 3)));
}

/// Value of an E8M0 byte: 2^(byte - 127), exact (2^-127 is subnormal); 255 gives 0x7fc00000.
[[nodiscard]] REFIT_HD constexpr float e8m0_to_f32(std::uint8_t byte) {
    if (byte == 255U) {
        return std::bit_cast<float>(0x7fc00000U);
    }
    return std::bit_cast<float>(byte == 0U ? 0x00400000U : static_cast<std::uint32_t>(byte) << 23);
}

/// E8M0 byte of a power of two in [2^-127, 2^127]; 255 for NaN. Other values are not expected: the
/// mantissa is cut off.
[[nodiscard]] REFIT_HD constexpr std::uint8_t f32_to_e8m0(float power_of_two) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(power_of_two) & 0x7fffffffU;
    return bits > 0x7f800000U ? std::uint8_t{255} : static_cast<std::uint8_t>(bits >> 23);
}

/// Value of an E4M3FN code; exact. 0x7f and 0xff give the quiet NaN 0x7fc00000.
[[nodiscard]] REFIT_HD constexpr float e4m3_to_f32(std::uint8_t code) {
    if (e4m3_is_nan(code)) {
        return std::bit_cast<float>(0x7fc00000U);
    }
    const std::uint32_t sign = (code & 0x80U) << 24;
    const std::uint32_t magnitude = code & 0x7fU;
    if (magnitude < 8U) {  // subnormal: mantissa * 2^-9
        const float value = static_cast<float>(magnitude) * 0.001953125F;
        return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) | sign);
    }
    return std::bit_cast<float>(sign | ((magnitude + (120U << 3)) << 20));
}

}  // namespace refit::numerics
