// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Ranks as threads of the test.
#pragma once

#include <atomic>
#include <exception>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "harness/world.hpp"

namespace refit::harness_test {

/// What ends the waits of a rank when another has thrown.
struct PeerFailed {};

/// Runs `rank_main` once a rank, each in a thread with a world of its own; throws again what the
/// first failing rank threw. `on_wait` is for waits outside of the world: as the world's own, it
/// throws PeerFailed when another rank has failed, so that no test hangs.
inline void run_ranks(
    int size,
    const std::function<void(harness::World&, const std::function<void()>& on_wait)>& rank_main) {
    const std::vector<std::unique_ptr<harness::World>> worlds = harness::make_thread_worlds(size);
    std::atomic<bool> failed{false};
    std::exception_ptr error;
    const std::function<void()> on_wait = [&] {
        if (failed) throw PeerFailed{};
    };
    std::vector<std::thread> threads;
    for (const std::unique_ptr<harness::World>& world : worlds) {
        world->set_on_wait(on_wait);
        threads.emplace_back([&, rank = world.get()] {
            try {
                rank_main(*rank, on_wait);
            } catch (...) {
                if (!failed.exchange(true)) error = std::current_exception();
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    if (error) std::rethrow_exception(error);
}

inline void run_ranks(int size, const std::function<void(harness::World&)>& rank_main) {
    run_ranks(size, [&](harness::World& world, const std::function<void()>&) { rank_main(world); });
}

}  // namespace refit::harness_test
