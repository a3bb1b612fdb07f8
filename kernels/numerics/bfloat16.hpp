// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// BF16: the upper 16 bits of an IEEE-754 binary32.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/numerics/host_device.hpp"

namespace refit::numerics {

/// Value of a BF16 pattern; exact, NaN payload kept.
[[nodiscard]] REFIT_HD constexpr float bf16_to_f32(std::uint16_t bits) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

/// Nearest BF16, ties to even. Overflow gives Inf as IEEE-754 does; NaN stays NaN (made quiet).
[[nodiscard]] REFIT_HD constexpr std::uint16_t f32_to_bf16(float value) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
    if ((bits & 0x7fffffffU) > 0x7f800000U) {
        return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
    }
    // Half of the last kept place minus one, plus the last kept bit: ties go to even.
    return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

}  // namespace refit::numerics
