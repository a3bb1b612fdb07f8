// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "harness/world.hpp"
#include "thread_ranks.hpp"

namespace refit::harness_test {
namespace {

using harness::World;

TEST(ThreadWorld, KnowsItsRanks) {
    run_ranks(3, [](World& world) {
        EXPECT_EQ(world.size(), 3);
        EXPECT_EQ(world.local_size(), 3);
        EXPECT_EQ(world.local_rank(), world.rank());
        EXPECT_EQ(world.local_ranks(), (std::vector<int>{0, 1, 2}));
        EXPECT_TRUE(world.one_node());
        EXPECT_FALSE(world.is_mpi());
    });
}

TEST(ThreadWorld, GivesEveryRankTheBytesOfAllOverManyTurns) {
    for (const int size : {1, 2, 5}) {
        run_ranks(size, [size](World& world) {
            for (int turn = 0; turn < 200; ++turn) {
                // Lengths differ by rank and turn, zero bytes are kept.
                const auto text = [turn](int rank) {
                    return std::string(static_cast<std::size_t>((turn + rank) % 4), '\0') +
                           std::to_string(turn * 10 + rank);
                };
                const std::vector<std::string> all = world.allgather(text(world.rank()));
                ASSERT_EQ(all.size(), static_cast<std::size_t>(size));
                for (int r = 0; r < size; ++r) {
                    ASSERT_EQ(all[static_cast<std::size_t>(r)], text(r)) << turn;
                }
            }
        });
    }
}

TEST(ThreadWorld, GathersOnTheRootAlone) {
    run_ranks(4, [](World& world) {
        for (int root = 0; root < 4; ++root) {
            const auto all = world.gather(root, std::to_string(world.rank()));
            if (world.rank() == root) {
                EXPECT_EQ(all, (std::vector<std::string>{"0", "1", "2", "3"}));
            } else {
                EXPECT_TRUE(all.empty());
            }
        }
    });
}

TEST(ThreadWorld, SaysTrueOnlyWhenAllDo) {
    run_ranks(3, [](World& world) {
        EXPECT_TRUE(world.all_true(true));
        for (int odd = 0; odd < 3; ++odd) EXPECT_FALSE(world.all_true(world.rank() != odd));
        EXPECT_FALSE(world.all_true(false));
        EXPECT_TRUE(world.all_true(true));
    });
}

TEST(ThreadWorld, LetsNoRankPassABarrierBeforeAllCame) {
    std::atomic<int> came{0};
    run_ranks(4, [&](World& world) {
        for (int turn = 1; turn <= 50; ++turn) {
            came.fetch_add(1);
            world.barrier();
            EXPECT_GE(came.load(), turn * 4);
            world.barrier();
        }
    });
}

TEST(ThreadWorld, TakesTheMaximumOverTheTrainersAlone) {
    run_ranks(5, [](World& world) {
        constexpr int kTrainers = 3;
        for (std::uint32_t turn = 0; turn < 100; ++turn) {
            if (world.rank() < kTrainers) {
                const auto rank = static_cast<std::uint32_t>(world.rank());
                // The largest word is a NaN's bits, which an unsigned maximum keeps.
                std::vector<std::uint32_t> words = {rank + turn, 10 - rank,
                                                    rank == 1 ? 0xffffffffU : 0U};
                world.max_over_trainers(kTrainers, words);
                EXPECT_EQ(words, (std::vector<std::uint32_t>{2 + turn, 10, 0xffffffffU}));
            } else {
                world.barrier();  // Receivers are elsewhere meanwhile.
                continue;
            }
            world.barrier();
        }
    });
}

TEST(ThreadWorld, LeavesTheWordsOfASingleTrainerAlone) {
    run_ranks(2, [](World& world) {
        if (world.rank() != 0) return;
        std::vector<std::uint32_t> words = {4, 5};
        world.max_over_trainers(1, words);
        EXPECT_EQ(words, (std::vector<std::uint32_t>{4, 5}));
    });
}

TEST(ThreadWorld, CallsOnWaitWhileItWaitsAndLetsItThrow) {
    struct GaveUp {};
    std::atomic<bool> thrown{false};
    run_ranks(2, [&](World& world) {
        if (world.rank() == 1) return;  // Never comes.
        world.set_on_wait([turn = 0]() mutable {
            if (++turn == 3) throw GaveUp{};
        });
        try {
            world.barrier();
        } catch (const GaveUp&) {
            thrown = true;
        }
    });
    EXPECT_TRUE(thrown);
}

TEST(BroadcastText, GivesRankZerosTextToAll) {
    run_ranks(3, [](World& world) {
        EXPECT_EQ(harness::broadcast_text(world, "from " + std::to_string(world.rank())), "from 0");
    });
}

}  // namespace
}  // namespace refit::harness_test
