// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/link_pacer.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/error.hpp"

namespace refit::transport {

LinkPacer::LinkPacer(std::uint64_t bytes_per_s, std::atomic<std::int64_t>* free_at_ns)
    : ns_per_byte_(0), free_at_ns_(free_at_ns) {
    if (bytes_per_s == 0) throw core::UsageError("a paced link needs a rate above 0 bytes/s");
    if (free_at_ns == nullptr) {
        throw core::UsageError(
            "a paced link needs a clock that all trainers of the node share (link_free_at_ns)");
    }
    ns_per_byte_ = 1e9 / static_cast<double>(bytes_per_s);
}

std::int64_t LinkPacer::reserve(std::uint64_t bytes, std::int64_t now_ns) {
    const auto length =
        static_cast<std::int64_t>(std::ceil(static_cast<double>(bytes) * ns_per_byte_));
    std::int64_t free_at = free_at_ns_->load(std::memory_order_relaxed);
    for (;;) {
        const std::int64_t end = std::max(now_ns, free_at) + length;
        if (free_at_ns_->compare_exchange_weak(free_at, end, std::memory_order_relaxed)) return end;
    }
}

std::int64_t LinkPacer::now_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

}  // namespace refit::transport
