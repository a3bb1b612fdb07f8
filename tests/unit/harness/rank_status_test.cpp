// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/rank_status.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "thread_ranks.hpp"

namespace refit::harness_test {
namespace {

using harness::process_state;
using harness::RankStatus;
using harness::Stage;
using harness::StatusPage;
using harness::World;

/// Ranks of one process over one page, without threads.
struct Ranks {
    std::unique_ptr<StatusPage> page = std::make_unique<StatusPage>();
    std::vector<std::unique_ptr<World>> worlds;
    std::vector<std::unique_ptr<RankStatus>> status;

    explicit Ranks(int size) : worlds(harness::make_thread_worlds(size)) {
        for (auto& world : worlds) status.push_back(std::make_unique<RankStatus>(*world, *page));
    }
};

TEST(RankStatusClaim, IsTakenOnceForALoss) {
    Ranks ranks(3);
    for (auto& status : ranks.status) EXPECT_FALSE(status->given_up_by_other());
    EXPECT_TRUE(ranks.status[1]->claim_loss());
    EXPECT_FALSE(ranks.status[1]->claim_loss());
    EXPECT_FALSE(ranks.status[0]->claim_loss());
    EXPECT_FALSE(ranks.status[2]->claim_end());
    EXPECT_TRUE(ranks.status[0]->given_up_by_other());
    EXPECT_FALSE(ranks.status[1]->given_up_by_other());
    EXPECT_TRUE(ranks.status[2]->given_up_by_other());
}

TEST(RankStatusClaim, OfAnEndKeepsALossOutAndGivesNothingUp) {
    Ranks ranks(2);
    EXPECT_TRUE(ranks.status[0]->claim_end());
    EXPECT_FALSE(ranks.status[0]->claim_end());
    EXPECT_FALSE(ranks.status[0]->claim_loss());
    EXPECT_FALSE(ranks.status[1]->claim_loss());
    EXPECT_FALSE(ranks.status[1]->given_up_by_other());
    EXPECT_FALSE(ranks.status[0]->given_up_by_other());
}

TEST(RankStatusClaim, GoesToExactlyOneOfManyThreads) {
    for (int turn = 0; turn < 20; ++turn) {
        StatusPage page;
        std::atomic<int> taken{0};
        run_ranks(4, [&](World& world) {
            RankStatus status(world, page);
            world.barrier();
            if (world.rank() % 2 == 0 ? status.claim_loss() : status.claim_end()) ++taken;
        });
        EXPECT_EQ(taken, 1);
    }
}

TEST(RankStatus, WritesWhereItIsIntoItsOwnSlot) {
    Ranks ranks(2);
    std::vector<std::pair<Stage, std::int64_t>> entered;
    ranks.status[1]->set_on_enter(
        [&](Stage stage, std::int64_t bucket) { entered.emplace_back(stage, bucket); });
    const std::uint64_t before = ranks.page->slots[1].progress.load();
    ranks.status[1]->enter(Stage::quantize, 7);
    EXPECT_EQ(ranks.status[1]->stage(), Stage::quantize);
    EXPECT_EQ(ranks.page->slots[1].bucket.load(), 7);
    EXPECT_GT(ranks.page->slots[1].progress.load(), before);
    EXPECT_EQ(ranks.page->slots[1].rank.load(), 1);
    EXPECT_EQ(ranks.page->slots[1].pid.load(), getpid());
    EXPECT_EQ(ranks.status[0]->stage(), Stage::setup);
    EXPECT_EQ(entered, (std::vector<std::pair<Stage, std::int64_t>>{{Stage::quantize, 7}}));
    ranks.status[1]->leave();
    EXPECT_EQ(ranks.page->slots[1].exiting.load(), 1);
    EXPECT_EQ(ranks.page->slots[0].exiting.load(), 0);
}

TEST(RankStatus, CountsABeatAsLifeAndNotAsProgress) {
    Ranks ranks(1);
    const std::uint64_t progress = ranks.page->slots[0].progress.load();
    ranks.page->slots[0].beat_ns.store(0);
    ranks.status[0]->beat();
    EXPECT_GT(ranks.page->slots[0].beat_ns.load(), 0);
    EXPECT_EQ(ranks.page->slots[0].progress.load(), progress);
    ranks.status[0]->progressed();
    EXPECT_EQ(ranks.page->slots[0].progress.load(), progress + 1);
}

TEST(RankStatus, RefusesMoreRanksThanThePageHasSlots) {
    const auto worlds = harness::make_thread_worlds(harness::kMaxLocalRanks + 1);
    StatusPage page;
    EXPECT_THROW(RankStatus(*worlds[0], page), core::ResourceError);
}

TEST(RankStatusPage, IsSharedWithAForkedProcessAndHasNoNameAnyMore) {
    const auto worlds = harness::make_thread_worlds(1);
    RankStatus status(*worlds[0]);
    EXPECT_EQ(status.page().claim.load(), -1);
    EXPECT_EQ(status.page().slots_used.load(), 1);
    for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) {
        EXPECT_EQ(entry.path().string().find("refitbench.status." + std::to_string(getpid()) + "."),
                  std::string::npos);
    }
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        status.enter(Stage::load, 5);
        _exit(0);
    }
    int code = 0;
    ASSERT_EQ(waitpid(child, &code, 0), child);
    EXPECT_EQ(status.stage(), Stage::load);
    EXPECT_EQ(status.page().slots[0].bucket.load(), 5);
}

TEST(ProcessState, SeesThisProcessRun) {
    const harness::ProcessState state = process_state(getpid());
    EXPECT_EQ(state.state, 'R');
    EXPECT_GT(state.start_time, 0U);
    EXPECT_EQ(process_state(getpid()).start_time, state.start_time);
    // An older process started no later.
    EXPECT_LE(process_state(getppid()).start_time, state.start_time);
}

TEST(ProcessState, TellsStoppedDeadAndGone) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        for (;;) pause();
    }
    kill(child, SIGSTOP);
    int code = 0;
    ASSERT_EQ(waitpid(child, &code, WUNTRACED), child);
    EXPECT_EQ(process_state(child).state, 'T');
    kill(child, SIGKILL);
    siginfo_t info{};
    ASSERT_EQ(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT), 0);
    EXPECT_EQ(process_state(child).state, 'Z');
    ASSERT_EQ(waitpid(child, &code, 0), child);
    EXPECT_EQ(process_state(child).state, 0);
    EXPECT_EQ(process_state(child).start_time, 0U);
}

TEST(StageNames, AreThoseOfTheRecord) {
    const std::vector<std::string> names = {
        "setup",     "handshake", "source", "gather", "quantize", "staging", "pack",
        "broadcast", "check",     "load",   "commit", "audit",    "record"};
    for (std::size_t i = 0; i < names.size(); ++i) {
        EXPECT_EQ(harness::stage_name(static_cast<Stage>(i)), names[i]);
    }
}

}  // namespace
}  // namespace refit::harness_test
