// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/ring_transport.hpp"

#include <utility>

#include "transport/wait.hpp"

namespace refit::transport {
namespace {

constexpr std::uint64_t kPage = 4096;

/// Whether a running count has reached a mark, wrap-around included.
bool reached(std::uint32_t count, std::uint32_t mark) {
    return static_cast<std::int32_t>(count - mark) >= 0;
}

}  // namespace

std::uint64_t ring_slot_bytes(const StreamPlan& plan, int trainer) {
    return (largest_piece(plan, trainer) + kPage - 1) / kPage * kPage;
}

std::uint64_t ring_bytes(const StreamPlan& plan, int trainer) {
    const std::uint64_t slots = slot_count(plan, trainer) * ring_slot_bytes(plan, trainer);
    return slots == 0 ? 0 : kRingControlBytes + slots;
}

void RingTransport::attach(std::vector<Ring> rings) {
    rings_ = std::move(rings);
    base_.assign(rings_.size(), 0);
    began_ = false;
}

void RingTransport::begin_refit() {
    book_.begin_refit();
    if (began_) {
        for (std::size_t t = 0; t < base_.size(); ++t) base_[t] += book_.count(static_cast<int>(t));
    }
    began_ = true;
}

std::byte* RingTransport::slot(int trainer, std::uint32_t number) {
    const auto index = number % static_cast<std::uint32_t>(book_.plan().depth);
    return ring(trainer).slots + index * ring(trainer).slot_bytes;
}

int RingTransport::lagging_receiver(std::uint32_t pieces) {
    const std::uint32_t mark = base_[static_cast<std::size_t>(endpoint_.rank)] + pieces;
    for (int r = 0; r < endpoint_.receivers; ++r) {
        // Acquire: what the receiver read from the slot was read before we write to it again.
        if (!reached(ring(endpoint_.rank).counters[1 + r].count.load(std::memory_order_acquire),
                     mark))
            return r;
    }
    return -1;
}

void RingTransport::wait_for_releases(std::uint32_t pieces) {
    const std::uint32_t mark = base_[static_cast<std::size_t>(endpoint_.rank)] + pieces;
    for (;;) {
        const int r = lagging_receiver(pieces);
        if (r < 0) return;
        on_wait(endpoint_);
        std::atomic<std::uint32_t>& count = ring(endpoint_.rank).counters[1 + r].count;
        const std::uint32_t seen = count.load(std::memory_order_acquire);
        if (!reached(seen, mark)) futex_wait(count, seen, kLongestNap);
    }
}

bool RingTransport::can_acquire(std::size_t bucket) {
    const std::uint32_t n = book_.peek_acquire(bucket);
    const auto depth = static_cast<std::uint32_t>(book_.plan().depth);
    return n < depth || lagging_receiver(n - depth + 1) < 0;
}

std::span<std::byte> RingTransport::acquire(std::size_t bucket) {
    const std::uint32_t n = book_.peek_acquire(bucket);
    const auto depth = static_cast<std::uint32_t>(book_.plan().depth);
    if (n >= depth) wait_for_releases(n - depth + 1);
    (void)book_.acquire(bucket);
    return {slot(endpoint_.rank, n), book_.bytes(bucket, endpoint_.rank)};
}

void RingTransport::publish(std::size_t bucket) {
    announce(book_.publish(bucket));
}

void RingTransport::announce(std::uint32_t n) {
    std::atomic<std::uint32_t>& count = ring(endpoint_.rank).counters[0].count;
    // Release: the bytes of the piece are visible to whoever sees the new count.
    count.store(base_[static_cast<std::size_t>(endpoint_.rank)] + n + 1, std::memory_order_release);
    futex_wake(count);
}

bool RingTransport::arrived(std::size_t bucket, int trainer) {
    return is_announced(trainer, book_.number(bucket, trainer));
}

bool RingTransport::is_announced(int trainer, std::uint32_t n) {
    const std::uint32_t mark = base_[static_cast<std::size_t>(trainer)] + n + 1;
    return reached(ring(trainer).counters[0].count.load(std::memory_order_acquire), mark);
}

std::span<const std::byte> RingTransport::receive(std::size_t bucket, int trainer) {
    const std::uint32_t n = book_.peek_receive(bucket, trainer);
    const std::uint32_t mark = base_[static_cast<std::size_t>(trainer)] + n + 1;
    std::atomic<std::uint32_t>& count = ring(trainer).counters[0].count;
    while (!reached(count.load(std::memory_order_acquire), mark)) {
        on_wait(endpoint_);
        const std::uint32_t seen = count.load(std::memory_order_acquire);
        if (!reached(seen, mark)) futex_wait(count, seen, kLongestNap);
    }
    (void)book_.receive(bucket, trainer);
    return {slot(trainer, n), book_.bytes(bucket, trainer)};
}

void RingTransport::release(std::size_t bucket, int trainer) {
    (void)book_.release(bucket, trainer);
    std::atomic<std::uint32_t>& count = ring(trainer).counters[1 + endpoint_.receiver()].count;
    count.store(base_[static_cast<std::size_t>(trainer)] + book_.released(trainer),
                std::memory_order_release);
    futex_wake(count);
}

void RingTransport::finish() {
    book_.check_finished();
    if (began_ && endpoint_.is_trainer()) {
        const std::uint32_t pieces = book_.count(endpoint_.rank);
        if (pieces > 0) wait_for_releases(pieces);
    }
}

void RingTransport::close() {
    rings_.clear();
    book_.close();
}

std::uint64_t RingTransport::buffer_bytes() const {
    return book_.is_open() && endpoint_.is_trainer() ? ring_bytes(book_.plan(), endpoint_.rank) : 0;
}

}  // namespace refit::transport
