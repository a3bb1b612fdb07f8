// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A link of a given rate that all trainers share, as a clock: who wants to send reserves the next
// free stretch of it.
#pragma once

#include <atomic>
#include <cstdint>

namespace refit::transport {

class LinkPacer {
 public:
    /// `free_at_ns`: steady-clock time at which the link is free, shared by all who use it. Throws
    /// UsageError when the rate is 0 or the clock is null.
    LinkPacer(std::uint64_t bytes_per_s, std::atomic<std::int64_t>* free_at_ns);

    /// Reserves the link for `bytes` from `now_ns` on; returns the time at which the last byte is
    /// across. Each stretch belongs to one caller, whatever the number of processes that ask.
    [[nodiscard]] std::int64_t reserve(std::uint64_t bytes, std::int64_t now_ns);

    /// Steady-clock nanoseconds; the same clock in all processes of a node.
    [[nodiscard]] static std::int64_t now_ns();

 private:
    double ns_per_byte_;
    std::atomic<std::int64_t>* free_at_ns_;
};

}  // namespace refit::transport
