// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The fast backends give the bits of portable: scales, codes and amax.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kernels/backend.hpp"
#include "quant/recipe.hpp"
#include "unit/kernels/emulated_avx512.hpp"
#include "unit/kernels/matrices.hpp"

namespace refit::kernels {
namespace {

using numerics::TileScaling;

class FastBackend : public ::testing::TestWithParam<NamedBackend> {
 protected:
    void SetUp() override {
        if (fast == nullptr) {
            GTEST_SKIP() << GetParam().name << " is not viable on this machine";
        }
    }
    const Backend* fast = GetParam().backend;
    const Backend* portable = find_backend("portable");
};

std::vector<NamedBackend> fast_backends() {
    std::vector<NamedBackend> backends = backends_under_test();
    backends.erase(backends.begin());  // portable is what they are compared with
    return backends;
}

INSTANTIATE_TEST_SUITE_P(Cpu, FastBackend, ::testing::ValuesIn(fast_backends()),
                         [](const auto& parameter) { return std::string(parameter.param.name); });

TEST_P(FastBackend, EqualsPortableOnAMillionElementsOfEveryRecipe) {
    const std::vector<std::int64_t> sides = {1, 127, 128, 129, 255, 257, 1000};
    for (const quant::Recipe& recipe : quant::recipe_catalog()) {
        std::int64_t compared = 0;
        std::uint32_t seed = 1;
        for (const std::int64_t rows : sides) {
            for (const std::int64_t cols : sides) {
                const Matrix matrix = make_matrix(rows, cols, Fill::gaussian, seed++);
                expect_equal(quantize(*fast, recipe.scaling, matrix),
                             quantize(*portable, recipe.scaling, matrix),
                             recipe.name + " " + std::to_string(rows) + "x" + std::to_string(cols));
                compared += rows * cols;
            }
        }
        EXPECT_GT(compared, 1'000'000);
    }
}

TEST_P(FastBackend, EqualsPortableOnSpecialTilesOfEveryRecipe) {
    for (const quant::Recipe& recipe : quant::recipe_catalog()) {
        for (const Fill fill :
             {Fill::bit_patterns, Fill::wide, Fill::zeros, Fill::subnormal, Fill::special}) {
            for (const auto& [rows, cols] :
                 {std::pair<std::int64_t, std::int64_t>{257, 389}, {128, 1024}, {3, 2048}}) {
                const Matrix matrix = make_matrix(rows, cols, fill, 77);
                expect_equal(quantize(*fast, recipe.scaling, matrix),
                             quantize(*portable, recipe.scaling, matrix),
                             recipe.name + " fill " + std::to_string(static_cast<int>(fill)));
            }
        }
    }
}

TEST_P(FastBackend, EqualsPortableForEveryAmaxAndEverySignificandUnderIt) {
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
                expect_equal(quantize(*fast, scaling, matrix), quantize(*portable, scaling, matrix),
                             std::string(name) + " amax " + std::to_string(top));
            }
        }
    }
}

TEST_P(FastBackend, EqualsPortableOnOutputsThatBypassTheCache) {
    const Matrix matrix = make_matrix(2052, 2112, Fill::gaussian, 5);
    for (const char* name : {"prime-rl-blockwise", "modelopt-pc-pt", "tensorwise"}) {
        const TileScaling scaling = quant::find_recipe(name).scaling;
        expect_equal(quantize(*fast, scaling, matrix), quantize(*portable, scaling, matrix), name);
    }
}

TEST_P(FastBackend, EqualsPortableWhereStripesAreCutIntoPanels) {
    // 65 and 129 whole tiles: panels of different widths, a last stripe with fewer rows, a ragged
    // tile; in `wide` neighbouring tiles have amax of very different exponents.
    for (const std::int64_t cols : {65 * 128 + 7, 129 * 128}) {
        for (const Fill fill : {Fill::gaussian, Fill::wide, Fill::special}) {
            const Matrix matrix = make_matrix(300, cols, fill, 11);
            for (const char* name : {"prime-rl-blockwise-cpu", "nemo-rl-2037-pow2", "areal-triton",
                                     "nemo-rl-linear"}) {
                const TileScaling scaling = quant::find_recipe(name).scaling;
                expect_equal(quantize(*fast, scaling, matrix), quantize(*portable, scaling, matrix),
                             std::string(name) + " " + std::to_string(cols) + " fill " +
                                 std::to_string(static_cast<int>(fill)));
            }
        }
    }
}

TEST_P(FastBackend, FindsTheLargestMagnitudeAndCountsNanCodesAsPortableDoes) {
    for (const std::int64_t count : {0, 1, 15, 16, 17, 63, 64, 65, 1000}) {
        for (const Fill fill : {Fill::gaussian, Fill::bit_patterns, Fill::special}) {
            const Matrix matrix = make_matrix(1, count, fill, 9);
            EXPECT_EQ(fast->max_abs_bits(matrix.values.data(), count),
                      portable->max_abs_bits(matrix.values.data(), count));
            const auto* bytes = reinterpret_cast<const std::uint8_t*>(matrix.values.data());
            EXPECT_EQ(fast->count_nan_codes(bytes, 2 * count),
                      portable->count_nan_codes(bytes, 2 * count));
        }
    }
}

}  // namespace
}  // namespace refit::kernels
