// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Codes and scales to double, written apart from kernels/ and quant/ on purpose: a check must not
// take its truth from the code under test.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

namespace refit::checks {

/// Largest finite E4M3FN value: (1 + 6/8) * 2^8.
inline constexpr double kE4m3Max = 448.0;

/// Value of an E4M3FN code. 0x7f and 0xff are NaN. Source: OCP OFP8 rev 1.0, section 5.
[[nodiscard]] double decode_e4m3(std::uint8_t code);
/// decode_e4m3 of all 256 codes, indexed by code.
[[nodiscard]] const std::array<double, 256>& e4m3_values();
/// Value of a BF16 bit pattern; exact.
[[nodiscard]] inline double decode_bf16(std::uint16_t bits) {
    return static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16));
}
/// Value of an E8M0 byte: 2^(byte - 127); 255 is NaN. Source: OCP Microscaling Formats 1.0, 5.4.1.
[[nodiscard]] double decode_e8m0(std::uint8_t byte);

/// x rounded to the 8 significant bits of BF16 (the exponent's range is not looked at); x finite
/// and below 2^900. Source: Veltkamp's splitting, T. J. Dekker, Numerische Mathematik 18 (1971).
[[nodiscard]] inline double nearest_bf16(double x) {
    constexpr double kSplit = 35184372088833.0;  // 2^45 + 1: leaves 53 - 45 bits
    const double product = x * kSplit;
    return product - (product - x);
}

/// The E4M3FN value nearest to x (ties to even), saturating at 448; x finite. The sign of zero is
/// that of x.
///
/// With p the power of two in x's binade, but at least 2^-6 (the smallest normal), neighbouring
/// values are p / 8 apart. M = 1.5 * 2^49 * p lies in the middle of a binade of doubles whose
/// spacing is 2^49 * p / 2^52 = p / 8 too, and M / (p / 8) = 1.5 * 2^52 is even: so the hardware's
/// own rounding of x + M (nearest, ties to even) is the rounding asked for, and subtracting M is
/// exact. This holds for |x| <= 448 < 2p in every binade.
[[nodiscard]] inline double nearest_e4m3(double x) {
    const double clamped = std::min(std::max(x, -kE4m3Max), kE4m3Max);
    const auto exponent = std::bit_cast<std::uint64_t>(clamped) & 0x7ff0000000000000U;
    const double binade = std::max(std::bit_cast<double>(exponent), 0x1p-6);
    const double magic = binade * 0x1.8p+49;
    return std::copysign((clamped + magic) - magic, x);
}

}  // namespace refit::checks
