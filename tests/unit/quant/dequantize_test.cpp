// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "quant/dequantize.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <utility>
#include <vector>

namespace refit::quant {
namespace {

/// The number of an E4M3FN code, by its definition.
double decoded(std::uint8_t code) {
    const int exponent = (code >> 3) & 0xf;
    const int mantissa = code & 7;
    const double sign = (code & 0x80) != 0 ? -1.0 : 1.0;
    if ((code & 0x7f) == 0x7f) return std::numeric_limits<double>::quiet_NaN();
    if (exponent == 0) return sign * std::ldexp(mantissa, -9);
    return sign * std::ldexp(8 + mantissa, exponent - 10);
}

/// The nearest BF16 of an F32, ties to even, from the three candidates around it.
std::uint16_t nearest_bf16(float value) {
    if (std::isnan(value)) return 0x7fc0;
    if (std::isinf(value)) return value > 0 ? 0x7f80 : 0xff80;
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
    const auto down = static_cast<std::uint16_t>(bits >> 16);
    const auto up = static_cast<std::uint16_t>(down + 1);
    const double low = std::bit_cast<float>(std::uint32_t{down} << 16);
    double high = std::bit_cast<float>(std::uint32_t{up} << 16);
    // Beyond the largest BF16 comes the number that would be next, which is stored as Inf.
    if (std::isinf(high)) high = std::copysign(0x1p128, value);
    const double below = std::abs(value - low);
    const double above = std::abs(high - value);
    if (below == above) return down % 2 == 0 ? down : up;
    return below < above ? down : up;
}

struct Made {
    std::vector<std::uint8_t> codes;
    std::vector<float> scales;
    CodedMatrix matrix;
};

Made make(std::int64_t rows, std::int64_t cols, std::int64_t tile_rows, std::int64_t tile_cols,
          const std::vector<float>& scales) {
    Made made;
    std::mt19937 random(static_cast<unsigned>(rows * 1000 + cols));
    for (std::int64_t i = 0; i < rows * cols; ++i)
        made.codes.push_back(static_cast<std::uint8_t>(random()));
    const std::int64_t tiles =
        ((rows + tile_rows - 1) / tile_rows) * ((cols + tile_cols - 1) / tile_cols);
    for (std::int64_t t = 0; t < tiles; ++t)
        made.scales.push_back(scales[static_cast<std::size_t>(t) % scales.size()]);
    made.matrix = {made.codes.data(), made.scales.data(), rows, cols, tile_rows, tile_cols};
    return made;
}

void expect_products(const Made& made) {
    const CodedMatrix& matrix = made.matrix;
    std::vector<float> f32(made.codes.size());
    std::vector<std::uint16_t> bf16(made.codes.size());
    const std::int64_t bad_f32 = dequantize_f32(matrix, f32.data());
    const std::int64_t bad_bf16 = dequantize_bf16(matrix, bf16.data());
    std::int64_t expected_bad_f32 = 0;
    std::int64_t expected_bad_bf16 = 0;
    const std::int64_t across = (matrix.cols + matrix.tile_cols - 1) / matrix.tile_cols;
    for (std::int64_t row = 0; row < matrix.rows; ++row) {
        for (std::int64_t col = 0; col < matrix.cols; ++col) {
            const auto i = static_cast<std::size_t>(row * matrix.cols + col);
            const auto tile =
                static_cast<std::size_t>(row / matrix.tile_rows * across + col / matrix.tile_cols);
            // The product of 4 and 24 bits is exact in double: one rounding to F32.
            const auto value =
                static_cast<float>(decoded(made.codes[i]) * static_cast<double>(made.scales[tile]));
            const std::uint32_t bits =
                std::isnan(value) ? 0x7fc00000U : std::bit_cast<std::uint32_t>(value);
            ASSERT_EQ(std::bit_cast<std::uint32_t>(f32[i]), bits) << row << " " << col;
            ASSERT_EQ(bf16[i], nearest_bf16(value)) << row << " " << col;
            expected_bad_f32 += std::isfinite(value) ? 0 : 1;
            expected_bad_bf16 += (bf16[i] & 0x7f80U) == 0x7f80U ? 1 : 0;
        }
    }
    EXPECT_EQ(bad_f32, expected_bad_f32);
    EXPECT_EQ(bad_bf16, expected_bad_bf16);
}

TEST(Dequantize, GivesTheRoundedProductForEveryKindOfTile) {
    const std::vector<float> scales = {0.0031415927F, 0x1p-9F, 1.0F, 0.12345F, 7.5e-5F};
    for (const auto& [tile_rows, tile_cols] : std::vector<std::pair<std::int64_t, std::int64_t>>{
             {128, 128}, {1, 32}, {1, 300}, {257, 300}, {64, 16}}) {
        expect_products(make(257, 300, tile_rows, tile_cols, scales));
    }
    expect_products(make(130, 20 * 128 + 5, 128, 128, scales));  // more tiles than tables at once
    expect_products(make(1, 1, 128, 128, scales));
}

TEST(Dequantize, CountsWhatScalesMakeOfFiniteCodes) {
    const float infinity = std::numeric_limits<float>::infinity();
    // 3.4e38 / 448 and more: some or all codes leave the range of F32, or of BF16 alone.
    const std::vector<float> scales = {infinity, std::nanf(""), 7.6e35F, 7.595e35F, 1e36F,
                                       -1.0F,    0.0F,          1e-45F,  3e38F};
    expect_products(make(256, 9 * 128, 128, 128, scales));
    expect_products(make(8, 9 * 32, 1, 32, scales));
}

TEST(Dequantize, TakesAMatrixWithoutElements) {
    const CodedMatrix none{nullptr, nullptr, 0, 0, 128, 128};
    EXPECT_EQ(dequantize_f32(none, nullptr), 0);
    EXPECT_EQ(dequantize_bf16(none, nullptr), 0);
}

}  // namespace
}  // namespace refit::quant
