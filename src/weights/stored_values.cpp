// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "weights/stored_values.hpp"

#include <bit>
#include <cmath>
#include <cstring>

namespace refit::weights {
namespace {

/// Round to nearest even; any NaN becomes 0x7FC0 as in PyTorch, since truncation could turn one
/// into Inf.
std::uint16_t bf16_of_f32(std::uint32_t bits) {
    if ((bits & 0x7FFFFFFFU) > 0x7F800000U) return 0x7FC0;
    const std::uint32_t half_minus_one_or_half = 0x7FFFU + ((bits >> 16) & 1U);
    return static_cast<std::uint16_t>((bits + half_minus_one_or_half) >> 16);
}

/// Exact: every F16 value is an F32 value.
std::uint32_t f32_of_f16(std::uint16_t bits) {
    const std::uint32_t sign = (bits & 0x8000U) << 16;
    const std::uint32_t exponent = (bits >> 10) & 0x1FU;
    const std::uint32_t mantissa = bits & 0x3FFU;
    if (exponent == 0x1FU) return sign | 0x7F800000U | (mantissa << 13);
    if (exponent != 0) return sign | ((exponent + (127U - 15U)) << 23) | (mantissa << 13);
    // Zero and subnormals are mantissa * 2^-24.
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign | std::bit_cast<std::uint32_t>(magnitude);
}

template <typename Stored>
Stored load(const std::byte* from) {
    // A header of odd length leaves the data unaligned.
    Stored value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

}  // namespace

void read_as_bf16(const StoredPlaces::Place& at, std::int64_t cols, const core::Region& region,
                  std::uint16_t* out, std::int64_t out_stride) {
    const std::int64_t stored_bytes = core::size_bytes(at.tensor->dtype);
    const std::byte* data = at.file->bytes(*at.tensor).data();
    for (std::int64_t r = 0; r < region.rows; ++r) {
        const std::byte* from =
            data + ((at.first_row + region.row + r) * cols + region.col) * stored_bytes;
        std::uint16_t* to = out + r * out_stride;
        if (at.tensor->dtype == core::DType::bf16) {
            std::memcpy(to, from, static_cast<std::size_t>(region.cols) * sizeof *to);
        } else if (at.tensor->dtype == core::DType::f16) {
            for (std::int64_t c = 0; c < region.cols; ++c) {
                to[c] = bf16_of_f32(f32_of_f16(load<std::uint16_t>(from + 2 * c)));
            }
        } else {
            for (std::int64_t c = 0; c < region.cols; ++c) {
                to[c] = bf16_of_f32(load<std::uint32_t>(from + 4 * c));
            }
        }
    }
}

}  // namespace refit::weights
