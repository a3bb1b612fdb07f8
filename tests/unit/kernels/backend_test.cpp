// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "kernels/backend.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "quant/recipe.hpp"

namespace refit::kernels {
namespace {

using numerics::TileScaling;

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

Quantized quantize(const Backend& backend, const TileScaling& scaling, const Matrix& matrix) {
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

enum class Fill { gaussian, bit_patterns, wide, zeros, subnormal, special };

Matrix make_matrix(std::int64_t rows, std::int64_t cols, Fill fill, std::uint32_t seed) {
    Matrix matrix{rows, cols, std::vector<std::uint16_t>(static_cast<std::size_t>(rows * cols))};
    std::mt19937 random(seed);
    std::normal_distribution<float> gaussian(0.0F, 0.02F);
    for (std::uint16_t& value : matrix.values) {
        const auto bits = static_cast<std::uint16_t>(random());
        switch (fill) {
            case Fill::gaussian:
                value = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(gaussian(random)) >>
                                                   16);
                break;
            case Fill::bit_patterns:  // every finite magnitude
                value =
                    (bits & 0x7f80U) == 0x7f80U ? static_cast<std::uint16_t>(bits & 0x80ffU) : bits;
                break;
            case Fill::wide:  // 32 binades around one: codes of all sizes, many subnormal
                value = static_cast<std::uint16_t>((bits & 0x8fffU) | 0x3000U);
                break;
            case Fill::zeros:
                value = static_cast<std::uint16_t>(bits & 0x8000U);
                break;
            case Fill::subnormal:
                value = static_cast<std::uint16_t>(bits & 0x80ffU);
                break;
            case Fill::special:
                value = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(gaussian(random)) >>
                                                   16);
                if (random() % 4096 == 0) {
                    value = static_cast<std::uint16_t>(0x7f80U | (bits & 0x8000U) |
                                                       ((bits & 1U) != 0 ? 0x41U : 0U));
                }
                break;
        }
    }
    return matrix;
}

void expect_equal(const Quantized& found, const Quantized& expected, const std::string& what) {
    ASSERT_EQ(found.amax_bits, expected.amax_bits) << what;
    ASSERT_EQ(found.scale_bits(), expected.scale_bits()) << what;
    const auto difference =
        std::mismatch(found.codes.begin(), found.codes.end(), expected.codes.begin());
    ASSERT_TRUE(difference.first == found.codes.end())
        << what << ": code " << difference.first - found.codes.begin() << " is "
        << static_cast<int>(*difference.first) << ", expected "
        << static_cast<int>(*difference.second);
}

class Avx2Backend : public ::testing::Test {
 protected:
    void SetUp() override {
        if (avx2 == nullptr) {
            for (const BackendRow& row : backend_rows()) {
                if (row.name == "avx2") {
                    GTEST_SKIP() << "avx2: " << row.reason;
                }
            }
        }
    }
    const Backend* avx2 = find_backend("avx2");
    const Backend* portable = find_backend("portable");
};

TEST_F(Avx2Backend, EqualsPortableOnAMillionElementsOfEveryRecipe) {
    const std::vector<std::int64_t> sides = {1, 127, 128, 129, 255, 257, 1000};
    for (const quant::Recipe& recipe : quant::recipe_catalog()) {
        std::int64_t compared = 0;
        std::uint32_t seed = 1;
        for (const std::int64_t rows : sides) {
            for (const std::int64_t cols : sides) {
                const Matrix matrix = make_matrix(rows, cols, Fill::gaussian, seed++);
                expect_equal(quantize(*avx2, recipe.scaling, matrix),
                             quantize(*portable, recipe.scaling, matrix),
                             recipe.name + " " + std::to_string(rows) + "x" + std::to_string(cols));
                compared += rows * cols;
            }
        }
        EXPECT_GT(compared, 1'000'000);
    }
}

TEST_F(Avx2Backend, EqualsPortableOnSpecialTilesOfEveryRecipe) {
    for (const quant::Recipe& recipe : quant::recipe_catalog()) {
        for (const Fill fill :
             {Fill::bit_patterns, Fill::wide, Fill::zeros, Fill::subnormal, Fill::special}) {
            for (const auto& [rows, cols] :
                 {std::pair<std::int64_t, std::int64_t>{257, 389}, {128, 1024}, {3, 2048}}) {
                const Matrix matrix = make_matrix(rows, cols, fill, 77);
                expect_equal(quantize(*avx2, recipe.scaling, matrix),
                             quantize(*portable, recipe.scaling, matrix),
                             recipe.name + " fill " + std::to_string(static_cast<int>(fill)));
            }
        }
    }
}

TEST_F(Avx2Backend, EqualsPortableForEveryAmaxAndEverySignificandUnderIt) {
    // One tile for each amax significand at several exponents; its elements are all smaller BF16
    // magnitudes of 20 binades, so each table entry and the end of the table are met.
    for (const char* name : {"prime-rl-blockwise", "prime-rl-blockwise-cpu", "nemo-rl-linear",
                             "nemo-rl-pow2", "deepgemm", "slime-tensorwise", "modelopt-pb-w8a8"}) {
        const TileScaling scaling = quant::find_recipe(name).scaling;
        for (const std::uint32_t exponent : {3U, 20U, 90U, 117U, 127U, 200U, 254U}) {
            for (std::uint32_t m = 0; m < 128; ++m) {
                const std::uint32_t top = (exponent << 7) | m;
                Matrix matrix{20, 128, std::vector<std::uint16_t>(20 * 128)};
                for (std::uint32_t i = 0; i < matrix.values.size(); ++i) {
                    const std::uint32_t magnitude = i <= top ? top - i : 0U;
                    matrix.values[i] = static_cast<std::uint16_t>(magnitude | ((i & 1U) << 15));
                }
                expect_equal(quantize(*avx2, scaling, matrix), quantize(*portable, scaling, matrix),
                             std::string(name) + " amax " + std::to_string(top));
            }
        }
    }
}

TEST_F(Avx2Backend, EqualsPortableOnOutputsThatBypassTheCache) {
    const Matrix matrix = make_matrix(2052, 2112, Fill::gaussian, 5);
    for (const char* name : {"prime-rl-blockwise", "modelopt-pc-pt", "tensorwise"}) {
        const TileScaling scaling = quant::find_recipe(name).scaling;
        expect_equal(quantize(*avx2, scaling, matrix), quantize(*portable, scaling, matrix), name);
    }
}

TEST_F(Avx2Backend, FindsTheLargestMagnitudeAndCountsNanCodesAsPortableDoes) {
    for (const std::int64_t count : {0, 1, 15, 16, 17, 63, 64, 65, 1000}) {
        for (const Fill fill : {Fill::gaussian, Fill::bit_patterns, Fill::special}) {
            const Matrix matrix = make_matrix(1, count, fill, 9);
            EXPECT_EQ(avx2->max_abs_bits(matrix.values.data(), count),
                      portable->max_abs_bits(matrix.values.data(), count));
            const auto* bytes = reinterpret_cast<const std::uint8_t*>(matrix.values.data());
            EXPECT_EQ(avx2->count_nan_codes(bytes, 2 * count),
                      portable->count_nan_codes(bytes, 2 * count));
        }
    }
}

class EveryBackend : public ::testing::TestWithParam<std::string> {
 protected:
    void SetUp() override {
        if (backend == nullptr) {
            for (const BackendRow& row : backend_rows()) {
                if (row.name == GetParam()) GTEST_SKIP() << row.name << ": " << row.reason;
            }
        }
    }
    const Backend* backend = find_backend(GetParam());
};

INSTANTIATE_TEST_SUITE_P(Cpu, EveryBackend, ::testing::Values("portable", "avx2", "cuda"),
                         [](const auto& parameter) { return parameter.param; });

TEST_P(EveryBackend, GivesTheSameBitsFromBandsThatCutTiles) {
    const Matrix matrix = make_matrix(389, 259, Fill::gaussian, 3);
    for (const quant::Recipe& recipe : quant::recipe_catalog()) {
        const Quantized expected = quantize(*backend, recipe.scaling, matrix);
        const TileGrid grid = tile_grid(recipe.scaling, matrix.rows, matrix.cols);
        Quantized found{std::vector<std::uint32_t>(expected.amax_bits.size(), 0U),
                        std::vector<float>(expected.scale_inv.size()),
                        std::vector<std::uint8_t>(expected.codes.size())};
        const std::vector<std::int64_t> cuts = {0, 1, 100, 128, 200, 385, 389};
        for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
            const Band band = matrix.band(cuts[i], cuts[i + 1] - cuts[i]);
            const auto offset =
                static_cast<std::size_t>(first_grid_row(grid, band) * grid.grid_cols);
            const auto count =
                static_cast<std::size_t>(touched_grid_rows(grid, band) * grid.grid_cols);
            backend->tile_amax(recipe.scaling, band,
                               std::span(found.amax_bits).subspan(offset, count));
        }
        backend->scales(recipe.scaling, found.amax_bits, found.scale_inv);
        std::int64_t next_row = 0;
        for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
            const Band band = matrix.band(cuts[i], cuts[i + 1] - cuts[i]);
            const auto offset =
                static_cast<std::size_t>(first_grid_row(grid, band) * grid.grid_cols);
            const auto count =
                static_cast<std::size_t>(touched_grid_rows(grid, band) * grid.grid_cols);
            backend->encode(recipe.scaling, band, std::span(found.amax_bits).subspan(offset, count),
                            found.codes.data() + cuts[i] * matrix.cols, matrix.cols,
                            [&next_row](std::int64_t begin, std::int64_t end) {
                                EXPECT_EQ(begin, next_row);
                                EXPECT_LE(end - begin, 128);
                                next_row = end;
                            });
        }
        EXPECT_EQ(next_row, matrix.rows) << recipe.name;
        expect_equal(found, expected, recipe.name);
    }
}

TEST_P(EveryBackend, QuantizesABandOfWholeTilesAsPartOfTheMatrix) {
    const Matrix matrix = make_matrix(300, 200, Fill::gaussian, 4);
    for (const char* name : {"prime-rl-blockwise", "nemo-rl-linear", "modelopt-pc-pt"}) {
        const TileScaling scaling = quant::find_recipe(name).scaling;
        const Quantized expected = quantize(*backend, scaling, matrix);
        const TileGrid grid = tile_grid(scaling, matrix.rows, matrix.cols);
        for (const auto& [begin, count] :
             {std::pair<std::int64_t, std::int64_t>{128, 128}, {256, 44}}) {
            const Band band = matrix.band(begin, count);
            const auto tiles =
                static_cast<std::size_t>(touched_grid_rows(grid, band) * grid.grid_cols);
            const auto offset =
                static_cast<std::size_t>(first_grid_row(grid, band) * grid.grid_cols);
            std::vector<std::uint32_t> amax(tiles);
            std::vector<float> scale_inv(tiles);
            const std::int64_t stride = 256;  // wider than the matrix: the gap must stay untouched
            std::vector<std::uint8_t> codes(static_cast<std::size_t>(count * stride), 0xaa);
            backend->quantize(scaling, band, amax, scale_inv, codes.data(), stride, {});
            for (std::size_t t = 0; t < tiles; ++t) {
                EXPECT_EQ(amax[t], expected.amax_bits[offset + t]) << name;
                EXPECT_EQ(scale_inv[t], expected.scale_inv[offset + t]) << name;
            }
            for (std::int64_t row = 0; row < count; ++row) {
                for (std::int64_t col = 0; col < stride; ++col) {
                    const int expected_code = col < matrix.cols
                                                  ? expected.codes[static_cast<std::size_t>(
                                                        (begin + row) * matrix.cols + col)]
                                                  : 0xaa;
                    ASSERT_EQ(codes[static_cast<std::size_t>(row * stride + col)], expected_code);
                }
            }
        }
    }
}

TEST_P(EveryBackend, TellsANonFiniteTileByItsAmax) {
    Matrix matrix = make_matrix(256, 256, Fill::gaussian, 6);
    matrix.values[200 * 256 + 10] = 0xffc0;  // a negative NaN in tile (1, 0)
    matrix.values[3 * 256 + 250] = 0xff80;   // -Inf in tile (0, 1)
    const Quantized result =
        quantize(*backend, quant::find_recipe("prime-rl-blockwise").scaling, matrix);
    EXPECT_LT(result.amax_bits[0], 0x7f800000U);
    EXPECT_EQ(result.amax_bits[1], 0x7f800000U);
    EXPECT_GT(result.amax_bits[2], 0x7f800000U);
    EXPECT_LT(result.amax_bits[3], 0x7f800000U);
    EXPECT_EQ(backend->count_nan_codes(result.codes.data(), 256 * 256), 128 * 128 + 1);
}

TEST_P(EveryBackend, AcceptsEmptyBands) {
    const Matrix matrix = make_matrix(4, 4, Fill::gaussian, 8);
    const TileScaling scaling = quant::find_recipe("prime-rl-blockwise").scaling;
    std::vector<std::uint32_t> amax;
    std::vector<float> scale_inv;
    backend->quantize(scaling, matrix.band(4, 0), amax, scale_inv, nullptr, 4, {});
    const Matrix no_columns{4, 0, {}};
    backend->quantize(scaling, no_columns.whole(), amax, scale_inv, nullptr, 0, {});
}

TEST_P(EveryBackend, RefusesABandThatCutsATileAndSpansThatAreTooSmall) {
    const Matrix matrix = make_matrix(300, 200, Fill::gaussian, 4);
    const TileScaling scaling = quant::find_recipe("prime-rl-blockwise").scaling;
    std::vector<std::uint32_t> amax(6);
    std::vector<float> scale_inv(6);
    std::vector<std::uint8_t> codes(300 * 200);
    EXPECT_THROW(
        backend->quantize(scaling, matrix.band(1, 127), amax, scale_inv, codes.data(), 200, {}),
        std::invalid_argument);
    EXPECT_THROW(backend->quantize(scaling, matrix.whole(), std::span(amax).first(5), scale_inv,
                                   codes.data(), 200, {}),
                 std::invalid_argument);
    EXPECT_THROW(backend->tile_amax(scaling, matrix.band(250, 60), amax), std::invalid_argument);
}

TEST(TileGridOfAMatrix, CountsRaggedTilesAndWholeDimensions) {
    TileScaling block;
    TileGrid grid = tile_grid(block, 129, 128);
    EXPECT_EQ(grid.grid_rows, 2);
    EXPECT_EQ(grid.grid_cols, 1);
    TileScaling row;
    row.tile_rows = 1;
    row.tile_cols = 0;
    grid = tile_grid(row, 7, 300);
    EXPECT_EQ(grid.grid_rows, 7);
    EXPECT_EQ(grid.grid_cols, 1);
    EXPECT_EQ(grid.tile_cols, 300);
    Band band;
    band.row_begin = 127;
    band.row_count = 2;
    band.rows = 129;
    band.cols = 128;
    EXPECT_EQ(first_grid_row(tile_grid(block, 129, 128), band), 0);
    EXPECT_EQ(touched_grid_rows(tile_grid(block, 129, 128), band), 2);
}

TEST(BackendList, NamesEveryBackendAndSaysWhyNot) {
    std::vector<std::string> names;
    for (const BackendRow& row : backend_rows()) {
        names.push_back(row.name);
        EXPECT_EQ(row.reason.empty(), row.viable) << row.name;
        EXPECT_EQ(find_backend(row.name) != nullptr, row.viable) << row.name;
        if (row.viable) {
            EXPECT_EQ(find_backend(row.name)->name(), row.name);
        }
    }
    EXPECT_EQ(names, (std::vector<std::string>{"portable", "avx2", "avx512", "cuda"}));
    EXPECT_EQ(names, backend_names());
    EXPECT_NE(find_backend("auto"), nullptr);
    EXPECT_EQ(find_backend("gpu"), nullptr);
}

}  // namespace
}  // namespace refit::kernels
