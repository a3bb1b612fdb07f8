// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/piece_book.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.hpp"

namespace refit::transport {

void PieceBook::open(const StreamPlan& plan, const Endpoint& endpoint) {
    if (open_) throw core::ShapeError("open() on a transport that is open; call close() first");
    if (plan.depth < 1) {
        throw core::ShapeError(
            fmt::format("a stream of depth {}; at least 1 piece must be under way", plan.depth));
    }
    const auto trainers = static_cast<std::size_t>(endpoint.trainers);
    std::vector<Lane> lanes(trainers);
    for (Lane& lane : lanes) lane.numbers.reserve(plan.pieces.size());
    for (std::size_t bucket = 0; bucket < plan.pieces.size(); ++bucket) {
        if (plan.pieces[bucket].size() != trainers) {
            throw core::ShapeError(
                fmt::format("bucket {} of the stream plan has sizes for {} trainers, expected {}",
                            bucket, plan.pieces[bucket].size(), trainers));
        }
        for (std::size_t t = 0; t < trainers; ++t) {
            Lane& lane = lanes[t];
            if (plan.pieces[bucket][t] == 0) {
                lane.numbers.push_back(kNothing);
            } else {
                lane.numbers.push_back(lane.count++);
                lane.buckets.push_back(bucket);
            }
        }
    }
    for (Lane& lane : lanes) {
        lane.released_early.assign(static_cast<std::size_t>(plan.depth), 0);
        // As after a finished refit.
        lane.acquired = lane.published = lane.received = lane.released = lane.count;
    }
    endpoint_ = endpoint;
    plan_ = plan;
    lanes_ = std::move(lanes);
    open_ = true;
}

void PieceBook::close() {
    open_ = false;
    lanes_.clear();
    plan_ = StreamPlan{};
}

void PieceBook::begin_refit() {
    if (!open_) throw core::ShapeError("begin_refit() on a transport that is not open");
    check_finished();
    for (Lane& lane : lanes_) lane.acquired = lane.published = lane.received = lane.released = 0;
}

void PieceBook::refuse(const char* call, std::size_t bucket, int trainer,
                       std::uint32_t expected) const {
    const Lane& l = lane(trainer);
    const std::string wanted = expected < l.count ? fmt::format("bucket {}", l.buckets[expected])
                                                  : std::string("no further piece in this refit");
    throw core::ShapeError(fmt::format("{} of bucket {}, trainer {}: out of order, expected {}",
                                       call, bucket, trainer, wanted));
}

void PieceBook::require_role(const char* call, bool trainer) const {
    if (!open_) throw core::ShapeError(fmt::format("{} on a transport that is not open", call));
    if (endpoint_.is_trainer() != trainer) {
        throw core::ShapeError(fmt::format("{} called on rank {}, which is a {}", call,
                                           endpoint_.rank,
                                           endpoint_.is_trainer() ? "trainer" : "receiver"));
    }
}

std::uint32_t PieceBook::number(std::size_t bucket, int trainer) const {
    if (!open_) throw core::ShapeError("the transport is not open");
    if (bucket >= plan_.pieces.size() || trainer < 0 || trainer >= endpoint_.trainers) {
        throw core::ShapeError(fmt::format(
            "bucket {} of trainer {} is not in the stream plan: it has {} buckets of {} trainers",
            bucket, trainer, plan_.pieces.size(), endpoint_.trainers));
    }
    const std::uint32_t number = lane(trainer).numbers[bucket];
    if (number == kNothing) {
        throw core::ShapeError(
            fmt::format("trainer {} sends nothing in bucket {}; skip it", trainer, bucket));
    }
    return number;
}

std::uint32_t PieceBook::peek_acquire(std::size_t bucket) const {
    require_role("acquire", true);
    const std::uint32_t n = number(bucket, endpoint_.rank);
    if (n != lane(endpoint_.rank).acquired)
        refuse("acquire", bucket, endpoint_.rank, lane(endpoint_.rank).acquired);
    return n;
}

std::uint32_t PieceBook::acquire(std::size_t bucket) {
    const std::uint32_t n = peek_acquire(bucket);
    ++lane(endpoint_.rank).acquired;
    return n;
}

std::uint32_t PieceBook::publish(std::size_t bucket) {
    require_role("publish", true);
    const std::uint32_t n = number(bucket, endpoint_.rank);
    Lane& l = lane(endpoint_.rank);
    if (n != l.published || n >= l.acquired) refuse("publish", bucket, endpoint_.rank, l.published);
    ++l.published;
    return n;
}

std::uint32_t PieceBook::peek_receive(std::size_t bucket, int trainer) const {
    require_role("receive", false);
    const std::uint32_t n = number(bucket, trainer);
    const Lane& l = lane(trainer);
    if (n != l.received) refuse("receive", bucket, trainer, l.received);
    // More than depth pieces held would wait for a piece that cannot be sent before one of them is
    // released.
    if (n >= l.released + static_cast<std::uint32_t>(plan_.depth)) {
        throw core::ShapeError(fmt::format(
            "receive of bucket {}, trainer {}: bucket {} is still held and only {} pieces "
            "of a trainer can be under way; release it first",
            bucket, trainer, l.buckets[l.released], plan_.depth));
    }
    return n;
}

std::uint32_t PieceBook::receive(std::size_t bucket, int trainer) {
    const std::uint32_t n = peek_receive(bucket, trainer);
    ++lane(trainer).received;
    return n;
}

std::uint32_t PieceBook::release(std::size_t bucket, int trainer) {
    require_role("release", false);
    const std::uint32_t n = number(bucket, trainer);
    Lane& l = lane(trainer);
    const auto depth = static_cast<std::uint32_t>(plan_.depth);
    if (n >= l.received || n < l.released || l.released_early[n % depth] != 0) {
        throw core::ShapeError(fmt::format(
            "release of bucket {}, trainer {}: that piece is not held", bucket, trainer));
    }
    l.released_early[n % depth] = 1;
    while (l.released < l.received && l.released_early[l.released % depth] != 0) {
        l.released_early[l.released % depth] = 0;
        ++l.released;
    }
    return n;
}

void PieceBook::check_finished() const {
    if (!open_) throw core::ShapeError("finish() on a transport that is not open");
    for (int t = 0; t < endpoint_.trainers; ++t) {
        const Lane& l = lane(t);
        if (endpoint_.is_trainer()) {
            if (t != endpoint_.rank || l.published == l.count) continue;
            throw core::ShapeError(fmt::format(
                "refit not finished: trainer {} published {} of {} pieces, next is bucket {}", t,
                l.published, l.count, l.buckets[l.published]));
        }
        if (l.received != l.count) {
            throw core::ShapeError(fmt::format(
                "refit not finished: receiver {} received {} of {} pieces of trainer {}, "
                "next is bucket {}",
                endpoint_.receiver(), l.received, l.count, t, l.buckets[l.received]));
        }
        if (l.released != l.count) {
            throw core::ShapeError(
                fmt::format("refit not finished: receiver {} still holds bucket {} of trainer {}",
                            endpoint_.receiver(), l.buckets[l.released], t));
        }
    }
}

std::uint64_t largest_piece(const StreamPlan& plan, int trainer) {
    std::uint64_t largest = 0;
    for (const auto& bucket : plan.pieces)
        largest = std::max(largest, bucket[static_cast<std::size_t>(trainer)]);
    return largest;
}

std::uint64_t slot_count(const StreamPlan& plan, int trainer) {
    std::uint64_t pieces = 0;
    for (const auto& bucket : plan.pieces)
        pieces += bucket[static_cast<std::size_t>(trainer)] == 0 ? 0u : 1u;
    return std::min(pieces, static_cast<std::uint64_t>(std::max(plan.depth, 0)));
}

std::uint64_t plan_fingerprint(const StreamPlan& plan) {
    std::uint64_t hash = 0xcbf29ce484222325ull;
    const auto mix = [&hash](std::uint64_t value) {
        for (int i = 0; i < 8; ++i) {
            hash = (hash ^ ((value >> (8 * i)) & 0xff)) * 0x100000001b3ull;
        }
    };
    mix(static_cast<std::uint64_t>(plan.depth));
    mix(plan.on_device ? 1 : 0);
    for (const auto& bucket : plan.pieces) {
        mix(bucket.size());
        for (const std::uint64_t bytes : bucket) mix(bytes);
    }
    return hash;
}

}  // namespace refit::transport
