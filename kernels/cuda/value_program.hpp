// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What one thread does with single values, scales above all: change their type and tell which of
// them no weight can be multiplied by.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "kernels/cuda/list_lookup.hpp"
#include "kernels/numerics/bfloat16.hpp"
#include "kernels/numerics/float16.hpp"
#include "kernels/numerics/float8.hpp"
#include "kernels/numerics/host_device.hpp"

namespace refit::kernels::cuda {

enum class ValueType : std::uint8_t { f32, bf16, f16, e8m0 };

[[nodiscard]] REFIT_HD constexpr std::int64_t size_of(ValueType type) {
    return type == ValueType::f32 ? 4 : (type == ValueType::e8m0 ? 1 : 2);
}

/// The value at any address; exact.
[[nodiscard]] REFIT_HD inline float load_value(const std::uint8_t* from, ValueType type) {
    if (type == ValueType::e8m0) return numerics::e8m0_to_f32(*from);
    std::uint32_t bits = static_cast<std::uint32_t>(from[0]) | static_cast<std::uint32_t>(from[1])
                                                                   << 8;
    if (type == ValueType::bf16) return numerics::bf16_to_f32(static_cast<std::uint16_t>(bits));
    if (type == ValueType::f16) return numerics::f16_to_f32(static_cast<std::uint16_t>(bits));
    bits |= static_cast<std::uint32_t>(from[2]) << 16 | static_cast<std::uint32_t>(from[3]) << 24;
    return std::bit_cast<float>(bits);
}

/// Nearest of the type, ties to even; as E8M0 only powers of two are expected. Never as F16.
REFIT_HD inline void store_value(std::uint8_t* to, ValueType type, float value) {
    if (type == ValueType::e8m0) {
        *to = numerics::f32_to_e8m0(value);
        return;
    }
    const std::uint32_t bits =
        type == ValueType::f32 ? std::bit_cast<std::uint32_t>(value) : numerics::f32_to_bf16(value);
    for (std::int64_t i = 0; i < size_of(type); ++i)
        to[i] = static_cast<std::uint8_t>(bits >> (8 * i));
}

/// Rows of values of one type, and where they go as another; nowhere where they are only looked at.
struct ValueRectangle {
    const std::uint8_t* from = nullptr;
    std::int64_t from_stride = 0;  ///< bytes from row to row
    ValueType from_type = ValueType::f32;
    std::uint8_t* to = nullptr;
    std::int64_t to_stride = 0;
    ValueType to_type = ValueType::f32;
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    std::int64_t first = 0;  ///< values of all rectangles before this one
};

/// Scales of one rectangle that are not finite and above 0.
struct UnusableScales {
    unsigned long long count = 0;
    unsigned long long first = ~0ULL;  ///< row * cols + column
};

REFIT_HD inline void convert_value(const ValueRectangle* rectangles, std::int64_t count,
                                   std::int64_t index) {
    const ValueRectangle& one =
        rectangles[item_of(rectangles, count, &ValueRectangle::first, index)];
    const std::int64_t row = (index - one.first) / one.cols;
    const std::int64_t col = (index - one.first) % one.cols;
    store_value(
        one.to + row * one.to_stride + col * size_of(one.to_type), one.to_type,
        load_value(one.from + row * one.from_stride + col * size_of(one.from_type), one.from_type));
}

/// Whether a scale can be used: NaN is neither above 0 nor below Inf.
[[nodiscard]] REFIT_HD constexpr bool is_usable_scale(float value) {
    return value > 0.0F && std::bit_cast<std::uint32_t>(value) < 0x7f800000U;
}

[[nodiscard]] REFIT_HD inline bool is_unusable(const ValueRectangle& one, std::int64_t local) {
    const std::uint8_t* from =
        one.from + local / one.cols * one.from_stride + local % one.cols * size_of(one.from_type);
    return !is_usable_scale(load_value(from, one.from_type));
}

/// The scale of a tile whose amax is not finite becomes NaN.
REFIT_HD inline void mark_nonfinite(const std::uint32_t* amax_bits, float* scale_inv,
                                    std::int64_t index) {
    if (amax_bits[index] >= 0x7f800000U) scale_inv[index] = std::bit_cast<float>(0x7fc00000U);
}

}  // namespace refit::kernels::cuda
