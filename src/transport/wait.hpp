// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What every wait loop of a transport is made of. Private to src/transport.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "transport/transport.hpp"

namespace refit::transport {

/// Longest sleep between two calls of Endpoint::on_wait; the contract allows 20 ms.
inline constexpr std::chrono::milliseconds kLongestNap{10};

/// Pause between the turns of a loop that polls a library. Every turn gives the core away, every
/// 128th one sleeps 50 us.
///
/// Sleeping in every turn made MPI without single copy six times slower (64 MiB pieces, 2 ranks on
/// 2 cores: 1.4 against 8.6 GB/s), because each turn moves only a few fragments; never sleeping
/// burns a core that an oversubscribed rank needs.
class Backoff {
 public:
    void pause();

 private:
    unsigned turns_ = 0;
};

/// Calls the endpoint's on_wait where there is one.
inline void on_wait(const Endpoint& endpoint) {
    if (endpoint.on_wait) endpoint.on_wait();
}

/// Sleeps until `word` is no longer `seen`, somebody wakes it, or the time is over. Works between
/// processes.
void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t seen,
                std::chrono::milliseconds longest);
/// Wakes everybody who sleeps on `word`.
void futex_wake(std::atomic<std::uint32_t>& word);

}  // namespace refit::transport
