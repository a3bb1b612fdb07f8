// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What one thread does when digests of rectangles are made where their bytes lie: the digest of the
// wire (kernels/numerics/xxh3.hpp), so that both sides may compare without moving the bytes.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cuda/list_lookup.hpp"
#include "kernels/numerics/host_device.hpp"
#include "kernels/numerics/xxh3.hpp"

namespace refit::kernels::cuda {

/// Rows of bytes as one stream, row by row.
struct DigestJob {
    const std::uint8_t* data = nullptr;
    std::int64_t stride = 0;  ///< bytes from row to row
    std::int64_t rows = 0;
    std::int64_t row_bytes = 0;
    std::int64_t first_block = 0;  ///< blocks of all jobs before this one

    [[nodiscard]] REFIT_HD constexpr std::int64_t length() const { return rows * row_bytes; }
};

/// A job as numerics::xxh3_* reads it.
class RectangleStream {
 public:
    REFIT_HD explicit RectangleStream(const DigestJob& job)
        : job_(job), flat_(job.stride == job.row_bytes || job.rows == 1) {}

    [[nodiscard]] REFIT_HD std::uint8_t byte(std::int64_t at) const {
        if (flat_) return job_.data[at];
        const std::int64_t row = at / job_.row_bytes;
        return job_.data[row * job_.stride + at - row * job_.row_bytes];
    }
    /// Eight bytes, the first in the lowest place.
    [[nodiscard]] REFIT_HD std::uint64_t word(std::int64_t at) const {
        if (flat_) return loaded(job_.data + at);
        const std::int64_t row = at / job_.row_bytes;
        const std::int64_t col = at - row * job_.row_bytes;
        if (col + 8 <= job_.row_bytes) return loaded(job_.data + row * job_.stride + col);
        std::uint64_t value = 0;
        for (int i = 7; i >= 0; --i) value = value << 8 | byte(at + i);
        return value;
    }

 private:
    [[nodiscard]] REFIT_HD static std::uint64_t loaded(const std::uint8_t* from) {
        std::uint64_t value = 0;
        if (reinterpret_cast<std::uintptr_t>(from) % 8 == 0) {
            // Devices load words from aligned places alone; both sides are little-endian.
            std::memcpy(&value, __builtin_assume_aligned(from, 8), sizeof value);
            return value;
        }
        for (int i = 7; i >= 0; --i) value = value << 8 | from[i];
        return value;
    }

    const DigestJob& job_;
    bool flat_;
};

/// What block `block` of all blocks adds to accumulator `lane`; goes to sums[8 * block + lane].
[[nodiscard]] REFIT_HD inline std::uint64_t digest_block_lane(const DigestJob* jobs,
                                                              std::int64_t count,
                                                              std::int64_t block, std::int64_t lane,
                                                              const std::uint64_t* secret) {
    const DigestJob& job = jobs[item_of(jobs, count, &DigestJob::first_block, block)];
    const RectangleStream stream(job);
    const std::int64_t begin = (block - job.first_block) * numerics::kXxh3BlockBytes;
    std::uint64_t sum = 0;
    for (std::int64_t s = 0; s < numerics::kXxh3BlockStripes; ++s) {
        const std::int64_t at = begin + s * numerics::kXxh3StripeBytes;
        sum += numerics::xxh3_stripe(stream.word(at + 8 * lane), stream.word(at + 8 * (lane ^ 1)),
                                     secret[s + lane]);
    }
    return sum;
}

/// Accumulator `lane` of a job behind its last byte, from the sums of its blocks. Jobs of at most
/// numerics::kXxh3ShortBytes bytes have none.
[[nodiscard]] REFIT_HD inline std::uint64_t digest_lane(const DigestJob& job,
                                                        const std::uint64_t* sums,
                                                        std::int64_t lane,
                                                        const std::uint64_t* secret) {
    std::uint64_t sum = numerics::xxh3_start(lane);
    const std::int64_t blocks = numerics::xxh3_blocks(job.length());
    const std::uint64_t* next = sums + job.first_block * numerics::kXxh3Lanes + lane;
    // The chain is serial and a step of it short: the sums of the next steps are read before those
    // of the last are used up.
    constexpr int kAhead = 16;
    std::uint64_t ready[kAhead];
    std::int64_t b = 0;
    if (blocks >= kAhead) {
        REFIT_UNROLL
        for (int i = 0; i < kAhead; ++i) ready[i] = next[i * numerics::kXxh3Lanes];
    }
    for (; b + kAhead <= blocks; b += kAhead) {
        std::uint64_t coming[kAhead];
        next += kAhead * numerics::kXxh3Lanes;
        const bool more = b + 2 * kAhead <= blocks;
        REFIT_UNROLL
        for (int i = 0; i < kAhead; ++i) coming[i] = more ? next[i * numerics::kXxh3Lanes] : 0;
        REFIT_UNROLL
        for (int i = 0; i < kAhead; ++i) {
            sum = numerics::xxh3_scrambled(sum + ready[i], lane, secret);
            ready[i] = coming[i];
        }
    }
    for (; b < blocks; ++b, next += numerics::kXxh3Lanes)
        sum = numerics::xxh3_scrambled(sum + *next, lane, secret);
    return numerics::xxh3_tail(sum, RectangleStream(job), job.length(), lane, secret);
}

/// The digest of a job; `lanes` are its eight accumulators where it has them.
[[nodiscard]] REFIT_HD inline numerics::Xxh128 digest_of_job(const DigestJob& job,
                                                             const std::uint64_t* lanes,
                                                             const std::uint64_t* secret) {
    if (job.length() <= numerics::kXxh3ShortBytes)
        return numerics::xxh3_short(RectangleStream(job), job.length(), secret);
    return numerics::xxh3_merged(lanes, job.length(), secret);
}

}  // namespace refit::kernels::cuda
