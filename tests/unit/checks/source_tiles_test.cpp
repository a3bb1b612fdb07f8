// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/source_tiles.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace refit::checks {
namespace {

/// One matrix of ones with some other values.
class MatrixSource : public weights::WeightSource {
 public:
    MatrixSource(std::int64_t rows, std::int64_t cols)
        : cols_(cols), values_(static_cast<std::size_t>(rows * cols), 0x3f80) {}
    void put(std::int64_t row, std::int64_t col, std::uint16_t bits) {
        values_[static_cast<std::size_t>(row * cols_ + col)] = bits;
    }
    void read(const model::TensorSpec&, const core::Region& region, std::uint16_t* out,
              std::int64_t out_stride) const override {
        for (std::int64_t r = 0; r < region.rows; ++r) {
            for (std::int64_t c = 0; c < region.cols; ++c) {
                out[r * out_stride + c] =
                    values_[static_cast<std::size_t>((region.row + r) * cols_ + region.col + c)];
            }
        }
    }
    void set_step(std::int64_t) override {}
    std::string description() const override { return "matrix"; }

 private:
    std::int64_t cols_;
    std::vector<std::uint16_t> values_;
};

model::TensorSpec spec(std::int64_t rows, std::int64_t cols) {
    model::TensorSpec tensor;
    tensor.name = "w.weight";
    tensor.shape = {rows, cols};
    return tensor;
}

constexpr std::uint16_t kFour = 0x4080;

TEST(OwnScale, IsAmaxOver448AtLeastTheFloorAndRoundedUpToAPowerOfTwo) {
    SchemeFacts facts;
    EXPECT_EQ(own_scale(0.0, facts), 0.0);
    EXPECT_EQ(own_scale(448.0, facts), 1.0);
    facts.scale_floor = 1e-3;
    EXPECT_EQ(own_scale(1e-3, facts), 1e-3);
    facts.scale_floor = 0.0;
    facts.power_of_two_scales = true;
    EXPECT_EQ(own_scale(448.0, facts), 1.0);
    EXPECT_EQ(own_scale(449.0, facts), 2.0);
    EXPECT_EQ(own_scale(std::nextafter(448.0, 0.0), facts), 1.0);
    EXPECT_EQ(own_scale(1.75, facts), 0x1p-8);
    EXPECT_EQ(own_scale(0x1p-133, facts), 0x1p-141);
}

TEST(SourceTiles, SeesTheWholeTileWhereThePartCutsIt) {
    MatrixSource source(200, 300);
    source.put(130, 250, kFour);  // tile (1, 1), outside the part below
    SchemeFacts facts;
    facts.tile_rows = facts.tile_cols = 128;
    const model::TensorSpec tensor = spec(200, 300);
    SourceTiles tiles(tensor, source, facts, {150, 100, 20, 60}, {});
    EXPECT_EQ(tiles.first_row(), 128);
    tiles.read(tiles.first_row());
    EXPECT_EQ(tiles.scale(150, 100), 1.0 / 448.0);
    EXPECT_EQ(tiles.scale(150, 128), 4.0 / 448.0);
    EXPECT_EQ(tiles.tile_end(100), 128);
    EXPECT_EQ(tiles.tile_end(128), 256);
    EXPECT_EQ(*tiles.at(150, 100), 0x3f80);
}

TEST(SourceTiles, SeesTheWholeRowWhereThePartCutsItsColumns) {
    MatrixSource source(8, 300);
    source.put(5, 299, kFour);
    SchemeFacts facts;
    facts.tile_rows = 1;
    const model::TensorSpec tensor = spec(8, 300);
    SourceTiles tiles(tensor, source, facts, {4, 0, 3, 100}, {});
    tiles.read(tiles.first_row());
    EXPECT_EQ(tiles.scale(4, 0), 1.0 / 448.0);
    EXPECT_EQ(tiles.scale(5, 0), 4.0 / 448.0);
}

TEST(SourceTiles, SeesTheWholeTensorWhereThereIsOneScale) {
    MatrixSource source(40, 30);
    source.put(39, 29, kFour);
    const model::TensorSpec tensor = spec(40, 30);
    const TileMaximum whole = tensor_maximum(tensor, source, [] {});
    EXPECT_EQ(whole.bits, kFour);
    const SchemeFacts facts;
    SourceTiles tiles(tensor, source, facts, {0, 0, 10, 10}, whole);
    tiles.read(tiles.first_row());
    EXPECT_EQ(tiles.scale(9, 9), 4.0 / 448.0);
}

TEST(SourceTiles, LeavesNonfiniteValuesOutOfTheMaximumAndSaysSo) {
    MatrixSource source(128, 256);
    source.put(3, 7, 0x7fc0);
    source.put(4, 7, 0xff80);
    source.put(5, 7, kFour);
    SchemeFacts facts;
    facts.tile_rows = facts.tile_cols = 128;
    const model::TensorSpec tensor = spec(128, 256);
    SourceTiles tiles(tensor, source, facts, {0, 0, 128, 256}, {});
    tiles.read(0);
    EXPECT_FALSE(tiles.finite(0, 0));
    EXPECT_TRUE(tiles.finite(0, 128));
    EXPECT_EQ(tiles.scale(0, 0), 4.0 / 448.0);
}

TEST(SourceTiles, PadsRaggedTilesWithTheLastElementOnlyWhereTheRecipeDoes) {
    MatrixSource source(130, 200);
    source.put(129, 199, kFour);
    SchemeFacts facts;
    facts.tile_rows = facts.tile_cols = 128;
    const model::TensorSpec tensor = spec(130, 200);
    SourceTiles plain(tensor, source, facts, {0, 0, 130, 200}, {});
    plain.read(0);
    EXPECT_EQ(plain.scale(0, 150), 1.0 / 448.0);
    facts.pad_last_element = true;
    SourceTiles padded(tensor, source, facts, {0, 0, 130, 200}, {});
    padded.read(0);
    EXPECT_EQ(padded.scale(0, 0), 1.0 / 448.0);
    EXPECT_EQ(padded.scale(0, 150), 4.0 / 448.0);
}

}  // namespace
}  // namespace refit::checks
