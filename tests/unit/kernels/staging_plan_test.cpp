// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// How the CUDA backend cuts bands into stripes, and that what it says it needs is what it takes.
#include "kernels/cuda/staging_plan.hpp"

#include <gtest/gtest.h>

#include <string>

#include "kernels/cuda/cuda_backend.hpp"
#include "kernels/cuda/device_matrix.hpp"
#include "quant/recipe.hpp"

namespace refit::kernels::cuda {
namespace {

struct Shape {
    std::int64_t rows;
    std::int64_t cols;
};

/// Largest elements at the device's stride and tiles of any stripe of a band, found by cutting it.
struct Slots {
    std::int64_t elements = 0;
    std::int64_t tiles = 0;
};

Slots cut(const numerics::TileScaling& scaling, const Shape& shape, std::int64_t row_begin,
          std::int64_t row_count) {
    const TileGrid grid = tile_grid(scaling, shape.rows, shape.cols);
    const std::int64_t step = stripe_rows(grid, shape.cols);
    Slots largest;
    std::int64_t row = 0;
    while (row < row_count) {
        const std::int64_t rows = rows_of_stripe(row_begin, row, row_count, step);
        EXPECT_GT(rows, 0);
        const std::int64_t first = (row_begin + row) / grid.tile_rows;
        const std::int64_t last = (row_begin + row + rows - 1) / grid.tile_rows;
        largest.elements = std::max(largest.elements, rows * device_stride(shape.cols));
        largest.tiles = std::max(largest.tiles, (last - first + 1) * grid.grid_cols);
        row += rows;
    }
    EXPECT_EQ(row, row_count);
    return largest;
}

constexpr Shape kShapes[] = {{1, 1},        {3, 7},         {128, 128},     {257, 389},
                             {4096, 4096},  {16384, 8192},  {151936, 1024}, {1024, 151936},
                             {128, 300000}, {100000, 4000}, {7168, 18432}};

TEST(StagingPlan, StripesHoldWholeTilesWhereTilesAreShorterThanAStripe) {
    for (const quant::Recipe& recipe : quant::recipe_catalog()) {
        for (const Shape& shape : kShapes) {
            const TileGrid grid = tile_grid(recipe.scaling, shape.rows, shape.cols);
            const std::int64_t step = stripe_rows(grid, shape.cols);
            if (grid.tile_rows > kReportedRows) continue;
            EXPECT_EQ(step % grid.tile_rows, 0) << recipe.name << " " << shape.cols;
        }
    }
}

TEST(StagingPlan, NoStripeOfAnyBandNeedsMoreThanWasSaid) {
    for (const quant::Recipe& recipe : quant::recipe_catalog()) {
        for (const Shape& shape : kShapes) {
            StagingMemory memory;
            memory.add_quantized(recipe.scaling, shape.rows, shape.cols);
            const auto expect_enough = [&](const Slots& slots, const std::string& what) {
                EXPECT_GE(memory.host_bytes(), 2 * (3 * slots.elements + 8 * slots.tiles))
                    << recipe.name << " " << shape.rows << "x" << shape.cols << " " << what;
                EXPECT_GE(memory.device_bytes(), 2 * (3 * slots.elements + 12 * slots.tiles));
            };
            const Slots whole = cut(recipe.scaling, shape, 0, shape.rows);
            expect_enough(whole, "whole");
            // Not much more either: a preflight that asks for twice the memory refuses what fits.
            EXPECT_LE(memory.host_bytes(), 2 * (4.2 * static_cast<double>(whole.elements) +
                                                8.0 * static_cast<double>(whole.tiles) + 4096.0))
                << recipe.name << " " << shape.rows << "x" << shape.cols;
            for (const std::int64_t begin : {std::int64_t{1}, shape.rows / 3, shape.rows - 1}) {
                if (begin < 0 || begin >= shape.rows) continue;
                expect_enough(cut(recipe.scaling, shape, begin, shape.rows - begin), "a part");
            }
            for (const std::int64_t parts : {2, 3, 7}) {
                const Shape part{shape.rows, std::max<std::int64_t>(1, shape.cols / parts)};
                expect_enough(cut(recipe.scaling, part, 0, part.rows), "columns");
            }
        }
    }
}

TEST(StagingPlan, KeepsTheLargestOfSeveralMatricesAndScansInTheFirstSlot) {
    const numerics::TileScaling& scaling = quant::find_recipe("prime-rl-blockwise").scaling;
    StagingMemory memory;
    EXPECT_EQ(memory.host_bytes() + memory.device_bytes(), 0);
    memory.add_quantized(scaling, 0, 128);
    EXPECT_EQ(memory.host_bytes() + memory.device_bytes(), 0);
    memory.add_quantized(scaling, 1024, 1024);
    const std::int64_t host = memory.host_bytes();
    const std::int64_t device = memory.device_bytes();
    memory.add_quantized(scaling, 128, 128);
    memory.add_scan(1'000'000);  // fits into the slot that is there
    EXPECT_EQ(memory.host_bytes(), host);
    EXPECT_EQ(memory.device_bytes(), device);
    memory.add_scan(1'148'576);  // 100,000 values more than the slot holds
    EXPECT_EQ(memory.host_bytes(), host);
    EXPECT_EQ(memory.device_bytes(), device + 200'000);
    memory.add_scan(std::int64_t{1} << 40);  // in pieces of a stripe
    EXPECT_EQ(memory.device_bytes(), device + kStripeBytes - 2 * 1024 * 1024);
}

TEST(DeviceMatrix, IsNullWithTheRowsReasonWhereThereIsNoDevice) {
    const std::uint16_t one = 0x3f80;
    if (cuda_row().viable) GTEST_SKIP() << "a device is here: " << cuda_description();
    EXPECT_EQ(upload_matrix(&one, 1, 1), nullptr);
    EXPECT_FALSE(device_memory().has_value());
    EXPECT_FALSE(cuda_row().reason.empty());
}

}  // namespace
}  // namespace refit::kernels::cuda
