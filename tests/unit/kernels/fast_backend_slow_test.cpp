// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Every fast backend against portable on at least 10^8 random elements of every recipe (the
// emulated one on 2 * 10^6, it is slow). Definitions that several recipes share are compared once.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/backend.hpp"
#include "quant/recipe.hpp"
#include "unit/kernels/emulated_avx512.hpp"
#include "unit/kernels/matrices.hpp"

namespace refit::kernels {
namespace {

constexpr std::int64_t kElements = 100'000'000;
constexpr std::int64_t kEmulatedElements = 2'000'000;

class FastBackendAtLength : public ::testing::TestWithParam<std::string> {};

std::string test_name(const ::testing::TestParamInfo<std::string>& parameter) {
    std::string name = parameter.param;
    std::replace(name.begin(), name.end(), '-', '_');
    return name;
}

/// Names of recipes, the first of each definition.
std::vector<std::string> definitions() {
    std::vector<std::string> names;
    std::vector<numerics::TileScaling> seen;
    for (const quant::Recipe& recipe : quant::recipe_catalog()) {
        if (std::find(seen.begin(), seen.end(), recipe.scaling) == seen.end()) {
            seen.push_back(recipe.scaling);
            names.push_back(recipe.name);
        }
    }
    return names;
}

INSTANTIATE_TEST_SUITE_P(Catalog, FastBackendAtLength, ::testing::ValuesIn(definitions()),
                         test_name);

TEST_P(FastBackendAtLength, EqualsPortableOnAHundredMillionRandomElements) {
    struct Case {
        std::int64_t rows;
        std::int64_t cols;
        Fill fill;
    };
    // Whole panels, ragged tiles, rows shorter than a tile; the first passes the cache.
    const std::vector<Case> cases = {{2048, 2112, Fill::gaussian}, {1024, 1536, Fill::outliers},
                                     {777, 1101, Fill::wide},      {513, 640, Fill::power_borders},
                                     {384, 1000, Fill::special},   {640, 517, Fill::bit_patterns},
                                     {257, 515, Fill::subnormal},  {4099, 31, Fill::gaussian},
                                     {300, 2048, Fill::zero_tiles}};
    const numerics::TileScaling scaling = quant::find_recipe(GetParam()).scaling;
    const Backend* portable = find_backend("portable");
    std::vector<std::int64_t> compared(backends_under_test().size(), 0);
    std::uint32_t seed = 1;
    for (bool done = false; !done;) {
        for (const Case& one : cases) {
            const Matrix matrix = make_matrix(one.rows, one.cols, one.fill, seed++);
            const Quantized expected = quantize(*portable, scaling, matrix);
            std::size_t i = 0;
            for (const auto& [name, backend] : backends_under_test()) {
                const bool emulated = backend == emulated_avx512();
                const std::int64_t wanted = emulated ? kEmulatedElements : kElements;
                std::int64_t& count = compared[i++];
                if (backend == nullptr || backend == portable || count >= wanted) continue;
                // The emulated backend is slow: it takes the first rows of each.
                const Matrix part = emulated ? first_rows(matrix, 260) : matrix;
                expect_equal(quantize(*backend, scaling, part),
                             emulated ? quantize(*portable, scaling, part) : expected,
                             GetParam() + " " + name + " seed " + std::to_string(seed - 1));
                if (HasFatalFailure()) return;
                count += part.rows * part.cols;
            }
        }
        done = true;
        std::size_t i = 0;
        for (const auto& [name, backend] : backends_under_test()) {
            const std::int64_t wanted =
                backend == emulated_avx512() ? kEmulatedElements : kElements;
            const std::int64_t count = compared[i++];
            done = done && (backend == nullptr || backend == portable || count >= wanted);
        }
    }
}

}  // namespace
}  // namespace refit::kernels
