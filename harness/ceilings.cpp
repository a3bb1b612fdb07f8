// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/ceilings.hpp"

#include <algorithm>
#include <cstring>
#include <string>

#include "core/aligned_buffer.hpp"

namespace refit::harness {
namespace {

/// Largest number that any rank holds.
double max_over_ranks(World& world, double mine) {
    const std::string bytes(reinterpret_cast<const char*>(&mine), sizeof mine);
    double largest = mine;
    for (const std::string& one : world.allgather(bytes)) {
        double value = 0.0;
        std::memcpy(&value, one.data(), sizeof value);
        largest = std::max(largest, value);
    }
    return largest;
}

}  // namespace

double measure_memory_copy(World& world, RankStatus& status) {
    constexpr std::size_t kBytes = std::size_t{32} << 20;  // well beyond the caches of a core
    constexpr int kCopies = 4;
    core::AlignedBuffer from(kBytes);
    core::AlignedBuffer to(kBytes);
    std::memset(from.data(), 1, kBytes);
    std::memset(to.data(), 2, kBytes);
    double best = 0.0;
    for (int round = 0; round < 3; ++round) {
        status.progressed();
        world.barrier();
        const std::int64_t start = steady_now_ns();
        for (int copy = 0; copy < kCopies; ++copy) {
            std::memcpy(to.data(), from.data(), kBytes);
            // The compiler must not see that only the last copy matters.
            asm volatile("" : : "r"(to.data()) : "memory");
        }
        const double seconds =
            max_over_ranks(world, 1e-9 * static_cast<double>(steady_now_ns() - start));
        best = std::max(best, 2.0 * kCopies * static_cast<double>(kBytes) * world.size() / seconds);
    }
    return best;
}

double measure_transport(World& world, RankStatus& status, transport::Transport& transport,
                         int trainers, std::uint64_t bucket_bytes, int depth) {
    constexpr std::size_t kBuckets = 8;
    transport::StreamPlan plan;
    plan.depth = depth;
    const std::uint64_t piece =
        std::max<std::uint64_t>(64, bucket_bytes / static_cast<std::uint64_t>(trainers) / 64 * 64);
    plan.pieces.assign(kBuckets,
                       std::vector<std::uint64_t>(static_cast<std::size_t>(trainers), piece));
    transport.open(plan);
    // Where receivers read the sender's memory in place, a copy of theirs completes the transfer.
    const bool in_place = transport.name() != "mpi";
    core::AlignedBuffer private_copy(world.rank() >= trainers && in_place ? piece : 0);
    double best = 0.0;
    for (int round = 0; round < 2; ++round) {
        status.progressed();
        transport.begin_refit();
        if (private_copy.size() != 0) std::memset(private_copy.data(), 0, private_copy.size());
        world.barrier();
        const std::int64_t start = steady_now_ns();
        for (std::size_t b = 0; b < kBuckets; ++b) {
            if (world.rank() < trainers) {
                const std::span<std::byte> slot = transport.acquire(b);
                // One line is written, so that the receiver sees a piece of this round.
                std::memset(slot.data(), static_cast<int>(b), 64);
                transport.publish(b);
            } else {
                for (int t = 0; t < trainers; ++t) {
                    const std::span<const std::byte> arrived = transport.receive(b, t);
                    if (in_place) std::memcpy(private_copy.data(), arrived.data(), arrived.size());
                    transport.release(b, t);
                }
            }
            status.progressed();
        }
        transport.finish();
        const double seconds =
            max_over_ranks(world, 1e-9 * static_cast<double>(steady_now_ns() - start));
        best = std::max(best, static_cast<double>(piece) * static_cast<double>(trainers) *
                                  static_cast<double>(kBuckets) / seconds);
    }
    transport.close();
    return best;
}

}  // namespace refit::harness
