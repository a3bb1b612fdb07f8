// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/element_block.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "checks/decode.hpp"

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
        double quotient = x / block.own_scale;
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

void expect_same(const BlockSums& found, const BlockSums& expected, std::int64_t count) {
    EXPECT_NEAR(found.x2, expected.x2, 1e-13 * expected.x2) << count;
    EXPECT_NEAR(found.error2, expected.error2, 1e-13 * expected.error2) << count;
    // Its terms have both signs: what they may cancel to is measured by their size.
    EXPECT_NEAR(found.x_error, expected.x_error, 1e-13 * std::sqrt(expected.x2 * expected.error2))
        << count;
    EXPECT_NEAR(found.expected_error2, expected.expected_error2, 1e-13 * expected.expected_error2)
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
                        const ElementBlock block{made.source.data(),
                                                 made.codes.data(),
                                                 count,
                                                 own_scale * 1.25,
                                                 own_scale,
                                                 round,
                                                 30.0,
                                                 threshold};
                        expect_same(sum_block(block), by_definition(block), count);
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

}  // namespace
}  // namespace refit::checks
