// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Which calls were made for which piece. Private to src/transport.
//
// Pieces of one trainer are numbered 0, 1, 2, ... over the buckets in which it sends something;
// number n lives in slot n % depth. Every transport keeps the same book, so a call out of order
// gives the same error everywhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "transport/transport.hpp"

namespace refit::transport {

class PieceBook {
 public:
    /// Throws ShapeError where the plan does not fit the endpoint (a bucket without one size a
    /// trainer, depth < 1).
    void open(const StreamPlan& plan, const Endpoint& endpoint);
    /// Forgets the plan; every call but open() is an error afterwards.
    void close();
    [[nodiscard]] bool is_open() const { return open_; }
    /// Throws ShapeError when pieces of the last refit are not finished.
    void begin_refit();

    // Each of these takes note of one call and returns the number of the piece. They throw
    // ShapeError, which names bucket, trainer and the bucket expected, when the call is out of
    // order or nothing crosses there.
    [[nodiscard]] std::uint32_t peek_acquire(std::size_t bucket) const;
    std::uint32_t acquire(std::size_t bucket);
    std::uint32_t publish(std::size_t bucket);
    [[nodiscard]] std::uint32_t number(std::size_t bucket, int trainer) const;
    [[nodiscard]] std::uint32_t peek_receive(std::size_t bucket, int trainer) const;
    std::uint32_t receive(std::size_t bucket, int trainer);
    std::uint32_t release(std::size_t bucket, int trainer);
    /// Throws ShapeError that says what is missing: a piece acquired but not published, or not
    /// received, or not released.
    void check_finished() const;

    [[nodiscard]] const StreamPlan& plan() const { return plan_; }
    [[nodiscard]] std::uint64_t bytes(std::size_t bucket, int trainer) const {
        return plan_.pieces[bucket][static_cast<std::size_t>(trainer)];
    }
    /// Pieces of a trainer in one refit.
    [[nodiscard]] std::uint32_t count(int trainer) const { return lane(trainer).count; }
    /// Bucket of a piece.
    [[nodiscard]] std::size_t bucket(int trainer, std::uint32_t number) const {
        return lane(trainer).buckets[number];
    }
    /// Pieces that this trainer has handed over.
    [[nodiscard]] std::uint32_t published() const { return lane(endpoint_.rank).published; }
    /// Receiver: the pieces [0, n) of a trainer are released.
    [[nodiscard]] std::uint32_t released(int trainer) const { return lane(trainer).released; }

 private:
    struct Lane {
        std::uint32_t count = 0;
        std::vector<std::size_t> buckets;    ///< by number
        std::vector<std::uint32_t> numbers;  ///< by bucket; kNothing where nothing crosses
        std::uint32_t acquired = 0;          ///< trainer
        std::uint32_t published = 0;         ///< trainer
        std::uint32_t received = 0;          ///< receiver
        std::uint32_t released = 0;          ///< receiver: all below are released
        std::vector<char> released_early;    ///< by slot: released before an older piece was
    };
    static constexpr std::uint32_t kNothing = 0xffffffffu;

    [[nodiscard]] const Lane& lane(int trainer) const {
        return lanes_[static_cast<std::size_t>(trainer)];
    }
    [[nodiscard]] Lane& lane(int trainer) { return lanes_[static_cast<std::size_t>(trainer)]; }
    [[noreturn]] void refuse(const char* call, std::size_t bucket, int trainer,
                             std::uint32_t expected) const;
    void require_role(const char* call, bool trainer) const;

    Endpoint endpoint_;
    StreamPlan plan_;
    std::vector<Lane> lanes_;
    bool open_ = false;
};

/// Size of the largest piece of a trainer; 0 when it sends nothing.
[[nodiscard]] std::uint64_t largest_piece(const StreamPlan& plan, int trainer);
/// Slots that a trainer's pieces need: depth, or fewer where it sends fewer pieces.
[[nodiscard]] std::uint64_t slot_count(const StreamPlan& plan, int trainer);
/// FNV-1a over depth and sizes: equal plans have equal numbers.
[[nodiscard]] std::uint64_t plan_fingerprint(const StreamPlan& plan);

}  // namespace refit::transport
