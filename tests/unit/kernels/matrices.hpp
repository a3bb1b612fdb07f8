// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Matrices that the tests of backends quantize, and the comparison of two results.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/backend.hpp"

namespace refit::kernels {

struct Matrix {
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    std::vector<std::uint16_t> values;

    [[nodiscard]] Band band(std::int64_t begin, std::int64_t count) const {
        Band result;
        result.data = values.data() + begin * cols;
        result.row_stride = cols;
        result.row_begin = begin;
        result.row_count = count;
        result.rows = rows;
        result.cols = cols;
        result.last_element_bits =
            values.empty() ? 0U : static_cast<std::uint32_t>(values.back() & 0x7fffU) << 16;
        return result;
    }
    [[nodiscard]] Band whole() const { return band(0, rows); }
};

struct Quantized {
    std::vector<std::uint32_t> amax_bits;
    std::vector<float> scale_inv;
    std::vector<std::uint8_t> codes;

    [[nodiscard]] std::vector<std::uint32_t> scale_bits() const {
        std::vector<std::uint32_t> bits;
        for (const float scale : scale_inv) {
            bits.push_back(std::bit_cast<std::uint32_t>(scale));
        }
        return bits;
    }
};

[[nodiscard]] inline Quantized quantize(const Backend& backend,
                                        const numerics::TileScaling& scaling,
                                        const Matrix& matrix) {
    const TileGrid grid = tile_grid(scaling, matrix.rows, matrix.cols);
    const auto tiles = static_cast<std::size_t>(grid.grid_rows * grid.grid_cols);
    // The amax is an output: what was in the span before must not matter.
    Quantized result{std::vector<std::uint32_t>(tiles, 0x7f7f0000U),
                     std::vector<float>(tiles, -1.0F),
                     std::vector<std::uint8_t>(matrix.values.size(), 0x55)};
    backend.quantize(scaling, matrix.whole(), result.amax_bits, result.scale_inv,
                     result.codes.data(), matrix.cols, {});
    return result;
}

enum class Fill {
    gaussian,
    bit_patterns,   ///< every finite magnitude
    wide,           ///< 32 binades around one: codes of all sizes, many subnormal
    zeros,          ///< of both signs
    subnormal,      ///< of BF16
    special,        ///< gaussian with some Inf and NaN
    outliers,       ///< gaussian with some elements up to 2^12 times as large
    power_borders,  ///< powers of two and their neighbours: amax on the borders of a scale's binade
    zero_tiles,     ///< gaussian with stretches of zeros
};

[[nodiscard]] inline Matrix make_matrix(std::int64_t rows, std::int64_t cols, Fill fill,
                                        std::uint32_t seed) {
    Matrix matrix{rows, cols, std::vector<std::uint16_t>(static_cast<std::size_t>(rows * cols))};
    std::mt19937 random(seed);
    // Sums of four uniform numbers are Gaussian enough, and the values do not depend on the
    // standard library.
    const auto gaussian_bits = [](std::mt19937& source) {
        int sum = -131'070;
        for (int word = 0; word < 2; ++word) {
            const auto bits = static_cast<std::uint32_t>(source());
            sum += static_cast<int>(bits & 0xffffU) + static_cast<int>(bits >> 16);
        }
        return static_cast<std::uint16_t>(
            std::bit_cast<std::uint32_t>(static_cast<float>(sum) * 0x1p-20F) >> 16);
    };
    std::int64_t index = 0;
    for (std::uint16_t& value : matrix.values) {
        const auto bits = static_cast<std::uint16_t>(random());
        switch (fill) {
            case Fill::gaussian:
                value = gaussian_bits(random);
                break;
            case Fill::bit_patterns:
                value =
                    (bits & 0x7f80U) == 0x7f80U ? static_cast<std::uint16_t>(bits & 0x80ffU) : bits;
                break;
            case Fill::wide:
                value = static_cast<std::uint16_t>((bits & 0x8fffU) | 0x3000U);
                break;
            case Fill::zeros:
                value = static_cast<std::uint16_t>(bits & 0x8000U);
                break;
            case Fill::subnormal:
                value = static_cast<std::uint16_t>(bits & 0x80ffU);
                break;
            case Fill::special:
                value = gaussian_bits(random);
                if (random() % 4096 == 0) {
                    value = static_cast<std::uint16_t>(0x7f80U | (bits & 0x8000U) |
                                                       ((bits & 1U) != 0 ? 0x41U : 0U));
                }
                break;
            case Fill::outliers:
                value = gaussian_bits(random);
                if (random() % 8192 == 0) {
                    value = static_cast<std::uint16_t>(value + ((random() % 13) << 7));
                }
                break;
            case Fill::power_borders:
                value = static_cast<std::uint16_t>((bits & 0x8000U) + (120U << 7) +
                                                   ((bits & 7U) << 7) + (random() % 3) - 1U);
                break;
            case Fill::zero_tiles:
                value = (index++ / 700) % 3 == 0 ? static_cast<std::uint16_t>(bits & 0x8000U)
                                                 : gaussian_bits(random);
                break;
        }
    }
    return matrix;
}

/// The rows of a matrix before `rows`.
[[nodiscard]] inline Matrix first_rows(const Matrix& matrix, std::int64_t rows) {
    Matrix part = matrix;
    part.rows = std::min(rows, matrix.rows);
    part.values.resize(static_cast<std::size_t>(part.rows * part.cols));
    return part;
}

inline void expect_equal(const Quantized& found, const Quantized& expected,
                         const std::string& what) {
    ASSERT_EQ(found.amax_bits, expected.amax_bits) << what;
    ASSERT_EQ(found.scale_bits(), expected.scale_bits()) << what;
    const auto difference =
        std::mismatch(found.codes.begin(), found.codes.end(), expected.codes.begin());
    ASSERT_TRUE(difference.first == found.codes.end())
        << what << ": code " << difference.first - found.codes.begin() << " is "
        << static_cast<int>(*difference.first) << ", expected "
        << static_cast<int>(*difference.second);
}

}  // namespace refit::kernels
