// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/rank_agreement.hpp"

#include <gtest/gtest.h>

#include <new>
#include <stdexcept>
#include <string>

#include "thread_ranks.hpp"

namespace refit::harness_test {
namespace {

using harness::AgreedError;
using harness::together;
using harness::World;

struct Outcome {
    std::string words;
    core::ExitCode code = core::ExitCode::as_expected;
    int rank = -2;
    bool operator==(const Outcome&) const = default;
};

/// What every rank got from the same step; fails the test where they differ.
Outcome outcome_of(int size, const std::function<void(World&)>& step) {
    std::vector<Outcome> all(static_cast<std::size_t>(size));
    run_ranks(size, [&](World& world) {
        Outcome& mine = all[static_cast<std::size_t>(world.rank())];
        try {
            together(world, [&] { step(world); });
        } catch (const AgreedError& error) {
            mine = {error.what(), error.code(), error.rank};
        }
        // The world is still in step.
        EXPECT_TRUE(world.all_true(true));
    });
    for (const Outcome& one : all) EXPECT_EQ(one, all.front());
    return all.front();
}

TEST(Together, PassesWhenAllPass) {
    EXPECT_EQ(outcome_of(3, [](World&) {}), Outcome{});
}

TEST(Together, MakesAllThrowTheWordsOfTheRankThatFailed) {
    const Outcome outcome = outcome_of(3, [](World& world) {
        if (world.rank() == 2) throw core::ScenarioError("no such key");
    });
    EXPECT_EQ(outcome.words, "rank 2: no such key");
    EXPECT_EQ(outcome.code, core::ExitCode::usage);
    EXPECT_EQ(outcome.rank, 2);
}

TEST(Together, NamesTheFirstOfSeveralFailingRanks) {
    const Outcome outcome = outcome_of(4, [](World& world) {
        if (world.rank() >= 1) throw core::FileError("file of " + std::to_string(world.rank()));
    });
    EXPECT_EQ(outcome.words, "rank 1: file of 1");
    EXPECT_EQ(outcome.code, core::ExitCode::environment);
    EXPECT_EQ(outcome.rank, 1);
}

TEST(Together, NamesNoRankWhenAllFailAlike) {
    const Outcome outcome = outcome_of(3, [](World&) { throw core::NotViable("needs a GPU"); });
    EXPECT_EQ(outcome.words, "needs a GPU");
    EXPECT_EQ(outcome.code, core::ExitCode::nothing);
    EXPECT_EQ(outcome.rank, -1);
}

TEST(Together, TellsOutOfMemoryAndOtherErrorsAsEnvironment) {
    const Outcome memory = outcome_of(2, [](World& world) {
        if (world.rank() == 1) throw std::bad_alloc();
    });
    EXPECT_NE(memory.words.find("rank 1: out of memory"), std::string::npos) << memory.words;
    EXPECT_EQ(memory.code, core::ExitCode::environment);
    const Outcome other = outcome_of(2, [](World& world) {
        if (world.rank() == 0) throw std::runtime_error("3 words here");
    });
    EXPECT_EQ(other.words, "rank 0: 3 words here");
}

TEST(Together, KeepsTheWordsOfTheOnlyRank) {
    const Outcome outcome = outcome_of(1, [](World&) { throw core::UsageError("what"); });
    EXPECT_EQ(outcome.words, "what");
    EXPECT_EQ(outcome.code, core::ExitCode::usage);
}

}  // namespace
}  // namespace refit::harness_test
