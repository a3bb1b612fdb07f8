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
#include "unit/kernels/emulated_avx512.hpp"
#include "unit/kernels/matrices.hpp"

namespace refit::kernels {
namespace {

using numerics::TileScaling;

class EveryBackend : public ::testing::TestWithParam<NamedBackend> {
 protected:
    void SetUp() override {
        if (backend == nullptr) {
            for (const BackendRow& row : backend_rows()) {
                if (row.name == GetParam().name) GTEST_SKIP() << row.name << ": " << row.reason;
            }
            GTEST_SKIP() << GetParam().name
                         << ": SIMDe is not built in (libsimde-dev missing, or a sanitizer build)";
        }
    }
    const Backend* backend = GetParam().backend;
};

INSTANTIATE_TEST_SUITE_P(Cpu, EveryBackend, ::testing::ValuesIn(backends_under_test()),
                         [](const auto& parameter) { return std::string(parameter.param.name); });

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
