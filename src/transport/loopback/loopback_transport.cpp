// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/loopback/loopback_transport.hpp"

#include <fmt/format.h>

#include <atomic>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "core/aligned_buffer.hpp"
#include "core/error.hpp"
#include "transport/ring_transport.hpp"
#include "transport/wait.hpp"

namespace refit::transport {

/// Where the threads meet: a barrier that calls on_wait, the rings that trainers offer, the plans
/// to compare.
class LoopbackHub {
 public:
    LoopbackHub(int trainers, int receivers)
        : trainers_(trainers),
          receivers_(receivers),
          rings_(static_cast<std::size_t>(trainers)),
          fingerprints_(static_cast<std::size_t>(trainers + receivers)) {}

    [[nodiscard]] int trainers() const { return trainers_; }
    [[nodiscard]] int receivers() const { return receivers_; }

    /// Returns when every rank has called it. What was written to the hub before is visible to all
    /// afterwards.
    void barrier(const Endpoint& endpoint) {
        const std::uint32_t generation = generation_.load(std::memory_order_acquire);
        if (here_.fetch_add(1, std::memory_order_acq_rel) + 1 == trainers_ + receivers_) {
            here_.store(0, std::memory_order_relaxed);
            generation_.fetch_add(1, std::memory_order_release);
            futex_wake(generation_);
            return;
        }
        while (generation_.load(std::memory_order_acquire) == generation) {
            on_wait(endpoint);
            futex_wait(generation_, generation, kLongestNap);
        }
    }

    // Between two barriers only the rank concerned writes its element; after the second one all
    // read.
    [[nodiscard]] Ring& ring(int trainer) { return rings_[static_cast<std::size_t>(trainer)]; }
    [[nodiscard]] std::uint64_t& fingerprint(int rank) {
        return fingerprints_[static_cast<std::size_t>(rank)];
    }

 private:
    int trainers_;
    int receivers_;
    std::vector<Ring> rings_;
    std::vector<std::uint64_t> fingerprints_;
    std::atomic<int> here_{0};
    std::atomic<std::uint32_t> generation_{0};
};

std::shared_ptr<LoopbackHub> make_loopback_hub(int trainers, int receivers) {
    if (trainers < 1 || receivers < 1) {
        throw core::UsageError(fmt::format(
            "a loopback world of {} trainers and {} receivers; it needs at least one of each",
            trainers, receivers));
    }
    return std::make_shared<LoopbackHub>(trainers, receivers);
}

namespace {

class LoopbackTransport final : public RingTransport {
 public:
    LoopbackTransport(std::shared_ptr<LoopbackHub> hub, Endpoint endpoint)
        : RingTransport(std::move(endpoint)), hub_(std::move(hub)) {}

    [[nodiscard]] std::string_view name() const override { return "loopback"; }

    void open(const StreamPlan& plan) override {
        const int rank = endpoint().rank;
        book().open(plan, endpoint());
        Ring own;
        if (endpoint().is_trainer()) {
            own = allocate(plan, rank);
            hub_->ring(rank) = own;
        }
        hub_->fingerprint(rank) = plan_fingerprint(plan);
        hub_->barrier(endpoint());
        std::vector<Ring> rings(static_cast<std::size_t>(endpoint().trainers));
        int stranger = -1;
        for (int r = 0; r < endpoint().trainers + endpoint().receivers; ++r) {
            if (hub_->fingerprint(r) != hub_->fingerprint(0) && stranger < 0) stranger = r;
        }
        if (endpoint().is_trainer()) {
            rings[static_cast<std::size_t>(rank)] = std::move(own);
        } else {
            for (int t = 0; t < endpoint().trainers; ++t)
                rings[static_cast<std::size_t>(t)] = hub_->ring(t);
        }
        // Nobody may write to the hub for the next open() before all have read.
        hub_->barrier(endpoint());
        if (endpoint().is_trainer()) hub_->ring(rank) = Ring{};
        if (stranger >= 0) {
            book().close();
            throw core::ShapeError(
                fmt::format("the stream plan of rank {} differs from that of rank 0", stranger));
        }
        attach(std::move(rings));
    }

 private:
    static Ring allocate(const StreamPlan& plan, int trainer) {
        const std::uint64_t bytes = ring_bytes(plan, trainer);
        if (bytes == 0) return Ring{};
        auto memory = std::make_shared<core::AlignedBuffer>(bytes);
        std::memset(memory->data(), 0,
                    bytes);  // touched here, so that no timed refit pays for page faults
        Ring ring;
        ring.counters = reinterpret_cast<RingCounter*>(memory->data());
        for (std::size_t i = 0; i < kRingControlBytes / sizeof(RingCounter); ++i)
            new (ring.counters + i) RingCounter;
        ring.slots = memory->data() + kRingControlBytes;
        ring.slot_bytes = ring_slot_bytes(plan, trainer);
        ring.owner = std::move(memory);
        return ring;
    }

    std::shared_ptr<LoopbackHub> hub_;
};

}  // namespace

std::unique_ptr<Transport> make_loopback_transport(std::shared_ptr<LoopbackHub> hub,
                                                   const Endpoint& endpoint) {
    if (!hub)
        throw core::UsageError(
            "transport loopback needs a hub that the threads of the world share");
    if (hub->trainers() != endpoint.trainers || hub->receivers() != endpoint.receivers) {
        throw core::UsageError(fmt::format(
            "rank {} wants {} trainers and {} receivers, the loopback hub has {} and {}",
            endpoint.rank, endpoint.trainers, endpoint.receivers, hub->trainers(),
            hub->receivers()));
    }
    if (endpoint.receivers > kLargestRingReceivers) {
        throw core::NotViable(fmt::format("loopback takes at most {} receivers, found {}",
                                          kLargestRingReceivers, endpoint.receivers));
    }
    return std::make_unique<LoopbackTransport>(std::move(hub), endpoint);
}

}  // namespace refit::transport
