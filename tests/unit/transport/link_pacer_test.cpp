// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/link_pacer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>
#include <thread>
#include <vector>

#include "core/error.hpp"

namespace refit::transport {
namespace {

TEST(LinkPacer, TakesBytesDividedByRate) {
    std::atomic<std::int64_t> clock{0};
    LinkPacer pacer(1'000'000'000, &clock);  // one byte a nanosecond
    EXPECT_EQ(pacer.reserve(500, 1000), 1500);
    // The link is busy until 1500, so the next piece starts there.
    EXPECT_EQ(pacer.reserve(100, 1200), 1600);
    // An idle link starts at once; time that nobody used is not made up for.
    EXPECT_EQ(pacer.reserve(10, 5000), 5010);
}

TEST(LinkPacer, RoundsUpSoThatTheRateIsNeverExceeded) {
    std::atomic<std::int64_t> clock{0};
    LinkPacer pacer(3'000'000'000, &clock);
    EXPECT_EQ(pacer.reserve(1, 0), 1);
    EXPECT_EQ(pacer.reserve(10, 1), 1 + 4);
}

TEST(LinkPacer, IsOneLinkForAllWhoShareTheClock) {
    std::atomic<std::int64_t> clock{0};
    std::vector<std::int64_t> ends;
    std::mutex mutex;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            LinkPacer pacer(1'000'000'000, &clock);
            for (int i = 0; i < 1000; ++i) {
                const std::int64_t end = pacer.reserve(7, 0);
                const std::lock_guard lock(mutex);
                ends.push_back(end);
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    std::sort(ends.begin(), ends.end());
    for (std::size_t i = 0; i < ends.size(); ++i)
        ASSERT_EQ(ends[i], static_cast<std::int64_t>(7 * (i + 1)));
}

TEST(LinkPacer, RefusesNoRateAndNoClock) {
    std::atomic<std::int64_t> clock{0};
    EXPECT_THROW(LinkPacer(0, &clock), core::UsageError);
    EXPECT_THROW(LinkPacer(1, nullptr), core::UsageError);
}

}  // namespace
}  // namespace refit::transport
