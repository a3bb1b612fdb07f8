// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "quant/element_values.hpp"

#include <cstring>
#include <string>

#include "core/error.hpp"
#include "kernels/numerics/bfloat16.hpp"
#include "kernels/numerics/float16.hpp"
#include "kernels/numerics/float8.hpp"

namespace refit::quant {
namespace {

using core::DType;

constexpr std::array<float, 256> kE4m3Values = [] {
    std::array<float, 256> values{};
    for (std::size_t code = 0; code < values.size(); ++code)
        values[code] = numerics::e4m3_to_f32(static_cast<std::uint8_t>(code));
    return values;
}();

std::uint16_t two_bytes(const std::byte* at) {
    std::uint16_t bits;
    std::memcpy(&bits, at, sizeof bits);
    return bits;
}

[[noreturn]] void refuse(const char* what, DType dtype, const char* expected) {
    throw core::ShapeError(std::string(what) + " elements of " +
                           std::string(core::safetensors_name(dtype)) + ": expected " + expected);
}

}  // namespace

const std::array<float, 256>& e4m3_values() {
    return kE4m3Values;
}

void read_values(DType dtype, const std::byte* from, std::int64_t count, float* to) {
    switch (dtype) {
        case DType::f32:
            std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof *to);
            return;
        case DType::bf16:
            for (std::int64_t i = 0; i < count; ++i)
                to[i] = numerics::bf16_to_f32(two_bytes(from + 2 * i));
            return;
        case DType::f16:
            for (std::int64_t i = 0; i < count; ++i)
                to[i] = numerics::f16_to_f32(two_bytes(from + 2 * i));
            return;
        case DType::f8_e4m3:
            for (std::int64_t i = 0; i < count; ++i)
                to[i] = kE4m3Values[std::to_integer<std::size_t>(from[i])];
            return;
        case DType::f8_e8m0:
        case DType::u8:
            for (std::int64_t i = 0; i < count; ++i)
                to[i] = numerics::e8m0_to_f32(std::to_integer<std::uint8_t>(from[i]));
            return;
        default:
            refuse("reading", dtype, "F32, BF16, F16, F8_E4M3, F8_E8M0 or U8");
    }
}

void write_values(DType dtype, const float* from, std::int64_t count, std::byte* to) {
    if (dtype == DType::f32) {
        std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof *from);
        return;
    }
    if (dtype != DType::bf16) refuse("writing", dtype, "F32 or BF16");
    for (std::int64_t i = 0; i < count; ++i) {
        const std::uint16_t bits = numerics::f32_to_bf16(from[i]);
        std::memcpy(to + 2 * i, &bits, sizeof bits);
    }
}

}  // namespace refit::quant
