// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "parallel/placement.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "core/error.hpp"

namespace refit::parallel {
namespace {

using core::RowRange;
using testing::ElementsAre;

RowSharding sharding(int ranks, std::int64_t multiple, std::vector<double> shares = {}) {
    return {ranks, multiple, std::move(shares)};
}

TEST(ShardRows, CutsEqualSharesAtMultiples) {
    EXPECT_THAT(
        shard_rows(1024, sharding(4, 128)),
        ElementsAre(RowRange{0, 256}, RowRange{256, 512}, RowRange{512, 768}, RowRange{768, 1024}));
}

TEST(ShardRows, FillsTheFirstRanksAndLeavesTheRestToTheNext) {
    // 576 rows are 4.5 tiles: 2 tiles for each of two ranks, the half one for the third, none for
    // the fourth.
    EXPECT_THAT(
        shard_rows(576, sharding(4, 128)),
        ElementsAre(RowRange{0, 256}, RowRange{256, 512}, RowRange{512, 576}, RowRange{576, 576}));
}

TEST(ShardRows, CutsScalingTilesWhereTheMultipleIsOne) {
    // As torch.chunk and FSDP2: chunks of ceil(10 / 4) = 3.
    EXPECT_THAT(shard_rows(10, sharding(4, 1)),
                ElementsAre(RowRange{0, 3}, RowRange{3, 6}, RowRange{6, 9}, RowRange{9, 10}));
}

TEST(ShardRows, FollowsTheSharesToTheNearestMultiple) {
    EXPECT_THAT(shard_rows(1024, sharding(2, 128, {3.0, 1.0})),
                ElementsAre(RowRange{0, 768}, RowRange{768, 1024}));
    EXPECT_THAT(shard_rows(1000, sharding(3, 128, {1.0, 1.0, 1.0})),
                ElementsAre(RowRange{0, 384}, RowRange{384, 640}, RowRange{640, 1000}));
}

TEST(ShardRows, GivesNothingToAShareOfZero) {
    EXPECT_THAT(
        shard_rows(576, sharding(4, 128, {0.0, 1.0, 0.0, 0.0})),
        ElementsAre(RowRange{0, 0}, RowRange{0, 576}, RowRange{576, 576}, RowRange{576, 576}));
    // 130 rows end inside of a tile: the remainder belongs to the last owner, not to the idle rank
    // behind it.
    EXPECT_THAT(shard_rows(130, sharding(3, 128, {1.0, 1.0, 0.0})),
                ElementsAre(RowRange{0, 128}, RowRange{128, 130}, RowRange{130, 130}));
}

TEST(ShardRows, CoversEveryRowOnceInEveryCase) {
    const std::vector<std::vector<double>> shares_of_seven = {
        {}, {1, 2, 3, 4, 5, 6, 7}, {0, 0, 1, 0, 1e-9, 5, 0}, {1e300, 1, 1, 1, 1, 1, 1}};
    for (const std::int64_t rows : {0, 1, 127, 128, 129, 576, 1000, 151936}) {
        for (const std::int64_t multiple : {1, 32, 128}) {
            for (const auto& shares : shares_of_seven) {
                const auto ranges = shard_rows(rows, sharding(7, multiple, shares));
                ASSERT_EQ(ranges.size(), 7U);
                std::int64_t reached = 0;
                for (const RowRange& range : ranges) {
                    EXPECT_EQ(range.begin, reached);
                    EXPECT_GE(range.end, range.begin);
                    EXPECT_TRUE(range.end % multiple == 0 || range.end == rows);
                    reached = range.end;
                }
                EXPECT_EQ(reached, rows);
            }
        }
    }
}

TEST(ShardRows, RefusesWhatNoShardingCanMean) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    EXPECT_THROW((void)shard_rows(-1, sharding(2, 128)), core::ShapeError);
    EXPECT_THROW((void)shard_rows(8, sharding(0, 128)), core::ScenarioError);
    EXPECT_THROW((void)shard_rows(8, sharding(2, 0)), core::ScenarioError);
    EXPECT_THROW((void)shard_rows(8, sharding(2, 1, {1.0})), core::ScenarioError);
    EXPECT_THROW((void)shard_rows(8, sharding(2, 1, {1.0, -1.0})), core::ScenarioError);
    EXPECT_THROW((void)shard_rows(8, sharding(2, 1, {1.0, nan})), core::ScenarioError);
    EXPECT_THROW((void)shard_rows(8, sharding(2, 1, {0.0, 0.0})), core::ScenarioError);
}

}  // namespace
}  // namespace refit::parallel
