// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Collectives of the MPI world, agreement on errors and the shared status page, under mpirun.
#include <gtest/gtest.h>
#include <mpi.h>
#include <unistd.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "harness/rank_agreement.hpp"
#include "harness/rank_status.hpp"
#include "harness/world.hpp"

namespace refit::harness {
namespace {

TEST(MpiWorld, KnowsItsRanks) {
    const auto world = make_mpi_world();
    int rank = -1;
    int size = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    EXPECT_EQ(world->rank(), rank);
    EXPECT_EQ(world->size(), size);
    EXPECT_TRUE(world->is_mpi());
    EXPECT_TRUE(launched_by_mpi());
    ASSERT_EQ(world->local_ranks().size(), static_cast<std::size_t>(world->local_size()));
    EXPECT_EQ(world->local_ranks()[static_cast<std::size_t>(world->local_rank())], rank);
}

TEST(MpiWorld, GivesEveryRankTheBytesOfAllOverManyTurns) {
    const auto world = make_mpi_world();
    for (int turn = 0; turn < 60; ++turn) {
        // Lengths differ by rank and turn, some are empty, zero bytes are kept.
        const auto text = [turn](int rank) {
            return std::string(static_cast<std::size_t>((turn * (rank + 1)) % 5), '\0') +
                   std::string(turn % 7 == rank ? 20000U : 0U, static_cast<char>('a' + rank));
        };
        const std::vector<std::string> all = world->allgather(text(world->rank()));
        ASSERT_EQ(all.size(), static_cast<std::size_t>(world->size()));
        for (int r = 0; r < world->size(); ++r) {
            EXPECT_EQ(all[static_cast<std::size_t>(r)], text(r)) << "turn " << turn;
        }
        const int root = turn % world->size();
        const std::vector<std::string> gathered = world->gather(root, text(world->rank()));
        if (world->rank() == root) {
            EXPECT_EQ(gathered, all);
        } else {
            EXPECT_TRUE(gathered.empty());
        }
    }
    EXPECT_EQ(broadcast_text(*world, std::to_string(world->rank())), "0");
}

TEST(MpiWorld, SaysTrueOnlyWhenAllDo) {
    const auto world = make_mpi_world();
    EXPECT_TRUE(world->all_true(true));
    for (int odd = 0; odd < world->size(); ++odd) {
        EXPECT_FALSE(world->all_true(world->rank() != odd));
    }
    EXPECT_TRUE(world->all_true(true));
}

TEST(MpiWorld, TakesTheMaximumOverTheTrainersAlone) {
    const auto world = make_mpi_world();
    for (int trainers = 1; trainers <= world->size(); ++trainers) {
        for (std::uint32_t turn = 0; turn < 5; ++turn) {
            if (world->rank() >= trainers) continue;  // A receiver takes no part.
            const auto rank = static_cast<std::uint32_t>(world->rank());
            const auto last = static_cast<std::uint32_t>(trainers - 1);
            // Bits of a NaN are above all signed numbers: the maximum must be unsigned.
            std::vector<std::uint32_t> words = {rank + turn, last - rank,
                                                rank == last ? 0xffc00000U : 5U};
            world->max_over_trainers(trainers, words);
            EXPECT_EQ(words, (std::vector<std::uint32_t>{last + turn, last, 0xffc00000U}));
        }
    }
    world->barrier();
}

TEST(MpiWorld, CallsOnWaitWhileOthersAreLate) {
    const auto world = make_mpi_world();
    int calls = 0;
    world->set_on_wait([&] { ++calls; });
    if (world->rank() == 0) usleep(100'000);
    world->barrier();
    if (world->rank() != 0) {
        EXPECT_GT(calls, 10);
    }
}

TEST(TogetherOverMpi, MakesAllThrowTheWordsOfTheRankThatFailed) {
    const auto world = make_mpi_world();
    const int failing = world->size() - 1;
    try {
        together(*world, [&] {
            if (world->rank() == failing) throw core::FileError("cannot read x");
        });
        ADD_FAILURE() << "passed";
    } catch (const AgreedError& error) {
        EXPECT_EQ(error.what(), "rank " + std::to_string(failing) + ": cannot read x");
        EXPECT_EQ(error.code(), core::ExitCode::environment);
        EXPECT_EQ(error.rank, failing);
    }
    EXPECT_NO_THROW(together(*world, [] {}));
}

TEST(TogetherOverMpi, NamesNoRankWhenAllFailAlike) {
    const auto world = make_mpi_world();
    try {
        together(*world, [] { throw core::UsageError("unknown recipe"); });
        ADD_FAILURE() << "passed";
    } catch (const AgreedError& error) {
        EXPECT_STREQ(error.what(), "unknown recipe");
        EXPECT_EQ(error.code(), core::ExitCode::usage);
        EXPECT_EQ(error.rank, -1);
    }
}

TEST(RankStatusOverMpi, SharesOnePageAndGivesTheRecordToOneRank) {
    const auto world = make_mpi_world();
    if (!world->one_node()) GTEST_SKIP() << "the page is shared within a node; this world has more";
    RankStatus status(*world);
    EXPECT_EQ(status.page().slots_used.load(), world->size());
    std::set<int> pids;
    for (int r = 0; r < world->size(); ++r) {
        EXPECT_EQ(status.page().slots[r].rank.load(), r);
        pids.insert(status.page().slots[r].pid.load());
        const int pid = status.page().slots[r].pid.load();
        EXPECT_EQ(process_state(pid).start_time, status.page().slots[r].start_time.load());
    }
    EXPECT_EQ(pids.size(), static_cast<std::size_t>(world->size()));
    status.enter(Stage::pack, world->rank());
    world->barrier();
    for (int r = 0; r < world->size(); ++r) {
        EXPECT_EQ(status.page().slots[r].bucket.load(), r);
    }
    world->barrier();
    const bool mine = status.claim_loss();
    int claimed = 0;
    for (const std::string& one : world->allgather(mine ? "1" : "0")) claimed += one == "1" ? 1 : 0;
    EXPECT_EQ(claimed, 1);
    EXPECT_EQ(status.given_up_by_other(), !mine);
    world->barrier();
}

}  // namespace
}  // namespace refit::harness
