// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <string>

#include "kernels/numerics/scale.hpp"

namespace refit::numerics {
namespace {

/// The value of a finite code by the definition of the format, in exact double arithmetic.
double exact_value(int code) {
    const int exponent = (code >> 3) & 15;
    const int mantissa = code & 7;
    const double magnitude =
        exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
    return (code & 0x80) != 0 ? -magnitude : magnitude;
}

/// The nearest code by search over all magnitudes, ties to the even mantissa, in exact arithmetic.
int nearest_code(double value) {
    const int sign = std::signbit(value) ? 0x80 : 0;
    const double magnitude = std::fabs(value);
    int best = 0;
    double best_distance = std::numeric_limits<double>::infinity();
    for (int code = 0; code <= 0x7e; ++code) {
        const double distance = std::fabs(exact_value(code) - magnitude);
        if (distance < best_distance || (distance == best_distance && code % 2 == 0)) {
            best = code;
            best_distance = distance;
        }
    }
    return best | sign;
}

TEST(E4m3, DecodesAll256CodesExactly) {
    for (int code = 0; code < 256; ++code) {
        const float value = e4m3_to_f32(static_cast<std::uint8_t>(code));
        if ((code & 0x7f) == 0x7f) {
            EXPECT_EQ(std::bit_cast<std::uint32_t>(value), 0x7fc00000U) << code;
            continue;
        }
        EXPECT_EQ(static_cast<double>(value), exact_value(code)) << code;
        EXPECT_EQ(std::signbit(value), (code & 0x80) != 0) << code;
    }
}

TEST(E4m3, EncodesWhatItDecodes) {
    for (int code = 0; code < 256; ++code) {
        const int expected = (code & 0x7f) == 0x7f ? 0x7f : code;
        EXPECT_EQ(f32_to_e4m3(e4m3_to_f32(static_cast<std::uint8_t>(code))), expected) << code;
    }
}

TEST(E4m3, RoundsTiesToEvenAndTheNeighboursOfTiesToTheNearest) {
    for (int code = 0; code < 0x7e; ++code) {
        const double middle = (exact_value(code) + exact_value(code + 1)) / 2;
        const auto tie = static_cast<float>(middle);
        ASSERT_EQ(static_cast<double>(tie), middle);
        EXPECT_EQ(f32_to_e4m3(tie), code % 2 == 0 ? code : code + 1) << code;
        EXPECT_EQ(f32_to_e4m3(std::nextafter(tie, 0.0F)), code) << code;
        EXPECT_EQ(f32_to_e4m3(std::nextafter(tie, 1000.0F)), code + 1) << code;
    }
}

TEST(E4m3, FollowsTheSpecialValueTable) {
    const float infinity = std::numeric_limits<float>::infinity();
    EXPECT_EQ(f32_to_e4m3(infinity), 0x7e);
    EXPECT_EQ(f32_to_e4m3(-infinity), 0xfe);
    EXPECT_EQ(f32_to_e4m3(448.0F), 0x7e);
    EXPECT_EQ(f32_to_e4m3(464.0F), 0x7e);
    EXPECT_EQ(f32_to_e4m3(-3e38F), 0xfe);
    EXPECT_EQ(f32_to_e4m3(0.0F), 0x00);
    EXPECT_EQ(f32_to_e4m3(-0.0F), 0x80);
    EXPECT_EQ(f32_to_e4m3(std::bit_cast<float>(0x7fc00000U)), 0x7f);
    EXPECT_EQ(f32_to_e4m3(std::bit_cast<float>(0xffc00000U)), 0x7f);
    EXPECT_EQ(f32_to_e4m3(std::bit_cast<float>(0x7f800001U)), 0x7f);
    EXPECT_EQ(f32_to_e4m3(0x1p-10F), 0x00);
    EXPECT_EQ(f32_to_e4m3(std::bit_cast<float>(1U)), 0x00);
}

TEST(E4m3, EncodesSampledFloatsAsAnExactSearchDoes) {
    // A stride that is odd and not near a power of two visits all exponents and mantissas.
    for (std::uint64_t bits = 0; bits < (1ULL << 32); bits += 104729ULL * 11) {
        const float value = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
        if (std::isnan(value)) {
            continue;
        }
        ASSERT_EQ(f32_to_e4m3(value), nearest_code(value)) << std::hex << bits;
    }
}

TEST(E4m3, EncodesAll65536Bf16ValuesAsMlDtypesDoes) {
    const std::string path = REFIT_SOURCE_DIR "/tests/golden/e4m3/bf16_all.hex";
    std::ifstream file(path);
    ASSERT_TRUE(file) << path;
    std::string line;
    std::uint32_t pattern = 0;
    while (std::getline(file, line)) {
        if (line.starts_with('#')) {
            continue;
        }
        for (std::size_t i = 0; i + 1 < line.size(); i += 2) {
            const int expected = std::stoi(line.substr(i, 2), nullptr, 16);
            ASSERT_EQ(f32_to_e4m3(bf16_to_f32(static_cast<std::uint16_t>(pattern))), expected)
                << std::hex << pattern;
            ++pattern;
        }
    }
    EXPECT_EQ(pattern, 65536U);
}

TEST(Bf16, ReturnsFromF32Unchanged) {
    for (std::uint32_t pattern = 0; pattern < 65536; ++pattern) {
        const auto bits = static_cast<std::uint16_t>(pattern);
        const bool nan = (pattern & 0x7fffU) > 0x7f80U;
        EXPECT_EQ(f32_to_bf16(bf16_to_f32(bits)), nan ? (bits | 0x40) : bits) << pattern;
    }
}

TEST(Bf16, RoundsTiesToEvenAndOverflowsToInf) {
    EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f808000U)), 0x3f80);
    EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f818000U)), 0x3f82);
    EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f808001U)), 0x3f81);
    EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x7f7fffffU)), 0x7f80);
    EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x7f800001U)), 0x7fc0);
}

TEST(TileFactorOfAnAmax, WritesOneNanPattern) {
    const TileFactor factor = tile_factor(TileScaling{}, 0x7fa12345U);
    EXPECT_EQ(std::bit_cast<std::uint32_t>(factor.scale_inv), 0x7fc00000U);
}

TEST(TileFactorOfAnAmax, DiffersBetweenDivisionAndReciprocalFor71Of128Significands) {
    // The count is the one that PyTorch on a CPU and on a CUDA device differ in.
    TileScaling divide;
    TileScaling multiply;
    multiply.formula = ScaleFormula::amax_times_reciprocal_448;
    int differing = 0;
    for (std::uint32_t m = 0; m < 128; ++m) {
        const std::uint32_t bits = 0x3f800000U | (m << 16);
        differing += tile_factor(divide, bits).scale_inv != tile_factor(multiply, bits).scale_inv;
    }
    EXPECT_EQ(differing, 71);
}

static_assert(f32_to_e4m3(448.0F) == 0x7e, "the functions are usable at compile time");
static_assert(e4m3_to_f32(0x7e) == 448.0F, "the functions are usable at compile time");

}  // namespace
}  // namespace refit::numerics
