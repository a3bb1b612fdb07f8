// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The CUDA backend on a device against the portable one, bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "kernels/backend.hpp"
#include "kernels/cuda/cuda_backend.hpp"
#include "kernels/numerics/bfloat16.hpp"
#include "quant/recipe.hpp"

namespace refit::kernels {
namespace {

using numerics::TileScaling;

/// Uniform bits from a counter (splitmix64's finalizer): any element alone, the same everywhere.
std::uint64_t mixed(std::uint64_t x) {
    x += 0x9e3779b97f4a7c15U;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
    return x ^ (x >> 31);
}

enum class Fill { weights, bit_patterns, wide, zeros, subnormal, special };

std::uint16_t element(Fill fill, std::uint64_t seed, std::uint64_t index) {
    const std::uint64_t random = mixed(seed * 0x2545f4914f6cdd1dU + index);
    const auto bits = static_cast<std::uint16_t>(random);
    // The sum of four uniform numbers has the bulk and the tails of trained weights.
    float sum = -131070.0F;
    for (int i = 0; i < 4; ++i) sum += static_cast<float>((random >> (16 * i)) & 0xffffU);
    const std::uint16_t weight = numerics::f32_to_bf16(sum * 3e-7F);
    switch (fill) {
        case Fill::weights:
            return weight;
        case Fill::bit_patterns:  // every finite magnitude
            return (bits & 0x7f80U) == 0x7f80U ? static_cast<std::uint16_t>(bits & 0x80ffU) : bits;
        case Fill::wide:  // 32 binades around one: codes of all sizes, many subnormal
            return static_cast<std::uint16_t>((bits & 0x8fffU) | 0x3000U);
        case Fill::zeros:
            return static_cast<std::uint16_t>(bits & 0x8000U);
        case Fill::subnormal:
            return static_cast<std::uint16_t>(bits & 0x807fU);
        case Fill::special:
            return (random >> 32) % 4096 == 0 ? static_cast<std::uint16_t>(bits | 0x7f80U) : weight;
    }
    return 0;
}

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
};

Matrix make_matrix(std::int64_t rows, std::int64_t cols, Fill fill, std::uint64_t seed) {
    Matrix matrix{rows, cols, std::vector<std::uint16_t>(static_cast<std::size_t>(rows * cols))};
    for (std::size_t i = 0; i < matrix.values.size(); ++i)
        matrix.values[i] = element(fill, seed, i);
    return matrix;
}

struct Quantized {
    std::vector<std::uint32_t> amax;
    std::vector<float> scale;
    std::vector<std::uint8_t> codes;
};

Quantized quantize(const Backend& backend, const TileScaling& scaling, const Matrix& matrix) {
    const TileGrid grid = tile_grid(scaling, matrix.rows, matrix.cols);
    const auto tiles = static_cast<std::size_t>(grid.grid_rows * grid.grid_cols);
    Quantized result{std::vector<std::uint32_t>(tiles, 0x7f7f0000U),
                     std::vector<float>(tiles, -1.0F),
                     std::vector<std::uint8_t>(matrix.values.size(), 0x55)};
    backend.quantize(scaling, matrix.band(0, matrix.rows), result.amax, result.scale,
                     result.codes.data(), matrix.cols, {});
    return result;
}

void expect_equal(const Quantized& found, const Quantized& expected, const std::string& what) {
    for (std::size_t t = 0; t < expected.amax.size(); ++t) {
        ASSERT_EQ(found.amax[t], expected.amax[t]) << what << ": amax of tile " << t;
        ASSERT_EQ(std::bit_cast<std::uint32_t>(found.scale[t]),
                  std::bit_cast<std::uint32_t>(expected.scale[t]))
            << what << ": scale of tile " << t << " is " << found.scale[t] << ", expected "
            << expected.scale[t];
    }
    const auto at =
        std::mismatch(found.codes.begin(), found.codes.end(), expected.codes.begin()).first -
        found.codes.begin();
    ASSERT_EQ(static_cast<std::size_t>(at), expected.codes.size())
        << what << ": code " << at << " is " << int{found.codes[static_cast<std::size_t>(at)]}
        << ", expected " << int{expected.codes[static_cast<std::size_t>(at)]};
}

class DeviceBackend : public ::testing::Test {
 protected:
    void SetUp() override {
        if (cuda == nullptr) GTEST_SKIP() << cuda::cuda_row().reason;
    }
    const Backend* cuda = find_backend("cuda");
    const Backend* portable = find_backend("portable");
};

TEST_F(DeviceBackend, SaysWhatItRunsOn) {
    EXPECT_FALSE(cuda::cuda_description().empty());
    RecordProperty("device", cuda::cuda_description());
    std::printf("# %s\n", cuda::cuda_description().c_str());
}

TEST_F(DeviceBackend, EqualsPortableOnSpecialTilesOfEveryRecipe) {
    for (const quant::Recipe& recipe : quant::recipe_catalog()) {
        for (const Fill fill : {Fill::weights, Fill::bit_patterns, Fill::wide, Fill::zeros,
                                Fill::subnormal, Fill::special}) {
            for (const auto& [rows, cols] : {std::pair<std::int64_t, std::int64_t>{1, 1},
                                             {3, 7},
                                             {128, 128},
                                             {257, 389},
                                             {129, 2048},
                                             {5, 40'003},
                                             {20'000, 64}}) {
                const Matrix matrix = make_matrix(rows, cols, fill, 77);
                expect_equal(quantize(*cuda, recipe.scaling, matrix),
                             quantize(*portable, recipe.scaling, matrix),
                             recipe.name + " " + std::to_string(rows) + "x" + std::to_string(cols) +
                                 " fill " + std::to_string(static_cast<int>(fill)));
                if (HasFatalFailure()) return;
            }
        }
    }
}

TEST_F(DeviceBackend, EqualsPortableForEveryAmaxAndEverySignificandUnderIt) {
    for (const quant::Recipe& recipe : quant::recipe_catalog()) {
        Matrix matrix{128 * 20, 128 * 7, {}};
        matrix.values.resize(static_cast<std::size_t>(matrix.rows * matrix.cols));
        const std::uint32_t exponents[] = {3, 20, 90, 117, 127, 200, 254};
        for (std::int64_t r = 0; r < matrix.rows; ++r) {
            for (std::int64_t c = 0; c < matrix.cols; ++c) {
                // A tile of 20 x 128 values below each amax: 128 significands x 7 exponents.
                const std::uint32_t top =
                    (exponents[c / 128] << 7) | static_cast<std::uint32_t>(r / 20);
                const auto i = static_cast<std::uint32_t>((r % 20) * 128 + c % 128);
                matrix.values[static_cast<std::size_t>(r * matrix.cols + c)] =
                    static_cast<std::uint16_t>((i <= top ? top - i : 0U) | ((i & 1U) << 15));
            }
        }
        TileScaling scaling = recipe.scaling;
        if (scaling.tile_rows == 128) scaling.tile_rows = 20;
        expect_equal(quantize(*cuda, scaling, matrix), quantize(*portable, scaling, matrix),
                     recipe.name);
        if (HasFatalFailure()) return;
    }
}

TEST_F(DeviceBackend, EqualsPortableOnRandomElements) {
    const char* wanted = std::getenv("REFIT_DEVICE_ELEMENTS");
    const double elements = wanted != nullptr ? std::atof(wanted) : 1e9;
    const auto& recipes = quant::recipe_catalog();
    constexpr std::int64_t kRows = 4096 + 3;
    constexpr std::int64_t kCols = 4096 + 8;
    std::uint64_t seed = 0;
    double compared = 0;
    while (compared < elements) {
        const quant::Recipe& recipe = recipes[seed % recipes.size()];
        const Matrix matrix = make_matrix(kRows, kCols, Fill::weights, seed++);
        expect_equal(quantize(*cuda, recipe.scaling, matrix),
                     quantize(*portable, recipe.scaling, matrix),
                     recipe.name + " seed " + std::to_string(seed - 1));
        if (HasFatalFailure()) return;
        compared += static_cast<double>(kRows * kCols);
    }
    std::printf("# %.0f elements compared, %zu recipes\n", compared,
                std::min<std::size_t>(seed, recipes.size()));
}

TEST_F(DeviceBackend, ScansAsPortableDoes) {
    for (const std::int64_t count : {0, 1, 255, 256, 257, 100'003}) {
        for (const Fill fill : {Fill::weights, Fill::bit_patterns, Fill::special}) {
            const Matrix matrix = make_matrix(1, count, fill, 9);
            EXPECT_EQ(cuda->max_abs_bits(matrix.values.data(), count),
                      portable->max_abs_bits(matrix.values.data(), count));
            const auto* bytes = reinterpret_cast<const std::uint8_t*>(matrix.values.data());
            EXPECT_EQ(cuda->count_nan_codes(bytes, 2 * count),
                      portable->count_nan_codes(bytes, 2 * count));
        }
    }
}

TEST_F(DeviceBackend, CountsTheSecondsOfItsCopiesAndKernels) {
    const cuda::CudaSeconds before = cuda::cuda_seconds();
    const Matrix matrix = make_matrix(2048, 2048, Fill::weights, 1);
    (void)quantize(*cuda, quant::find_recipe("prime-rl-blockwise").scaling, matrix);
    const cuda::CudaSeconds after = cuda::cuda_seconds();
    EXPECT_GT(after.to_device, before.to_device);
    EXPECT_GT(after.kernels, before.kernels);
    EXPECT_GT(after.from_device, before.from_device);
}

}  // namespace
}  // namespace refit::kernels
