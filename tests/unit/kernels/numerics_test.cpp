// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <random>
#include <string>
#include <vector>

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

/// Quotients as 128 x 128 tiles of Gaussian weights give them: amax over 448 is the scale.
std::vector<float> gaussian_quotients(bool bf16_weights) {
    std::mt19937 random(11);
    std::vector<float> quotients;
    for (int tile = 0; tile < 8; ++tile) {
        std::vector<float> values;
        float amax = 0.0F;
        for (int i = 0; i < 128 * 128; ++i) {
            // Twelve uniform numbers: the same on every standard library, unlike its distributions.
            double sum = -6.0;
            for (int k = 0; k < 12; ++k) {
                sum += static_cast<double>(random()) / 4294967296.0;
            }
            const auto weight = static_cast<float>(0.02 * sum);
            values.push_back(bf16_weights ? bf16_to_f32(f32_to_bf16(weight)) : weight);
            amax = std::max(amax, std::fabs(values.back()));
        }
        for (const float value : values) {
            quotients.push_back(value / (amax / 448.0F));
        }
    }
    return quotients;
}

/// The nearest FP16 value, ties to even, of a number below 2^15: 11 significant bits, but no finer
/// than 2^-24. The scaled number is an exact double, and nearbyint rounds it once.
float rounded_to_fp16(float x) {
    int exponent = 0;
    (void)std::frexp(x, &exponent);
    const int step = std::max(exponent - 11, -24);
    return static_cast<float>(
        std::ldexp(std::nearbyint(std::ldexp(static_cast<double>(x), -step)), step));
}

/// Share of quotients for which `encode` differs from the exact search.
template <typename Encode>
double wrong_share(bool bf16_weights, const Encode& encode) {
    const std::vector<float> quotients = gaussian_quotients(bf16_weights);
    std::size_t wrong = 0;
    for (const float value : quotients) {
        wrong += encode(value) != nearest_code(value) ? 1U : 0U;
    }
    return static_cast<double>(wrong) / static_cast<double>(quotients.size());
}

TEST(Traps, TheExactSearchCatchesASecondRoundingOnTheWay) {
    for (const bool bf16_weights : {true, false}) {
        EXPECT_EQ(wrong_share(bf16_weights, [](float x) { return f32_to_e4m3(x); }), 0.0);
    }
    // Through BF16 about 3 % of the codes change, through FP16 about 0.3 %. The second shows only
    // with F32 weights: the quotients of two 8-bit significands keep clear of ties.
    const double through_bf16 =
        wrong_share(true, [](float x) { return f32_to_e4m3(bf16_to_f32(f32_to_bf16(x))); });
    EXPECT_GT(through_bf16, 0.02);
    EXPECT_LT(through_bf16, 0.04);
    const double through_fp16 =
        wrong_share(false, [](float x) { return f32_to_e4m3(rounded_to_fp16(x)); });
    EXPECT_GT(through_fp16, 0.001);
    EXPECT_LT(through_fp16, 0.01);
}

TEST(Traps, ExponentsAboveAPowerOfTwoRoundUpWhereTheLogarithmDoesNot) {
    int logarithm_is_wrong = 0;
    for (int k = -60; k <= 60; ++k) {
        for (std::uint32_t ulps = 0; ulps < 64; ++ulps) {
            const float scale =
                std::bit_cast<float>(std::bit_cast<std::uint32_t>(std::ldexp(1.0F, k)) + ulps);
            int exponent = 0;
            // mantissa * 2^exponent, mantissa in [0.5, 1): exact.
            const double mantissa = std::frexp(static_cast<double>(scale), &exponent);
            const int exact = mantissa == 0.5 ? exponent - 1 : exponent;
            EXPECT_EQ(static_cast<int>(detail::ceil_exponent_byte(scale)) - 127, exact);
            logarithm_is_wrong += static_cast<int>(std::ceil(std::log2(scale))) != exact;
        }
    }
    EXPECT_GT(logarithm_is_wrong, 100);
}

TEST(Traps, ASubnormalScaleIsNotFlushedToZero) {
    TileScaling scaling;
    for (const std::uint32_t amax_bits : {0x00800000U, 0x00010000U, 0x01000000U}) {
        const double amax = static_cast<double>(std::bit_cast<float>(amax_bits));
        const float scale = tile_factor(scaling, amax_bits).scale_inv;
        // One rounding to the subnormal grid of 2^-149, ties to even, in exact arithmetic.
        EXPECT_EQ(static_cast<double>(scale), std::nearbyint(amax / 448.0 * 0x1p149) * 0x1p-149);
        EXPECT_GT(scale, 0.0F) << amax_bits;
        EXPECT_LT(scale, 0x1p-126F);
    }
    EXPECT_EQ(e8m0_to_f32(0), 0x1p-127F);
}

TEST(Traps, ASaturatingCastHidesInfThatAmaxTells) {
    TileScaling scaling;
    scaling.formula = ScaleFormula::c448_over_amax;
    scaling.special_amax = SpecialAmax::factor_is_one;
    scaling.quotient = Quotient::multiply_by_factor;
    const TileFactor factor = tile_factor(scaling, 0x7f800000U);
    EXPECT_EQ(factor.scale_inv, 1.0F);                                 // nothing to see here
    EXPECT_EQ(encode_element(scaling, 0x7f80, factor.operand), 0x7e);  // nor here
    EXPECT_GE(amax_part(scaling, abs_bits(0x7f80)), 0x7f800000U);
    EXPECT_FALSE(hides_nonfinite(scaling));
}

TEST(Traps, AMaximumThatDropsNanIsARecipesOwnChoice) {
    TileScaling scaling;
    EXPECT_TRUE(is_nan_bits(amax_part(scaling, abs_bits(0xffc1))));
    scaling.nonfinite_input = NonfiniteInput::drop_nan;
    EXPECT_EQ(amax_part(scaling, abs_bits(0xffc1)), 0U);
    EXPECT_EQ(amax_part(scaling, abs_bits(0xff80)), 0x7f800000U);
    EXPECT_EQ(encode_element(scaling, 0x7fc0, 1.0F), 0xfe);
    EXPECT_EQ(encode_element(scaling, 0xffc0, 1.0F), 0xfe);
    EXPECT_TRUE(hides_nonfinite(scaling));
    scaling.nonfinite_input = NonfiniteInput::replace;
    EXPECT_EQ(amax_part(scaling, abs_bits(0xffc1)), 0U);
    EXPECT_EQ(std::bit_cast<float>(amax_part(scaling, abs_bits(0xff80))), 448.0F);
    EXPECT_EQ(encode_element(scaling, 0xff80, 1.0F), 0xfe);
    EXPECT_EQ(encode_element(scaling, 0xffc0, 1.0F), 0x00);
    EXPECT_TRUE(hides_nonfinite(scaling));
}

TEST(E8m0, IsAPowerOfTwoForEveryByteButTheLast) {
    for (int byte = 0; byte < 255; ++byte) {
        const auto code = static_cast<std::uint8_t>(byte);
        EXPECT_EQ(static_cast<double>(e8m0_to_f32(code)), std::ldexp(1.0, byte - 127)) << byte;
        EXPECT_EQ(f32_to_e8m0(std::ldexp(1.0F, byte - 127)), byte);
    }
    EXPECT_TRUE(std::isnan(e8m0_to_f32(255)));
    EXPECT_EQ(f32_to_e8m0(std::numeric_limits<float>::quiet_NaN()), 255);
}

static_assert(f32_to_e4m3(448.0F) == 0x7e, "the functions are usable at compile time");
static_assert(e4m3_to_f32(0x7e) == 448.0F, "the functions are usable at compile time");

}  // namespace
}  // namespace refit::numerics
