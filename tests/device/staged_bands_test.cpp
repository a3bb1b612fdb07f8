// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The host's side of the CUDA backend over a device that the host plays: stripes, slots, waits and
// what they cost.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "kernels/backend.hpp"
#include "kernels/cuda/cuda_backend.hpp"
#include "kernels/cuda/staging_plan.hpp"
#include "quant/recipe.hpp"
#include "support/emulated_cuda.hpp"

namespace refit::kernels {
namespace {

std::vector<std::uint16_t> weights_of(std::int64_t count) {
    std::vector<std::uint16_t> values(static_cast<std::size_t>(count));
    std::uint32_t state = 1;
    for (std::uint16_t& value : values) {
        state = state * 1664525U + 1013904223U;
        // Finite values of 16 binades and both signs.
        value = static_cast<std::uint16_t>(((state >> 16) & 0x87ffU) + 0x3800U);
    }
    return values;
}

struct Quantized {
    std::vector<std::uint32_t> amax;
    std::vector<float> scales;
    std::vector<std::uint8_t> codes;
    std::vector<std::int64_t> reported;
    bool operator==(const Quantized&) const = default;
};

/// Bands from cut to cut, each of them by `quantize` or by the three steps.
Quantized run(const Backend& backend, const numerics::TileScaling& scaling,
              const std::vector<std::uint16_t>& values, std::int64_t cols, bool three_steps,
              std::vector<std::int64_t> cuts = {}) {
    const std::int64_t rows = static_cast<std::int64_t>(values.size()) / cols;
    const TileGrid grid = tile_grid(scaling, rows, cols);
    const auto tiles = static_cast<std::size_t>(grid.grid_rows * grid.grid_cols);
    Quantized result;
    result.amax.resize(tiles);
    result.scales.resize(tiles);
    result.codes.resize(values.size());
    cuts.insert(cuts.begin(), 0);
    cuts.push_back(rows);
    const auto over_bands = [&](const auto& call) {
        for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
            const Band band{values.data() + cuts[i] * cols,
                            cols,
                            cuts[i],
                            cuts[i + 1] - cuts[i],
                            rows,
                            cols,
                            static_cast<std::uint32_t>(values.back() & 0x7fffU) << 16};
            const auto first = static_cast<std::size_t>(first_grid_row(grid, band)) *
                               static_cast<std::size_t>(grid.grid_cols);
            call(band, std::span(result.amax).subspan(first),
                 std::span(result.scales).subspan(first), result.codes.data() + cuts[i] * cols);
        }
    };
    const StripeDone done = [&](std::int64_t begin, std::int64_t end) {
        EXPECT_TRUE(result.reported.empty() || result.reported.back() == begin);
        if (result.reported.empty()) result.reported.push_back(begin);
        result.reported.push_back(end);
    };
    if (!three_steps) {
        over_bands([&](const Band& band, auto amax, auto scales, std::uint8_t* codes) {
            backend.quantize(scaling, band, amax, scales, codes, cols, done);
        });
    } else {
        over_bands([&](const Band& band, auto amax, auto, std::uint8_t*) {
            backend.tile_amax(scaling, band, amax);
        });
        backend.scales(scaling, result.amax, result.scales);
        over_bands([&](const Band& band, auto amax, auto, std::uint8_t* codes) {
            backend.encode(scaling, band, amax, codes, cols, done);
        });
    }
    result.reported = {result.reported.front(), result.reported.back()};
    return result;
}

class StagedBands : public ::testing::Test {
 protected:
    const Backend& cuda = *find_backend("cuda");
    const Backend& host = *find_backend("auto");
};

TEST_F(StagedBands, OfEveryRecipeEqualTheHostsWhereTheyCutTilesToo) {
    const std::int64_t cols = 259;
    const std::vector<std::uint16_t> values = weights_of(390 * cols);
    for (const quant::Recipe& recipe : quant::recipe_catalog()) {
        EXPECT_EQ(run(cuda, recipe.scaling, values, cols, false),
                  run(host, recipe.scaling, values, cols, false))
            << recipe.name;
        EXPECT_EQ(run(cuda, recipe.scaling, values, cols, true, {1, 130, 256}),
                  run(host, recipe.scaling, values, cols, true, {1, 130, 256}))
            << recipe.name << " in bands";
    }
    EXPECT_EQ(emulated_cuda::overrun_allocations(), 0);
}

TEST_F(StagedBands, OfSeveralStripesShareSlotsWithoutMixingThem) {
    // Five stripes, the last of one row: every slot is used again while the other is under way.
    const std::int64_t cols = 65'536;
    const std::vector<std::uint16_t> values = weights_of((4 * 128 + 1) * cols);
    ASSERT_EQ(cuda::stripe_rows(tile_grid({}, 513, cols), cols), 128);
    for (const char* name : {"prime-rl-blockwise", "tensorwise"}) {
        const numerics::TileScaling& scaling = quant::find_recipe(name).scaling;
        EXPECT_EQ(run(cuda, scaling, values, cols, false), run(host, scaling, values, cols, false))
            << name;
    }
    const auto memory = cuda::device_memory();
    ASSERT_TRUE(memory.has_value());
    cuda::StagingMemory planned;
    for (const quant::Recipe& recipe : quant::recipe_catalog()) {
        planned.add_quantized(recipe.scaling, 390, 259);
        planned.add_quantized(recipe.scaling, 513, cols);
    }
    planned.add_scan(std::numeric_limits<std::int64_t>::max());
    EXPECT_GT(memory->held_bytes, 0U);
    EXPECT_LE(memory->held_bytes, static_cast<std::uint64_t>(planned.device_bytes()));
    EXPECT_GE(memory->total_bytes, memory->free_bytes + memory->held_bytes);
    EXPECT_EQ(emulated_cuda::overrun_allocations(), 0);
}

TEST_F(StagedBands, ScansInPiecesFindWhatLiesInTheLastOne) {
    std::vector<std::uint16_t> values = weights_of(cuda::kStripeBytes / 2 + 77);
    EXPECT_EQ(cuda.max_abs_bits(values.data(), static_cast<std::int64_t>(values.size())),
              host.max_abs_bits(values.data(), static_cast<std::int64_t>(values.size())));
    values.back() = 0x7f80;
    EXPECT_EQ(cuda.max_abs_bits(values.data(), static_cast<std::int64_t>(values.size())),
              0x7f800000U);
}

}  // namespace
}  // namespace refit::kernels
