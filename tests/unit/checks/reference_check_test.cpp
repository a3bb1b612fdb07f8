// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/reference_check.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

namespace refit::checks {
namespace {

using core::DType;

template <typename Element>
std::span<const std::byte> bytes_of(const std::vector<Element>& values) {
    return std::as_bytes(std::span(values));
}

std::uint16_t bf16_bits(float exact) {
    return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(exact) >> 16);
}

/// One row of codes with one scale against one row of values.
RoundTrip compare(const std::vector<std::uint8_t>& codes, double scale,
                  const std::vector<float>& values) {
    const auto cols = static_cast<std::int64_t>(codes.size());
    const ScaleLayout layout{"row", 1, cols, 1};
    return compare_codes({DType::f8_e4m3, bytes_of(codes), 1, cols}, std::vector<double>{scale},
                         layout, {DType::f32, bytes_of(values), 1, cols},
                         [](std::int64_t, std::int64_t) {});
}

// Codes from the format's definition: 0x38 is 1, 0x39 1.125, 0x40 2, 0x7E 448, 0x01 2^-9.

TEST(ReferenceCheck, AcceptsTheNearestCodeAndBothAtATie) {
    const RoundTrip trip = compare({0x38, 0x38, 0x39, 0x01, 0x7E, 0x00}, 1.0,
                                   {1.0F, 1.0625F, 1.0625F, 0x1.7p-9F, 448.0F, 0x1p-10F});
    EXPECT_EQ(trip.elements, 6);
    EXPECT_EQ(trip.beyond, 0);
    EXPECT_EQ(trip.unlike, 0);
}

TEST(ReferenceCheck, SeesACodeThatIsLegalButNotTheNearest) {
    // 1.08 lies nearer to 1.125; 1 is off by 7.4 %, 1.03 as 1.125 by 9.2 %.
    const RoundTrip near = compare({0x38, 0x7E}, 1.0, {1.066F, 448.0F});
    EXPECT_EQ(near.beyond, 0);
    EXPECT_EQ(near.unlike, 1);
    EXPECT_EQ(near.first_unlike, 0);
    const RoundTrip far = compare({0x39, 0x7E}, 1.0, {1.03F, 448.0F});
    EXPECT_EQ(far.beyond, 1);
    EXPECT_EQ(far.first_beyond, 0);
    EXPECT_EQ(far.loaded, 1.125);
}

TEST(ReferenceCheck, FindsOneWrongElementAnywhere) {
    for (const std::size_t at : {0UL, 15UL, 16UL, 1023UL, 1024UL, 2999UL}) {
        std::vector<std::uint8_t> codes(3000, 0x38);
        codes[at] = 0xB8;  // the sign
        const RoundTrip trip = compare(codes, 0.5, std::vector<float>(3000, 0.5F));
        EXPECT_EQ(trip.beyond, 1) << at;
        EXPECT_EQ(trip.first_beyond, static_cast<std::int64_t>(at));
        EXPECT_EQ(trip.loaded, -0.5);
        EXPECT_EQ(trip.sum_error2, 1.0);
    }
}

TEST(ReferenceCheck, RefusesScalesThatAreMuchTooCoarse) {
    // The tile's amax is 1; a scale of 1/448 holds it, twice that is a power of two at worst.
    const std::vector<float> values = {1.0F, 0.001F};
    EXPECT_EQ(compare({0x76, 0x26}, 2.0 / 448, values).beyond, 0);
    // With 1.0 as the scale, 0.001 is half the smallest code: nearest, but all bits are lost.
    const RoundTrip coarse = compare({0x38, 0x01}, 1.0, values);
    EXPECT_EQ(coarse.beyond, 1);
    EXPECT_EQ(coarse.first_beyond, 1);
}

TEST(ReferenceCheck, AcceptsTheFloorsOfRecipesForTinyTiles) {
    // An amax floor of 1e-4 turns values of 1e-12 into zeros.
    EXPECT_EQ(compare({0x00, 0x00}, 1e-4 / 448, {1e-12F, -1e-12F}).beyond, 0);
}

TEST(ReferenceCheck, TellsClippingFromWrongValues) {
    const RoundTrip clipped = compare({0x7E, 0x38}, 1.0, {520.0F, 1.0F});
    EXPECT_EQ(clipped.beyond, 1);
    EXPECT_EQ(clipped.clipped, 1);
    EXPECT_EQ(compare({0x7E, 0x38}, 1.0, {900.0F, 1.0F}).clipped, 0);
    EXPECT_EQ(compare({0xFE, 0x38}, 1.0, {520.0F, 1.0F}).clipped, 0);
}

TEST(ReferenceCheck, LeavesOutWhatIsAFindingByItself) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const RoundTrip trip = compare({0x7F, 0x38, 0x38}, 1.0, {1.0F, nan, 1.0F});
    EXPECT_EQ(trip.elements, 1);
    EXPECT_EQ(trip.beyond, 0);
    EXPECT_EQ(compare({0x38}, -1.0, {1.0F}).elements, 0);
    EXPECT_EQ(compare({0x38}, 0.0, {1.0F}).beyond, 1) << "zero is a scale, and a wrong one";
}

TEST(ReferenceCheck, UsesTheScaleOfEachBlockOfARaggedMatrix) {
    // [130, 129]: two by two blocks with scales 1, 2, 4, 8; every code is 1.
    const std::int64_t rows = 130;
    const std::int64_t cols = 129;
    const std::vector<std::uint8_t> codes(static_cast<std::size_t>(rows * cols), 0x38);
    std::vector<std::uint16_t> values;
    for (std::int64_t row = 0; row < rows; ++row) {
        for (std::int64_t col = 0; col < cols; ++col) {
            values.push_back(
                bf16_bits(static_cast<float>((row < 128 ? 1 : 4) * (col < 128 ? 1 : 2))));
        }
    }
    const auto layout = scale_layout({rows, cols}, DType::f32, {2, 2});
    std::int64_t done = 0;
    const auto trip = compare_codes({DType::f8_e4m3, bytes_of(codes), rows, cols},
                                    std::vector<double>{1.0, 2.0, 4.0, 8.0}, *layout,
                                    {DType::bf16, bytes_of(values), rows, cols},
                                    [&](std::int64_t begin, std::int64_t end) {
                                        EXPECT_EQ(begin, done);
                                        done = end;
                                    });
    EXPECT_EQ(trip.elements, rows * cols);
    EXPECT_EQ(trip.beyond, 0);
    EXPECT_EQ(trip.sum_error2, 0.0);
    EXPECT_EQ(done, rows);
}

TEST(ReferenceCheck, ComparesRawTensorsByBytesAndOtherDtypesByValue) {
    const std::vector<std::uint16_t> stored = {bf16_bits(1.0F), bf16_bits(-0.0F)};
    const std::vector<std::uint16_t> source = {bf16_bits(1.0F), bf16_bits(0.0F)};
    RawDifference bytes;
    compare_raw(DType::bf16, bytes_of(stored), DType::bf16, bytes_of(source), 10, bytes);
    EXPECT_EQ(bytes.differing, 1) << "-0 is another byte";
    EXPECT_EQ(bytes.first, 11);
    // 1 + 2^-8 lies halfway between 1 and 1 + 2^-7: to even, 1; a bit more goes up.
    RawDifference values;
    compare_raw(DType::bf16, bytes_of(stored), DType::f32,
                bytes_of(std::vector<float>{1.0F + 0x1p-8F, 0.0F}), 0, values);
    EXPECT_EQ(values.differing, 0);
    compare_raw(DType::bf16, bytes_of(stored), DType::f32,
                bytes_of(std::vector<float>{1.0F + 0x1.1p-8F, 0.0F}), 0, values);
    EXPECT_EQ(values.differing, 1);
    EXPECT_EQ(values.first, 0);
}

}  // namespace
}  // namespace refit::checks
