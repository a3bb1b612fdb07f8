// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/element_block.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "checks/decode.hpp"
#include "checks/nearest_codes.hpp"

namespace refit::checks {
namespace {

struct Elements {
    std::vector<std::uint16_t> source;
    std::vector<std::uint8_t> codes;
};

/// Finite BF16 values of `binades` binades below 2^7, with codes that have nothing to do with them.
Elements make_elements(std::int64_t count, unsigned binades, std::uint32_t seed) {
    std::mt19937 random(seed);
    Elements made;
    for (std::int64_t i = 0; i < count; ++i) {
        const auto bits = static_cast<std::uint32_t>(random());
        const std::uint32_t exponent = 133U - (bits >> 16) % binades;
        made.source.push_back(
            static_cast<std::uint16_t>((bits & 0x8000U) | (exponent << 7) | (bits & 0x7fU)));
        const auto code = static_cast<std::uint8_t>(random());
        made.codes.push_back((code & 0x7fU) == 0x7fU ? std::uint8_t{0} : code);
        if (i % 17 == 0) made.source.back() = static_cast<std::uint16_t>(bits & 0x8000U);
    }
    return made;
}

/// Code of nearest_e4m3(x), found by its value.
std::uint8_t code_nearest(double x) {
    const double nearest = nearest_e4m3(x);
    for (unsigned code = 0; code < 256; ++code) {
        const double value = decode_e4m3(static_cast<std::uint8_t>(code));
        if (value == nearest && std::signbit(value) == std::signbit(nearest)) {
            return static_cast<std::uint8_t>(code);
        }
    }
    return 0x7f;
}

/// The definitions, one element after the other, in long double so that the order hardly counts.
BlockSums by_definition(const ElementBlock& block) {
    long double x2 = 0;
    long double error2 = 0;
    long double x_error = 0;
    long double expected2 = 0;
    BlockSums sums;
    for (std::int64_t i = 0; i < block.count; ++i) {
        const double x = decode_bf16(block.source[i]);
        const double value = decode_e4m3(block.codes[i]);
        const double error = value * block.loaded_scale - x;
        double quotient = x / (block.divisor > 0.0 ? block.divisor : block.own_scale);
        if (block.round_quotient_to_bf16) quotient = nearest_bf16(quotient);
        const double expected = nearest_e4m3(quotient) * block.own_scale - x;
        x2 += static_cast<long double>(x) * x;
        error2 += static_cast<long double>(error) * error;
        x_error += static_cast<long double>(x) * error;
        expected2 += static_cast<long double>(expected) * expected;
        sums.exact += error == 0.0 ? 1 : 0;
        sums.flushed += value == 0.0 && x != 0.0 ? 1 : 0;
        sums.saturated += std::abs(value) == 448.0 && std::abs(x) > block.saturation ? 1 : 0;
        const double bound = std::max(std::abs(x) * (1.0 / 17.0), block.own_scale / 1024.0);
        sums.above = sums.above || !(std::abs(error) <= bound * block.threshold);
    }
    sums.x2 = static_cast<double>(x2);
    sums.error2 = static_cast<double>(error2);
    sums.x_error = static_cast<double>(x_error);
    sums.expected_error2 = static_cast<double>(expected2);
    return sums;
}

void expect_same(const BlockSums& found, const BlockSums& expected, std::int64_t count,
                 double tolerance) {
    EXPECT_NEAR(found.x2, expected.x2, tolerance * expected.x2) << count;
    EXPECT_NEAR(found.error2, expected.error2, tolerance * expected.error2) << count;
    // Its terms have both signs: what they may cancel to is measured by their size.
    EXPECT_NEAR(found.x_error, expected.x_error,
                tolerance * std::sqrt(expected.x2 * expected.error2))
        << count;
    EXPECT_NEAR(found.expected_error2, expected.expected_error2,
                tolerance * expected.expected_error2)
        << count;
    EXPECT_EQ(found.saturated, expected.saturated) << count;
    EXPECT_EQ(found.flushed, expected.flushed) << count;
    EXPECT_EQ(found.exact, expected.exact) << count;
    EXPECT_EQ(found.above, expected.above) << count;
}

TEST(SumBlock, EqualsTheDefinitionsAtEveryLengthScaleAndRounding) {
    for (std::int64_t count = 0; count <= 130; ++count) {
        for (const unsigned binades : {3U, 24U}) {
            const Elements made =
                make_elements(count, binades, 40U + static_cast<std::uint32_t>(count));
            for (const double own_scale : {0.5, 0.123, 1e-3}) {
                for (const bool round : {false, true}) {
                    for (const double threshold : {0.0, 40.0, 1e9}) {
                        const ElementBlock block{
                            made.source.data(),
                            made.codes.data(),
                            count,
                            own_scale * 1.25,
                            own_scale,
                            round,
                            30.0,
                            threshold,
                            round && binades == 3U ? nearest_bf16(own_scale) : 0.0};
                        const BlockSums expected = by_definition(block);
                        expect_same(sum_block_exactly(block), expected, count, 1e-13);
                        expect_same(sum_block(block), expected, count, 1e-6);
                    }
                }
            }
        }
    }
}

TEST(SumBlock, LooksAgainWhereOneOfManyElementsIsWrong) {
    const std::vector<std::uint16_t> source(128, 0x3f80);  // 1
    for (std::size_t place : {0U, 3U, 64U, 127U}) {
        std::vector<std::uint8_t> codes(128, 0x38);  // 1
        ElementBlock block{source.data(), codes.data(), 128, 1.0, 1.0, false, 448.0, 1.0};
        EXPECT_FALSE(sum_block(block).above);
        EXPECT_EQ(sum_block(block).exact, 128);
        codes[place] = 0x39;  // 1.125
        EXPECT_TRUE(sum_block(block).above);
        EXPECT_EQ(sum_block(block).exact, 127);
        codes[place] = 0xff;  // NaN, and its sum shows it
        EXPECT_TRUE(sum_block(block).above);
        EXPECT_TRUE(std::isnan(sum_block(block).error2));
    }
}

TEST(SumBlock, CallsAScaleThatIsNoNumberAboveEveryBound) {
    const std::vector<std::uint16_t> source(5, 0x3f80);
    const std::vector<std::uint8_t> codes(5, 0x38);
    for (const double scale :
         {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
        const BlockSums sums =
            sum_block({source.data(), codes.data(), 5, scale, 1.0, false, 448.0, 1.0});
        EXPECT_TRUE(sums.above);
        EXPECT_EQ(sums.exact, 0);
    }
}

/// A tile of Gaussian-like values with the codes nearest to them under `scale`.
Elements make_nearest(std::int64_t count, double scale, std::uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0F, static_cast<float>(100.0 * scale));
    Elements made;
    for (std::int64_t i = 0; i < count; ++i) {
        const float x = std::clamp(normal(random), static_cast<float>(-448.0 * scale),
                                   static_cast<float>(448.0 * scale));
        made.source.push_back(static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16));
        made.codes.push_back(code_nearest(decode_bf16(made.source.back()) / scale));
    }
    return made;
}

/// A scale with all bits of F32, one with few, powers of two; and what F32 makes of amax / 448.
const std::vector<float> kScales = {0.0031415927F, 0.123F,        0x1.8p-9F,       0x1p-10F,
                                    0x1p3F,        3.5F / 448.0F, 1.0625F / 448.0F};

TEST(SumBlock, AddsInF32OnlyWhatItMayAndTheSameCounts) {
    for (const float scale : kScales) {
        for (std::uint32_t seed = 0; seed < 40; ++seed) {
            Elements made = make_nearest(128, scale, seed);
            ElementBlock block{made.source.data(),
                               made.codes.data(),
                               128,
                               scale,
                               scale,
                               false,
                               430.0 * scale,
                               0.9};
            expect_same(sum_block(block), by_definition(block), 128, 1e-6);
            made.codes[seed] ^= 0x80U;  // the other sign
            made.source[100] = 0;       // a zero, with whatever code
            expect_same(sum_block(block), by_definition(block), 128, 1e-6);
            made.codes[seed] = static_cast<std::uint8_t>(seed * 5U);
            made.codes[90] = 0x7e;
            made.codes[91] = 0x80;
            expect_same(sum_block(block), by_definition(block), 128, 1e-6);
        }
    }
}

TEST(NearestCodes, AreThoseOfDoublePrecisionForEveryNormalElement) {
    for (const float scale : kScales) {
        const NearestCodes nearest = nearest_codes(scale, scale);
        ASSERT_NE(nearest.smallest, 0x8000) << scale;
        double worst = 0.0;
        for (std::uint32_t bits = nearest.smallest; bits < 0x7f80U; ++bits) {
            const double x = decode_bf16(static_cast<std::uint16_t>(bits));
            if (x > 448.0 * scale) break;
            const std::uint8_t code = code_nearest(x / scale);
            const std::uint32_t group = (bits & 0x7fU) / 8;
            const auto table =
                static_cast<std::uint8_t>(nearest.base[group] + (bits >> 4) +
                                          ((bits & 0x7fU) > nearest.last_of_base[group] ? 1U : 0U));
            // Onto a tie by F32's rounding: both neighbours are as near.
            const double tie = std::abs(decode_e4m3(table & 0x7fU) - decode_e4m3(code));
            const double error = std::abs(decode_e4m3(code) * scale - x);
            const double other = std::abs(decode_e4m3(table & 0x7fU) * scale - x);
            ASSERT_TRUE((table & 0x7fU) == code || (tie > 0.0 && other - error < 1e-6 * x))
                << scale << " " << bits;
            ASSERT_GE(code, 8);
            worst = std::max(worst, 17.0 * other / x);
        }
        EXPECT_LE(worst, nearest.worst_ratio * (1.0 + 1e-12)) << scale;
    }
}

/// The rows as one block; false where they are not summed together.
bool sum_rows(const Elements& made, std::int64_t rows, float scale, const NearestCodes& nearest,
              BlockSums& sums) {
    const auto count = static_cast<std::int64_t>(made.source.size()) / rows;
    return sum_nearest_rows({made.source.data(), made.codes.data(), rows, count, count, count,
                             448.0 * scale * (1.0 + 1e-5), 1.0 + 1e-5},
                            nearest, sums);
}

ElementBlock block_of(const Elements& made, float scale) {
    return {made.source.data(),
            made.codes.data(),
            static_cast<std::int64_t>(made.source.size()),
            scale,
            scale,
            false,
            448.0 * scale * (1.0 + 1e-5),
            1.0 + 1e-5};
}

TEST(NearestCodes, SumTheRowsThatTheDefinitionsSum) {
    for (const float scale : kScales) {
        const NearestCodes nearest = nearest_codes(scale, scale);
        int summed = 0;
        for (std::uint32_t seed = 0; seed < 200; ++seed) {
            const std::int64_t rows = 1 + seed % 8;
            Elements made = make_nearest(128 * rows, scale, 100 + seed);
            // Zeros and the smallest codes lie outside the table.
            made.source[5] = 0;
            made.codes[5] = 0;
            made.source[70] =
                static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(scale * 0x1p-8F) >> 16);
            made.codes[70] = code_nearest(decode_bf16(made.source[70]) / scale);
            BlockSums sums;
            if (!sum_rows(made, rows, scale, nearest, sums)) continue;
            ++summed;
            expect_same(sums, by_definition(block_of(made, scale)), rows, 1e-6);
        }
        // 0 where the processor has no such instructions.
        EXPECT_TRUE(summed == 0 || summed == 200) << scale << " " << summed;
    }
}

TEST(NearestCodes, SumRowsOfAnyLengthOfWholeVectors) {
    const float scale = 0.0123F;
    const NearestCodes nearest = nearest_codes(scale, scale);
    for (const std::int64_t count : {32, 64, 96, 128, 160, 256, 416, 512}) {
        // One element below the table, in each of the vectors in turn.
        for (std::int64_t place = 3; place < 2 * count; place += 32) {
            Elements made = make_nearest(2 * count, scale, 900 + static_cast<std::uint32_t>(place));
            made.source[static_cast<std::size_t>(place)] = 0;
            made.codes[static_cast<std::size_t>(place)] = 0;
            BlockSums sums;
            if (!sum_rows(made, 2, scale, nearest, sums)) GTEST_SKIP() << "no AVX2 with FMA";
            expect_same(sums, by_definition(block_of(made, scale)), count, 1e-6);
        }
    }
}

TEST(NearestCodes, SumUnderTheLargestScaleOfTheirs) {
    // Sums are made over 2^120: above 2^7 that would leave the range of F32.
    for (const float scale : {128.0F, std::nextafter(128.0F, 129.0F), 1000.0F}) {
        const NearestCodes nearest = nearest_codes(scale, scale);
        ASSERT_NE(nearest.smallest, 0x8000);
        const Elements made = make_nearest(256, scale, 5);
        BlockSums sums;
        if (sum_rows(made, 2, scale, nearest, sums)) {
            EXPECT_EQ(scale, 128.0F);
            expect_same(sums, by_definition(block_of(made, scale)), 2, 1e-6);
        }
    }
}

TEST(NearestCodes, AreTheSameFromTheCache) {
    NearestCodesCache cache;
    // Far more scales than places, and two loaded scales for each.
    for (int round = 0; round < 2; ++round) {
        for (int i = 0; i < 2000; ++i) {
            const auto own = static_cast<double>(0.001F + static_cast<float>(i) * 1e-5F);
            for (const double loaded : {own, 2.0 * own}) {
                const NearestCodes& found = cache.of(own, loaded);
                const NearestCodes expected = nearest_codes(own, loaded);
                ASSERT_EQ(found.smallest, expected.smallest);
                ASSERT_EQ(found.base, expected.base);
                ASSERT_EQ(found.last_of_base, expected.last_of_base);
                ASSERT_EQ(found.own_scale, own);
                ASSERT_EQ(found.loaded_scale, loaded);
                ASSERT_EQ(found.worst_ratio, expected.worst_ratio);
            }
        }
    }
}

TEST(NearestCodes, NeverSumAWrongCodeAsTheRightOne) {
    for (const float scale : kScales) {
        const NearestCodes nearest = nearest_codes(scale, scale);
        for (std::uint32_t seed = 0; seed < 30; ++seed) {
            Elements made = make_nearest(256, scale, 500 + seed);
            const std::size_t place = seed * 8 + seed % 8;
            const std::uint8_t right = made.codes[place];
            const double x = decode_bf16(made.source[place]);
            for (unsigned wrong = 0; wrong < 256; ++wrong) {
                made.codes[place] = static_cast<std::uint8_t>(wrong);
                BlockSums sums;
                if (!sum_rows(made, 2, scale, nearest, sums)) continue;
                expect_same(sums, by_definition(block_of(made, scale)), wrong, 1e-6);
                const double error = std::abs(decode_e4m3(made.codes[place]) * scale - x);
                EXPECT_EQ(sums.above,
                          error > std::max(std::abs(x) / 17.0, scale / 1024.0) * (1.0 + 1e-5))
                    << wrong;
            }
            made.codes[place] = right;
            // A source that the table takes for the right one modulo 128: 16 binades lower, higher.
            for (const int binades : {-16, 16}) {
                const std::uint16_t kept = made.source[place];
                made.source[place] = static_cast<std::uint16_t>(kept + binades * 128);
                BlockSums sums;
                EXPECT_TRUE(!sum_rows(made, 2, scale, nearest, sums) || sums.above ||
                            std::abs(x) < scale / 64.0)
                    << binades;
                made.source[place] = kept;
            }
        }
    }
}

TEST(NearestCodes, LeaveAloneWhatDoesNotSuitThem) {
    const float scale = 0.123F;
    const NearestCodes nearest = nearest_codes(scale, scale);
    const Elements made = make_nearest(2048, scale, 1);
    BlockSums sums;
    const double saturation = 448.0 * scale * (1.0 + 1e-5);
    EXPECT_FALSE(sum_nearest_rows(
        {made.source.data(), made.codes.data(), 16, 128, 128, 128, saturation, 1.1}, nearest,
        sums));  // too many additions
    EXPECT_FALSE(sum_nearest_rows(
        {made.source.data(), made.codes.data(), 2, 100, 128, 128, saturation, 1.1}, nearest, sums));
    EXPECT_FALSE(sum_nearest_rows(
        {made.source.data(), made.codes.data(), 2, 128, 128, 128, 0.5 * saturation, 1.1}, nearest,
        sums));  // some would be saturated
    EXPECT_FALSE(
        sum_nearest_rows({made.source.data(), made.codes.data(), 2, 128, 128, 128, saturation, 1.1},
                         nearest_codes(scale, 2.0 * scale), sums));  // no table
}

TEST(NearestCodes, AreNotMadeForScalesThatDifferOrAreNoNumbers) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const double infinity = std::numeric_limits<double>::infinity();
    EXPECT_NE(nearest_codes(0.01F, 0.01F).smallest, 0x8000);
    EXPECT_NE(nearest_codes(0.01, static_cast<double>(0.01F)).smallest, 0x8000);
    EXPECT_EQ(nearest_codes(0.01, 0.01).smallest, 0x8000);  // more bits than F32 has
    for (const auto& [own, loaded] : std::vector<std::pair<double, double>>{{0.01F, 0.02F},
                                                                            {0.0, 0.0},
                                                                            {nan, nan},
                                                                            {0.5, nan},
                                                                            {infinity, infinity},
                                                                            {-0.5, -0.5},
                                                                            {0x1p-60, 0x1p-60},
                                                                            {0x1p60, 0x1p60}}) {
        EXPECT_EQ(nearest_codes(own, loaded).smallest, 0x8000) << own << " " << loaded;
    }
}

}  // namespace
}  // namespace refit::checks
