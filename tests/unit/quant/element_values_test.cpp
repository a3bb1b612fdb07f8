// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Elements against the arithmetic of their formats in double: sign, power of two, fraction.
#include "quant/element_values.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/error.hpp"

namespace refit::quant {
namespace {

using core::DType;

struct Format {
    DType dtype;
    int exponent_bits;
    int mantissa_bits;
    bool has_inf;
};

/// The number that a pattern stands for by IEEE 754's rules; E4M3 has no Inf and one NaN.
double value_of(const Format& format, unsigned pattern) {
    const unsigned steps = 1U << format.mantissa_bits;
    const unsigned mantissa = pattern % steps;
    const unsigned top = (1U << format.exponent_bits) - 1;
    const unsigned exponent = pattern / steps % (top + 1);
    const bool negative = pattern / steps / (top + 1) != 0;
    const int bias = (1 << (format.exponent_bits - 1)) - 1;
    const double fraction = static_cast<double>(mantissa) / steps;
    double magnitude = exponent == 0
                           ? fraction * std::exp2(1 - bias)
                           : (1.0 + fraction) * std::exp2(static_cast<int>(exponent) - bias);
    if (format.has_inf && exponent == top)
        magnitude = mantissa == 0 ? std::numeric_limits<double>::infinity()
                                  : std::numeric_limits<double>::quiet_NaN();
    if (!format.has_inf && exponent == top && mantissa == steps - 1)
        magnitude = std::numeric_limits<double>::quiet_NaN();
    return negative ? -magnitude : magnitude;
}

void expect_number(float found, double expected, unsigned pattern) {
    if (std::isnan(expected)) {
        EXPECT_TRUE(std::isnan(found)) << pattern;
        return;
    }
    EXPECT_EQ(static_cast<double>(found), expected) << pattern;
    EXPECT_EQ(std::signbit(found), std::signbit(expected)) << pattern;
}

/// Reads all patterns of `bytes` bytes from an odd address.
std::vector<float> all_values(DType dtype, std::size_t bytes) {
    const std::size_t count = std::size_t{1} << (8 * bytes);
    std::vector<std::byte> memory(1 + count * bytes);
    for (std::size_t i = 0; i < count; ++i) std::memcpy(&memory[1 + i * bytes], &i, bytes);
    std::vector<float> values(count);
    read_values(dtype, memory.data() + 1, static_cast<std::int64_t>(count), values.data());
    return values;
}

TEST(ElementValues, AreThoseOfTheirFormatForEveryPattern) {
    const Format formats[] = {
        {DType::f16, 5, 10, true}, {DType::bf16, 8, 7, true}, {DType::f8_e4m3, 4, 3, false}};
    for (const Format& format : formats) {
        const std::size_t bytes = format.dtype == DType::f8_e4m3 ? 1 : 2;
        const std::vector<float> values = all_values(format.dtype, bytes);
        for (unsigned pattern = 0; pattern < values.size(); ++pattern)
            expect_number(values[pattern], value_of(format, pattern), pattern);
    }
}

TEST(ElementValues, ArePowersOfTwoForExponentBytes) {
    for (const DType dtype : {DType::f8_e8m0, DType::u8}) {
        const std::vector<float> values = all_values(dtype, 1);
        EXPECT_EQ(std::bit_cast<std::uint32_t>(values[0]), 0x00400000U);  // 2^-127 is subnormal
        for (unsigned byte = 0; byte < 255; ++byte)
            expect_number(values[byte], std::exp2(static_cast<int>(byte) - 127), byte);
        EXPECT_TRUE(std::isnan(values[255]));
    }
}

TEST(ElementValues, KeepEveryBitOfF32) {
    const std::uint32_t bits[] = {0U, 0x80000000U, 1U, 0x7f800001U, 0xffffffffU, 0x3f800001U};
    float values[6];
    read_values(DType::f32, reinterpret_cast<const std::byte*>(bits), 6, values);
    std::byte written[sizeof bits + 1];
    write_values(DType::f32, values, 6, written + 1);
    EXPECT_EQ(std::memcmp(written + 1, bits, sizeof bits), 0);
}

TEST(ElementValues, RoundToTheNearestEvenBf16) {
    // Around every 16-bit pattern of both signs: on it, just above, at the tie and around it.
    const Format format{DType::bf16, 8, 7, true};
    std::vector<float> values;
    std::vector<unsigned> expected;
    for (unsigned sign : {0U, 0x8000U}) {
        for (unsigned pattern = sign; pattern < sign + 0x7f80U; ++pattern) {
            const unsigned even = pattern + (pattern & 1U);
            const unsigned low[] = {0U, 1U, 0x7fffU, 0x8000U, 0x8001U, 0xffffU};
            const unsigned nearest[] = {pattern, pattern, pattern, even, pattern + 1, pattern + 1};
            for (int i = 0; i < 6; ++i) {
                values.push_back(std::bit_cast<float>(pattern << 16 | low[i]));
                expected.push_back(nearest[i]);
            }
        }
    }
    std::vector<std::byte> written(2 * values.size());
    write_values(DType::bf16, values.data(), static_cast<std::int64_t>(values.size()),
                 written.data());
    for (std::size_t i = 0; i < values.size(); ++i) {
        std::uint16_t found;
        std::memcpy(&found, &written[2 * i], sizeof found);
        ASSERT_EQ(found, expected[i]) << values[i];
        // No other number of the format is nearer.
        const double off = std::fabs(value_of(format, found) - static_cast<double>(values[i]));
        if (found % 0x8000U == 0U || found % 0x8000U >= 0x7f7fU) continue;
        for (const unsigned neighbour : {found - 1U, found + 1U}) {
            ASSERT_LE(off, std::fabs(value_of(format, neighbour) - static_cast<double>(values[i])));
        }
    }
}

TEST(ElementValues, StayNanInBf16WhateverItsPayload) {
    for (const std::uint32_t bits : {0x7f800001U, 0xff800001U, 0x7fffffffU, 0xffffffffU}) {
        float value;
        std::memcpy(&value, &bits, sizeof value);
        std::uint16_t found = 0;
        write_values(DType::bf16, &value, 1, reinterpret_cast<std::byte*>(&found));
        EXPECT_TRUE(std::isnan(value_of({DType::bf16, 8, 7, true}, found))) << bits;
    }
}

TEST(ElementValues, OfATypeWithoutThemAreRefusedByName) {
    float value = 0.0F;
    std::byte bytes[8] = {};
    try {
        read_values(DType::i16, bytes, 1, &value);
        FAIL() << "I16 was read as a number";
    } catch (const core::ShapeError& error) {
        EXPECT_THAT(error.what(), testing::HasSubstr("reading elements of I16: expected F32"));
    }
    try {
        write_values(DType::f16, &value, 1, bytes);
        FAIL() << "F16 was written";
    } catch (const core::ShapeError& error) {
        EXPECT_THAT(error.what(), testing::HasSubstr("writing elements of F16: expected F32 or"));
    }
}

}  // namespace
}  // namespace refit::quant
