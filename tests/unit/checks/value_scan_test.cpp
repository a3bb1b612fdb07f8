// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/value_scan.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

namespace refit::checks {
namespace {

using core::DType;

template <typename Word>
ValueCounts counts_of(DType dtype, const std::vector<Word>& words,
                      ValueKind kind = ValueKind::plain) {
    // One byte further on, as after a header of odd length.
    std::vector<std::byte> bytes(words.size() * sizeof(Word) + 1);
    std::memcpy(bytes.data() + 1, words.data(), words.size() * sizeof(Word));
    ValueCounts counts;
    scan_values(dtype, kind, std::span(bytes).subspan(1), 100, counts);
    return counts;
}

TEST(ValueScan, FindsBothNanCodesOfE4m3AndNothingElse) {
    std::vector<std::uint8_t> all(256);
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint8_t>(i);
    const ValueCounts counts = counts_of(DType::f8_e4m3, all);
    EXPECT_EQ(counts.nan, 2);
    EXPECT_EQ(counts.inf, 0);
    EXPECT_EQ(counts.first_nonfinite, 100 + 0x7F);
    EXPECT_TRUE(std::isnan(counts.first_nonfinite_value));
}

// ONNX, "Float stored in 8 bits": the values of both formats, and ml_dtypes has the same ones.
TEST(ValueScan, KnowsTheFormatsWithAnUnsignedZero) {
    std::vector<std::uint8_t> all(256);
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint8_t>(i);
    for (const DType dtype : {DType::f8_e4m3fnuz, DType::f8_e5m2fnuz}) {
        const ValueCounts counts = counts_of(dtype, all);
        EXPECT_EQ(counts.nan, 1);
        EXPECT_EQ(counts.inf, 0);
        EXPECT_EQ(counts.first_nonfinite, 100 + 0x80);
    }
    const auto value = [&all](DType dtype, std::size_t code) {
        return value_at(dtype, ValueKind::plain, std::as_bytes(std::span(all)), code);
    };
    EXPECT_EQ(value(DType::f8_e4m3fnuz, 0x01), 0x1p-10);
    EXPECT_EQ(value(DType::f8_e4m3fnuz, 0x07), 7 * 0x1p-10);
    EXPECT_EQ(value(DType::f8_e4m3fnuz, 0x08), 0x1p-7);
    EXPECT_EQ(value(DType::f8_e4m3fnuz, 0x40), 1.0);
    EXPECT_EQ(value(DType::f8_e4m3fnuz, 0xFF), -240.0);
    EXPECT_EQ(value(DType::f8_e5m2fnuz, 0x01), 0x1p-17);
    EXPECT_EQ(value(DType::f8_e5m2fnuz, 0x40), 1.0);
    EXPECT_EQ(value(DType::f8_e5m2fnuz, 0x7F), 57344.0);
}

TEST(ValueScan, LooksAtBothPartsOfAComplexNumber) {
    const float inf = std::numeric_limits<float>::infinity();
    const ValueCounts counts = counts_of<float>(DType::c64, {1, 2, 3, inf, 5, 6});
    EXPECT_EQ(counts.inf, 1);
    EXPECT_EQ(counts.first_nonfinite, 101);
}

TEST(ValueScan, FindsNothingInTypesOfLessThanAByte) {
    for (const DType dtype : {DType::f4, DType::f6_e2m3, DType::f6_e3m2}) {
        const ValueCounts counts = counts_of<std::uint8_t>(dtype, {0xFF, 0x7F, 0x80});
        EXPECT_EQ(counts.nonfinite(), 0);
    }
}

TEST(ValueScan, CountsScalesThatAreTooSmallOrTooLarge) {
    const std::vector<float> scales = {0.01F, 1e-40F, 1e-37F, 3e38F, 0.0F};
    const ValueCounts counts = counts_of(DType::f32, scales, ValueKind::scale);
    EXPECT_EQ(counts.extreme, 2);
    EXPECT_EQ(counts.first_extreme, 101);
    EXPECT_EQ(counts.zero, 1);
    EXPECT_EQ(counts_of(DType::f32, scales).extreme, 0);
}

TEST(ValueScan, FindsEveryNanAndInfOfTheSixteenBitFormats) {
    std::vector<std::uint16_t> all(65536);
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint16_t>(i);
    // The exponent is all ones in 2^8 (BF16: 7 bits of mantissa and the sign) or 2^11 patterns, two
    // of which are infinities.
    const ValueCounts bf16 = counts_of(DType::bf16, all);
    EXPECT_EQ(bf16.nan, 256 - 2);
    EXPECT_EQ(bf16.inf, 2);
    EXPECT_EQ(bf16.first_nonfinite, 100 + 0x7F80);
    const ValueCounts f16 = counts_of(DType::f16, all);
    EXPECT_EQ(f16.nan, 2048 - 2);
    EXPECT_EQ(f16.inf, 2);
    EXPECT_EQ(f16.first_nonfinite, 100 + 0x7C00);
}

TEST(ValueScan, FindsOneElementAnywhereInALongStretch) {
    for (const std::size_t at : {0UL, 4095UL, 4096UL, 9999UL}) {
        std::vector<float> values(10000, 1.0F);
        values[at] = std::numeric_limits<float>::infinity();
        const ValueCounts counts = counts_of(DType::f32, values);
        EXPECT_EQ(counts.inf, 1) << at;
        EXPECT_EQ(counts.first_nonfinite, 100 + static_cast<std::int64_t>(at));
    }
    EXPECT_EQ(counts_of(DType::f32, std::vector<float>(10000, 3e38F)).nonfinite(), 0);
}

TEST(ValueScan, CountsZeroAndNegativeScalesApart) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> scales = {1.0F, -0.0F, nan, 0.0F, -2.0F, 1e-45F, -INFINITY};
    const ValueCounts counts = counts_of(DType::f32, scales, ValueKind::scale);
    EXPECT_EQ(counts.zero, 2);
    EXPECT_EQ(counts.negative, 1);
    EXPECT_EQ(counts.nan, 1);
    EXPECT_EQ(counts.inf, 1);
    EXPECT_EQ(counts.first_nonpositive, 101);
    EXPECT_EQ(counts_of(DType::f32, scales).nonpositive(), 0) << "weights may be zero";
}

TEST(ValueScan, ReadsBytesOfScalesAsPowersOfTwo) {
    const ValueCounts counts =
        counts_of(DType::u8, std::vector<std::uint8_t>{0, 127, 254, 255}, ValueKind::scale);
    EXPECT_EQ(counts.nan, 1);
    EXPECT_EQ(counts.first_nonfinite, 103);
    EXPECT_EQ(counts.nonpositive(), 0);
    EXPECT_EQ(counts_of(DType::u8, std::vector<std::uint8_t>{255}).nan, 0) << "a whole number";
}

TEST(ValueScan, DecodesHalfPrecisionAsTheStandardHasIt) {
    const auto value = [](std::uint16_t bits) {
        std::byte bytes[2];
        std::memcpy(bytes, &bits, 2);
        return value_at(DType::f16, ValueKind::plain, bytes, 0);
    };
    EXPECT_EQ(value(0x3C00), 1.0);
    EXPECT_EQ(value(0x7BFF), 65504.0);
    EXPECT_EQ(value(0x0001), 0x1p-24);
    EXPECT_EQ(value(0x0400), 0x1p-14);
    EXPECT_EQ(value(0xC000), -2.0);
    EXPECT_EQ(value(0xFC00), -std::numeric_limits<double>::infinity());
}

}  // namespace
}  // namespace refit::checks
