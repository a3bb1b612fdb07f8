// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/kernel_publisher.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "core/error.hpp"
#include "trainer/entry_digests.hpp"

namespace refit::trainer {
namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

KernelPublisher::KernelPublisher(const std::vector<model::TensorSpec>& tensors,
                                 const KernelPlan& plan, const Payload& payload,
                                 const TrainerFaults& faults, const kernels::Backend& backend,
                                 const WeightRows& weights, const std::vector<float>* cache_scales)
    : plan_(plan),
      inner_(tensors, plan.checkpoint, payload, faults, backend, weights, 0, cache_scales),
      progress_(plan),
      scratch_(progress_.largest_piece()) {}

void KernelPublisher::begin(std::uint64_t version) {
    version_ = version;
    aborted_ = false;
    inner_.begin(version);
    progress_.begin();
    kept_.clear();
}

void KernelPublisher::gather(std::size_t /*bucket*/, const MaxOverTrainers& /*max_over_trainers*/) {
}

void KernelPublisher::abort() {
    aborted_ = true;
    inner_.abort();
}

void KernelPublisher::make(std::size_t parameter, const std::function<void()>& on_progress,
                           PublishTimes& times) {
    const std::size_t bucket = progress_.bucket_of(parameter);
    const wire::PiecePlan& piece = progress_.piece(bucket);
    const std::span<std::byte> memory = scratch_.span().first(piece.bytes);
    // The maximum over one trainer is its own.
    inner_.gather(bucket, [](std::span<std::uint32_t>) {});
    inner_.fill(bucket, memory, on_progress, times);
    aborted_ = aborted_ || inner_.aborted();
    for (const wire::PieceEntry& entry : piece.entries) {
        const std::span<const std::byte> bytes = memory.subspan(entry.offset, entry.bytes);
        kept_[entry.parameter].assign(bytes.begin(), bytes.end());
        progress_.made(entry.parameter);
    }
}

const std::vector<std::byte>& KernelPublisher::made(std::size_t parameter,
                                                    const std::function<void()>& on_progress,
                                                    PublishTimes& times) {
    for (const std::size_t one : progress_.to_make(parameter)) make(one, on_progress, times);
    return kept_.at(parameter);
}

void KernelPublisher::copy_part(std::uint32_t parameter, const KernelSource& source,
                                const std::vector<std::byte>& bytes, std::byte* out) const {
    const wire::ParameterMeta& from = plan_.checkpoint.manifest.parameters[source.parameter];
    const wire::ParameterMeta& to = plan_.manifest.parameters[parameter];
    const std::int64_t from_size = core::size_bytes(from.dtype);
    const std::int64_t to_size = core::size_bytes(to.dtype);
    const core::Region& region = source.part.region;
    for (std::int64_t r = 0; r < region.rows; ++r) {
        const std::byte* first =
            bytes.data() + ((region.row + r) * from.cols() + region.col) * from_size;
        std::byte* place =
            out + ((source.part.row + r) * plan_.cols[parameter] + source.part.col) * to_size;
        if (from.dtype == to.dtype) {
            std::memcpy(place, first, static_cast<std::size_t>(region.cols * from_size));
            continue;
        }
        for (std::int64_t c = 0; c < region.cols; ++c) {
            // BF16 is the upper half of F32.
            std::uint16_t upper = 0;
            std::memcpy(&upper, first + c * from_size, sizeof upper);
            const std::uint32_t bits = std::uint32_t{upper} << 16;
            std::memcpy(place + c * to_size, &bits, sizeof bits);
        }
    }
}

void KernelPublisher::fill(std::size_t bucket, std::span<std::byte> piece,
                           const std::function<void()>& on_progress, PublishTimes& times) {
    const wire::PiecePlan& plan = plan_.manifest.buckets[bucket].pieces.front();
    std::vector<wire::DigestRecord> digests;
    for (const wire::PieceEntry& entry : plan.entries) {
        if (aborted_) break;
        std::byte* const out = piece.data() + entry.offset;
        // What no part covers is the padding of the vocabulary, which the engine keeps at zero.
        std::memset(out, 0, entry.bytes);
        for (const KernelSource& source : plan_.sources[entry.parameter]) {
            const std::vector<std::byte>& bytes = made(source.parameter, on_progress, times);
            const auto start = Clock::now();
            copy_part(entry.parameter, source, bytes, out);
            if (progress_.took(source.parameter)) kept_.erase(source.parameter);
            times.pack_s += std::chrono::duration<double>(Clock::now() - start).count();
        }
        const auto start = Clock::now();
        const wire::ParameterMeta& meta = plan_.manifest.parameters[entry.parameter];
        EntryDigests cells(meta, entry.region(meta));
        cells.update(entry.rows, out);
        cells.append_to(entry.parameter, digests);
        times.pack_s += std::chrono::duration<double>(Clock::now() - start).count();
        on_progress();
    }
    const wire::PieceHeader header =
        wire::piece_header(plan_.manifest, bucket, 0, version_, aborted_);
    digests.resize(header.digest_count);
    wire::write_piece_header(piece, header, digests);
}

}  // namespace refit::trainer
