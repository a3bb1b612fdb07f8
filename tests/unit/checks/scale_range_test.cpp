// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/scale_range.hpp"

#include <gtest/gtest.h>

#include <cfloat>
#include <cmath>
#include <limits>

namespace refit::checks {
namespace {

using core::DType;

// Codes of E4M3: 448, 1.0 (exponent field 7), -2^-9 (the smallest), and NaN.
constexpr std::byte k448{0x7E};
constexpr std::byte kOne{0x38};
constexpr std::byte kTiny{0x81};
constexpr std::byte kNan{0x7F};
constexpr std::byte kZero{0x00};
constexpr std::byte kMinusZero{0x80};

/// Two rows of three columns with one scale a row.
ScaleRange range_of(std::vector<std::byte> codes, std::vector<double> scales,
                    DType dtype = DType::f32) {
    const auto layout = scale_layout({2, 3}, DType::f32, {2, 1});
    EXPECT_TRUE(layout.has_value());
    return check_scale_range(codes, {2, 3}, dtype, scales, *layout);
}

TEST(ScaleRange, OverflowsWhereTheLargestCodeTimesTheScaleIsInfInBf16) {
    const std::vector<std::byte> codes = {kOne, kZero, kTiny, kOne, k448, kTiny};
    const ScaleRange range = range_of(codes, {1e-3, 3e38});
    EXPECT_EQ(range.overflowing, 1);
    EXPECT_EQ(range.first_overflowing, 1);
    EXPECT_EQ(range.largest_code, 448.0);
    EXPECT_EQ(range.subnormal, 0);
}

TEST(ScaleRange, LooksAtTheCodesUnderTheScaleAndAtNoOther) {
    // 3e38 itself is a BF16 number.
    EXPECT_EQ(range_of({kOne, kNan, kTiny, k448, k448, k448}, {3e38, 1.0}).overflowing, 0);
    EXPECT_EQ(range_of({kOne, kNan, kTiny, k448, k448, k448}, {1.0, 3e38}).overflowing, 1);
    EXPECT_EQ(range_of({kZero, kNan, kMinusZero, kOne, kOne, kOne}, {3e38, 1.0}).overflowing, 0);
}

TEST(ScaleRange, DrawsTheLineWhereRoundingToBf16Does) {
    // (2 - 2^-7) * 2^127 is the largest BF16 number; half a step above it the nearest is Inf.
    const double inf = 0x1.ffp127 / 448.0;
    const std::vector<std::byte> codes(6, k448);
    EXPECT_EQ(range_of(codes, {inf, 1.0}).overflowing, 1);
    EXPECT_EQ(range_of(codes, {std::nextafter(inf, 0.0) * (1.0 - 0x1p-50), 1.0}).overflowing, 0);
}

TEST(ScaleRange, CountsSubnormalScalesOverCodesThatAreNotZero) {
    const std::vector<std::byte> codes = {kTiny, kZero, kZero, kZero, kMinusZero, kZero};
    const ScaleRange range = range_of(codes, {1e-40, 1e-40});
    EXPECT_EQ(range.subnormal, 1);
    EXPECT_EQ(range.first_subnormal, 0);
    EXPECT_EQ(range_of(codes, {static_cast<double>(FLT_MIN), 1e-40}).subnormal, 0);
}

TEST(ScaleRange, TakesTheSmallestExponentOfE8m0ForWhatItIs) {
    EXPECT_FALSE(is_extreme_scale(DType::f8_e8m0, 0x1p-127));
    EXPECT_FALSE(is_extreme_scale(DType::u8, 0x1p-127));
    EXPECT_TRUE(is_extreme_scale(DType::f32, 0x1p-127));
    EXPECT_TRUE(is_extreme_scale(DType::u8, 0x1p127));
}

TEST(ScaleRange, LeavesNoNumbersAndNoScalesToOthers) {
    const double inf = std::numeric_limits<double>::infinity();
    for (const double value : {0.0, -0.0, -1e-40, -3e38, inf, -inf, std::nan("")}) {
        EXPECT_FALSE(is_extreme_scale(DType::f32, value)) << value;
    }
    EXPECT_FALSE(is_extreme_scale(DType::f32, 0.01));
}

}  // namespace
}  // namespace refit::checks
