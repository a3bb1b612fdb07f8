// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// All 2^32 F32 patterns through the cast.
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/numerics/float8.hpp"

#if __has_include(<cuda_fp8.h>)
#include <cuda_fp8.h>
#endif

namespace {

constexpr std::uint32_t kInfBits = 0x7f800000;

/// The value of code c in [0, 0x7e] by the definition of the format.
double value_of(int code) {
    const int exponent = code >> 3;
    const int mantissa = code & 7;
    return exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
}

/// For each code the largest F32 pattern that rounds to it: the middle to the next code is a tie,
/// which goes to the even one. All middles are F32 numbers.
std::array<std::uint32_t, 127> last_patterns() {
    std::array<std::uint32_t, 127> last{};
    for (int code = 0; code < 0x7e; ++code) {
        const double middle = (value_of(code) + value_of(code + 1)) / 2;
        const std::uint32_t bits = std::bit_cast<std::uint32_t>(static_cast<float>(middle));
        last[static_cast<std::size_t>(code)] = code % 2 == 0 ? bits : bits - 1;
    }
    last[0x7e] = kInfBits;  // everything beyond saturates
    return last;
}

TEST(E4m3OfAllFloats, IsTheNearestCodeInExactArithmetic) {
    const std::array<std::uint32_t, 127> last = last_patterns();
    std::uint32_t bits = 0;
    for (unsigned code = 0; code < last.size(); ++code) {
        for (; bits <= last[code]; ++bits) {
            const unsigned found = refit::numerics::f32_to_e4m3(std::bit_cast<float>(bits));
            const unsigned negative =
                refit::numerics::f32_to_e4m3(std::bit_cast<float>(bits | 0x80000000U));
            ASSERT_TRUE(found == code && negative == (code | 0x80U))
                << std::hex << bits << ": " << found << " and " << negative << ", expected "
                << code;
        }
    }
    for (bits = kInfBits + 1; bits < 0x80000000U; ++bits) {
        ASSERT_EQ(refit::numerics::f32_to_e4m3(std::bit_cast<float>(bits)), 0x7f);
        ASSERT_EQ(refit::numerics::f32_to_e4m3(std::bit_cast<float>(bits | 0x80000000U)), 0x7f);
    }
}

TEST(E4m3OfAllFloats, IsWhatTheCudaHeaderGivesOnTheHost) {
#if __has_include(<cuda_fp8.h>)
    std::uint32_t bits = 0;
    do {
        const float value = std::bit_cast<float>(bits);
        std::uint8_t theirs = __nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3);
        if ((theirs & 0x7fU) == 0x7fU) {
            theirs = 0x7f;  // the sign of a NaN is not kept here
        }
        const std::uint8_t ours = refit::numerics::f32_to_e4m3(value);
        if (ours != theirs) {
            FAIL() << std::hex << bits << ": " << int{ours} << ", expected " << int{theirs};
        }
    } while (++bits != 0);
#else
    GTEST_SKIP() << "cuda_fp8.h is not installed on this machine";
#endif
}

}  // namespace
