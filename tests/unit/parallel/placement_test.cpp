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

// --- layouts
// ---------------------------------------------------------------------------------------

Sharding layout(Layout kind, int ranks) {
    Sharding all(sharding(ranks, 1));
    all.layout = kind;
    all.experts = 5;
    return all;
}

PlacedTensor tensor(std::int64_t rows, std::int64_t cols, TensorCut cut, std::int64_t heads = 0,
                    bool replicate = false) {
    return {"layer.weight", rows, cols, cut, heads, replicate, -1};
}

TEST(Place, CutsColumnParallelTensorsByRowsAndRowParallelOnesByColumns) {
    const auto placements = place(
        {tensor(12, 8, TensorCut::rows), tensor(12, 8, TensorCut::columns)}, layout(Layout::tp, 4));
    EXPECT_EQ(placements[0].sent[1], (core::Region{3, 0, 3, 8}));
    EXPECT_EQ(placements[1].sent[1], (core::Region{0, 2, 12, 2}));
    EXPECT_EQ(placements[1].held, placements[1].sent);
}

TEST(Place, ReplicatesAHeadWhereThereAreMoreRanksThanHeadsAndOneOfThemSends) {
    const auto placements =
        place({tensor(6, 8, TensorCut::rows, 2, true), tensor(6, 8, TensorCut::rows, 2, true)},
              layout(Layout::tp, 4));
    for (std::size_t i = 0; i < 2; ++i) {
        EXPECT_EQ(placements[i].held[0], (core::Region{0, 0, 3, 8}));
        EXPECT_EQ(placements[i].held[1], (core::Region{0, 0, 3, 8}));
        EXPECT_EQ(placements[i].held[3], (core::Region{3, 0, 3, 8}));
        // The replicas take turns from tensor to tensor.
        EXPECT_EQ(is_empty(placements[i].sent[0]), i == 1);
        EXPECT_EQ(is_empty(placements[i].sent[1]), i == 0);
    }
}

TEST(Place, SpreadsTheSendersOfReplicatedTensors) {
    const auto placements = place(std::vector<PlacedTensor>(6, tensor(4, 1, TensorCut::replicated)),
                                  layout(Layout::tp, 3));
    std::vector<int> sends(3, 0);
    for (const Placement& placement : placements) {
        for (std::size_t rank = 0; rank < 3; ++rank) {
            EXPECT_EQ(placement.held[rank], (core::Region{0, 0, 4, 1}));
            if (!is_empty(placement.sent[rank])) ++sends[rank];
        }
    }
    EXPECT_EQ(sends, (std::vector<int>{2, 2, 2}));
}

TEST(Place, KeepsExpertsWholeInContiguousBlocksAndTheRestAsFsdp) {
    std::vector<PlacedTensor> tensors(6, tensor(4, 3, TensorCut::columns));
    for (std::size_t e = 0; e < 5; ++e) tensors[e].expert = static_cast<std::int64_t>(e);
    const auto placements = place(tensors, layout(Layout::ep, 2));
    const std::vector<std::size_t> owner = {0, 0, 0, 1, 1};  // e * 2 / 5
    for (std::size_t e = 0; e < 5; ++e) {
        EXPECT_EQ(placements[e].sent[owner[e]], (core::Region{0, 0, 4, 3})) << e;
        EXPECT_TRUE(is_empty(placements[e].held[1 - owner[e]])) << e;
    }
    EXPECT_EQ(placements[5].sent[1], (core::Region{2, 0, 2, 3}));
}

TEST(Place, SendsEachElementOnceFromATrainerThatHoldsIt) {
    const std::vector<PlacedTensor> tensors = {
        tensor(24, 12, TensorCut::rows),          tensor(24, 12, TensorCut::columns),
        tensor(24, 1, TensorCut::replicated),     tensor(24, 12, TensorCut::rows, 12),
        tensor(24, 12, TensorCut::rows, 3, true), tensor(24, 12, TensorCut::rows, 6, true)};
    for (const Layout kind : {Layout::fsdp, Layout::tp, Layout::ep}) {
        for (const int ranks : {1, 2, 3, 6}) {
            // Three heads neither divide two ranks nor are divided by them.
            if (kind == Layout::tp && ranks == 2) continue;
            const auto placements = place(tensors, layout(kind, ranks));
            for (std::size_t i = 0; i < tensors.size(); ++i) {
                std::vector<int> sent(static_cast<std::size_t>(24 * tensors[i].cols), 0);
                for (std::size_t rank = 0; rank < static_cast<std::size_t>(ranks); ++rank) {
                    const core::Region& own = placements[i].sent[rank];
                    const core::Region& held = placements[i].held[rank];
                    if (is_empty(own)) continue;
                    EXPECT_GE(own.row, held.row);
                    EXPECT_LE(own.row + own.rows, held.row + held.rows);
                    EXPECT_GE(own.col, held.col);
                    EXPECT_LE(own.col + own.cols, held.col + held.cols);
                    for (std::int64_t r = own.row; r < own.row + own.rows; ++r) {
                        for (std::int64_t c = own.col; c < own.col + own.cols; ++c)
                            ++sent[static_cast<std::size_t>(r * tensors[i].cols + c)];
                    }
                }
                EXPECT_EQ(sent, std::vector<int>(sent.size(), 1)) << "tensor " << i;
            }
        }
    }
}

TEST(Place, RefusesWhatDoesNotDivideAndNamesTheTensorAndTheRemedy) {
    const auto message = [](const PlacedTensor& one, int ranks) {
        try {
            (void)place({one}, layout(Layout::tp, ranks));
        } catch (const core::ScenarioError& error) {
            return std::string(error.what());
        }
        return std::string();
    };
    for (const PlacedTensor& one :
         {tensor(10, 8, TensorCut::rows), tensor(12, 8, TensorCut::columns),
          tensor(12, 8, TensorCut::rows, 4), tensor(12, 8, TensorCut::rows, 2, true)}) {
        const std::string text = message(one, 3);
        EXPECT_THAT(text, ::testing::HasSubstr("layer.weight"));
        EXPECT_THAT(text, ::testing::HasSubstr("trainer.layout=fsdp"));
    }
    EXPECT_EQ(message(tensor(12, 8, TensorCut::columns), 4), "");
}

}  // namespace
}  // namespace refit::parallel
