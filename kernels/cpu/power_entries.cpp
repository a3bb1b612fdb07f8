// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/power_entries.hpp"

#include <bit>
#include <vector>

#include "kernels/numerics/scale.hpp"

namespace refit::kernels::cpu {
namespace {

constexpr std::uint32_t kMagnitudes = 0x8000;

bool is_simple(const numerics::TileScaling& scaling) {
    return (scaling.power_of_two == numerics::PowerOfTwo::e8m0_floor ||
            scaling.power_of_two == numerics::PowerOfTwo::e8m0_ceil) &&
           scaling.tile_cols == 32 && !scaling.round_quotient_to_bf16 && !scaling.add_zero &&
           scaling.nonfinite_input == numerics::NonfiniteInput::propagate;
}

PowerEntry entry_of(const numerics::TileScaling& scaling, std::uint32_t magnitude) {
    const numerics::TileFactor factor = numerics::tile_factor(scaling, magnitude << 16);
    PowerEntry entry;
    entry.scale_inv = factor.scale_inv;
    const auto bits = std::bit_cast<std::uint32_t>(factor.operand);
    const bool is_smallest = bits == 0x00400000U;  // 2^-127 is a subnormal F32
    const std::uint32_t biased = bits >> 23;
    if (magnitude >= 0x7f80U ||
        (!is_smallest && ((bits & 0x7fffffU) != 0U || biased == 0U || biased >= 255U))) {
        return entry;
    }
    int exponent = is_smallest ? -127 : static_cast<int>(biased) - 127;
    if (scaling.quotient != numerics::Quotient::divide_by_scale) {
        exponent = -exponent;
    }
    // Codes are (exponent - 120) * 8 + 3 bits. Normal ones, 8 and above, begin at 2^-6, BF16
    // exponent 121; BF16 subnormals have no implicit one and are never covered.
    entry.subtract = static_cast<std::int16_t>(8 * (exponent + 120));
    const int first = exponent + 121 < 1 ? 1 : exponent + 121;
    entry.smallest = static_cast<std::int16_t>(first * 128);
    return entry;
}

}  // namespace

const PowerEntry* power_entries(const numerics::TileScaling& scaling) {
    if (!is_simple(scaling)) {
        return nullptr;
    }
    thread_local std::vector<PowerEntry> entries;
    thread_local numerics::TileScaling made_for;
    if (entries.empty() || !(made_for == scaling)) {
        entries.resize(kMagnitudes);
        for (std::uint32_t magnitude = 0; magnitude < kMagnitudes; ++magnitude) {
            entries[magnitude] = entry_of(scaling, magnitude);
        }
        made_for = scaling;
    }
    return entries.data();
}

}  // namespace refit::kernels::cpu
