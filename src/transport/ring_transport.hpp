// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Transport through memory that trainer and receivers both see: the trainer writes a slot once,
// every receiver reads it in place. loopback and mpi_window differ only in where that memory comes
// from. Private to src/transport.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "transport/piece_book.hpp"
#include "transport/transport.hpp"

namespace refit::transport {

/// One counter on a cache line of its own. Counts run on over refits and wrap at 2^32.
struct alignas(64) RingCounter {
    std::atomic<std::uint32_t> count{0};
};
/// Counters in front of the slots: [0] pieces published, [1 + r] pieces released by receiver r.
inline constexpr std::uint64_t kRingControlBytes = 64 * 1024;
inline constexpr int kLargestRingReceivers =
    static_cast<int>(kRingControlBytes / sizeof(RingCounter)) - 1;

/// Bytes of one slot: the largest piece of the trainer, rounded up to pages so that every slot is
/// aligned.
[[nodiscard]] std::uint64_t ring_slot_bytes(const StreamPlan& plan, int trainer);
/// Counters and slots of one trainer; 0 when it sends nothing.
[[nodiscard]] std::uint64_t ring_bytes(const StreamPlan& plan, int trainer);

/// One trainer's memory as this rank sees it. `owner` keeps it mapped.
struct Ring {
    RingCounter* counters = nullptr;
    std::byte* slots = nullptr;  ///< receivers may only read here
    std::uint64_t slot_bytes = 0;
    std::shared_ptr<void> owner;
};

/// All but open() and close(). One thread at a time; publish() may be called from on_wait.
class RingTransport : public Transport {
 public:
    void begin_refit() override;
    std::span<std::byte> acquire(std::size_t bucket) override;
    bool can_acquire(std::size_t bucket) override;
    void publish(std::size_t bucket) override;
    bool arrived(std::size_t bucket, int trainer) override;
    std::span<const std::byte> receive(std::size_t bucket, int trainer) override;
    void release(std::size_t bucket, int trainer) override;
    void progress() override {}
    void finish() override;
    void close() override;
    [[nodiscard]] std::uint64_t buffer_bytes() const override;

 protected:
    explicit RingTransport(Endpoint endpoint) : endpoint_(std::move(endpoint)) {}
    /// After book().open(): the rings of all trainers, or only the own one on a trainer (the others
    /// stay empty).
    void attach(std::vector<Ring> rings);
    /// Trainer: piece `number` of this refit is complete; its receivers are told.
    void announce(std::uint32_t number);
    /// Receiver: whether the trainer has announced piece `number` of this refit.
    [[nodiscard]] bool is_announced(int trainer, std::uint32_t number);
    [[nodiscard]] std::byte* slot(int trainer, std::uint32_t number);
    [[nodiscard]] PieceBook& book() { return book_; }
    [[nodiscard]] const Endpoint& endpoint() const { return endpoint_; }

 private:
    [[nodiscard]] Ring& ring(int trainer) { return rings_[static_cast<std::size_t>(trainer)]; }
    /// Trainer: waits until every receiver has released the first `pieces` pieces of this refit.
    void wait_for_releases(std::uint32_t pieces);
    /// Index of a receiver that has not, or -1.
    [[nodiscard]] int lagging_receiver(std::uint32_t pieces);

    Endpoint endpoint_;
    PieceBook book_;
    std::vector<Ring> rings_;
    std::vector<std::uint32_t> base_;  ///< counts at the start of this refit, by trainer
    bool began_ = false;
};

}  // namespace refit::transport
