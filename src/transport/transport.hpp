// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// How buckets cross from trainers to receivers.
//
// A transport moves pieces: what trainer t sends in bucket b, of a size that every rank knows
// beforehand. Every receiver gets to see every byte of every piece, unchanged, in bucket order from
// each trainer. At most `depth` pieces of a trainer are under way; buffers are allocated once per
// open(). A transport knows no shapes and no scales.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

namespace refit::transport {

/// Piece sizes in bytes, the same on every rank. pieces[b][t] may be 0: then nothing crosses and
/// neither acquire, publish, receive nor release is called for it.
struct StreamPlan {
    int depth = 2;
    std::vector<std::vector<std::uint64_t>> pieces;
    /// Pieces are memory of the device on both sides: acquire() and receive() give addresses of
    /// device memory, which the host never follows. Before publish() the caller has waited for all
    /// that writes the piece, before release() for all that reads it. Only where
    /// Transport::piece_device() names a device.
    bool on_device = false;
};

/// Who this endpoint is. Trainers are ranks [0, trainers), receivers [trainers, trainers +
/// receivers).
struct Endpoint {
    int rank = 0;
    int trainers = 1;
    int receivers = 1;
    [[nodiscard]] bool is_trainer() const { return rank < trainers; }
    [[nodiscard]] int receiver() const { return rank - trainers; }
    /// Called in every turn of every wait loop, at least every 20 ms: keeps the rank's beat, throws
    /// when a peer is lost or the time without progress is over. An exception leaves the transport
    /// usable only for destruction.
    std::function<void()> on_wait;
};

class Transport {
 public:
    virtual ~Transport() = default;
    [[nodiscard]] virtual std::string_view name() const = 0;

    /// Number of the device whose memory pieces can be; -1 where pieces are memory of the host
    /// alone.
    [[nodiscard]] virtual int piece_device() const { return -1; }

    /// Collective over the world; `plan` must agree on all ranks. Allocates and registers the
    /// slots.
    virtual void open(const StreamPlan& plan) = 0;
    /// Local. A new pass over the buckets 0 .. n-1 begins; the previous one was finished by every
    /// rank.
    virtual void begin_refit() = 0;

    /// Trainer: the memory of its piece of bucket b (exactly pieces[b][t] bytes, aligned to 64).
    /// Buckets are acquired in order. Waits until fewer than `depth` own pieces are under way.
    virtual std::span<std::byte> acquire(std::size_t bucket) = 0;
    /// Trainer: true when acquire(bucket) would not wait. Does not wait; makes progress. A
    /// decorator that cannot know answers true: acquire then waits by itself.
    virtual bool can_acquire(std::size_t /*bucket*/) { return true; }
    /// Trainer: the piece is complete and may not be written any more. Starts the transfer and
    /// returns at once.
    virtual void publish(std::size_t bucket) = 0;

    /// Receiver: true when the whole piece is here. Does not wait; makes progress.
    virtual bool arrived(std::size_t bucket, int trainer) = 0;
    /// Receiver: the piece; waits for it. Valid until release. Pieces of one trainer are received
    /// in bucket order.
    virtual std::span<const std::byte> receive(std::size_t bucket, int trainer) = 0;
    /// Receiver: done with it; its memory may be used again.
    virtual void release(std::size_t bucket, int trainer) = 0;

    /// Makes progress without waiting. Called from the quantize loop at least once per stripe.
    virtual void progress() = 0;
    /// Waits until everything this rank published has left (trainer) or everything it received is
    /// released (receiver).
    virtual void finish() = 0;
    /// Collective: gives the slots back. open() may follow.
    virtual void close() = 0;

    /// Bytes of buffer memory this rank holds after open(), shared memory counted on the trainer
    /// that owns it.
    [[nodiscard]] virtual std::uint64_t buffer_bytes() const = 0;
};

}  // namespace refit::transport
