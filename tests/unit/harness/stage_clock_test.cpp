// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/stage_clock.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace refit::harness {
namespace {

TEST(StageClock, AddsUpInterleavedStagesAndKnowsOnlyThoseItWasTold) {
    StageClock clock;
    clock.start();
    clock.add(Stage::quantize, 0.25);
    clock.add(Stage::pack, 1.0);
    clock.add(Stage::quantize, 0.5);
    const RefitTimes times = clock.finish();
    ASSERT_EQ(times.stage_s.size(), 2U);
    EXPECT_EQ(times.stage_s.at("quantize"), 0.75);
    EXPECT_EQ(times.stage_s.at("pack"), 1.0);
}

TEST(StageClock, MeasuresWallTimeOfASleepButNoCpuTime) {
    StageClock clock;
    clock.start();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_GE(clock.now_s(), 0.05);
    const RefitTimes times = clock.finish();
    EXPECT_GE(times.wall_s, 0.05);
    EXPECT_LT(times.cpu_s, 0.045);
}

TEST(StageClock, LeavesCpuTimeBetweenPauseAndResumeOut) {
    const auto burn = [](double seconds) {
        const double start = thread_cpu_s();
        while (thread_cpu_s() - start < seconds) {
        }
    };
    StageClock clock;
    clock.start();
    burn(0.01);
    clock.pause();
    burn(0.06);
    clock.resume();
    const RefitTimes times = clock.finish();
    EXPECT_GE(times.cpu_s, 0.01);
    EXPECT_LT(times.cpu_s, 0.05);
    EXPECT_GE(times.wall_s, 0.07);
}

TEST(StageClock, WidensTheSpanOfAStageThatComesAgain) {
    StageClock clock;
    clock.start();
    clock.begin_bucket(0, 10);
    clock.bucket_span(Stage::load, 2.0, 3.0);
    clock.begin_bucket(1, 20);
    clock.bucket_span(Stage::load, 4.0, 5.0);
    clock.bucket_span(Stage::load, 3.5, 4.5);
    clock.bucket_span(Stage::check, 3.0, 3.5);
    const RefitTimes times = clock.finish();
    ASSERT_EQ(times.buckets.size(), 2U);
    EXPECT_EQ(times.buckets[0].stage.at("load"), (std::pair{2.0, 3.0}));
    EXPECT_EQ(times.buckets[1].stage.at("load"), (std::pair{3.5, 5.0}));
    EXPECT_EQ(times.buckets[1].stage.at("check"), (std::pair{3.0, 3.5}));
    EXPECT_EQ(times.buckets[1].index, 1);
    EXPECT_EQ(times.buckets[1].bytes, 20);
}

TEST(StageClock, BeginsAnewAtStart) {
    StageClock clock;
    clock.start();
    clock.add(Stage::load, 1.0);
    clock.begin_bucket(0, 1);
    (void)clock.finish();
    clock.start();
    const RefitTimes times = clock.finish();
    EXPECT_TRUE(times.stage_s.empty());
    EXPECT_TRUE(times.buckets.empty());
}

TEST(StageClock, CountsNoTimeBetweenHaltAndRestart) {
    const std::int64_t begin = harness::steady_now_ns();
    harness::StageClock clock;
    clock.start();
    clock.halt();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const double halted = clock.restart();
    EXPECT_GE(halted, 0.02);
    clock.halt();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const double again = clock.restart();
    const double wall = clock.finish().wall_s;
    const double passed = 1e-9 * static_cast<double>(harness::steady_now_ns() - begin);
    EXPECT_LE(wall + halted + again, passed);
    EXPECT_GE(wall, 0.0);
}

}  // namespace
}  // namespace refit::harness
