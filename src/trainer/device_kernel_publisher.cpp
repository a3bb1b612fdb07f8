// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/device_kernel_publisher.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "trainer/digest_jobs.hpp"

namespace refit::trainer {
namespace {

using Clock = std::chrono::steady_clock;
using kernels::cuda::ValueType;

const std::uint8_t* as_bytes(const std::byte* pointer) {
    return reinterpret_cast<const std::uint8_t*>(pointer);
}
std::uint8_t* as_bytes(std::byte* pointer) {
    return reinterpret_cast<std::uint8_t*>(pointer);
}

}  // namespace

DeviceKernelPublisher::DeviceKernelPublisher(const KernelPlan& plan, const Payload& payload,
                                             const TrainerFaults& faults,
                                             const DeviceShard& weights,
                                             kernels::cuda::DeviceQueue& queue,
                                             const std::vector<float>* cache_scales)
    : plan_(plan),
      queue_(queue),
      inner_(plan.checkpoint, payload, faults, weights, queue, 0, cache_scales),
      progress_(plan),
      scratch_(queue.allocate(progress_.largest_piece())) {}

void DeviceKernelPublisher::begin(std::uint64_t version) {
    version_ = version;
    aborted_ = false;
    inner_.begin(version);
    progress_.begin();
    while (!kept_.empty()) forget(kept_.begin()->first);
}

void DeviceKernelPublisher::forget(std::size_t parameter) {
    const auto found = kept_.find(parameter);
    const std::size_t bytes = found->second->size();
    spare_.emplace(bytes, std::move(found->second));
    kept_.erase(found);
}

void DeviceKernelPublisher::gather(std::size_t /*bucket*/,
                                   const MaxOverTrainers& /*max_over_trainers*/) {}

void DeviceKernelPublisher::abort() {
    aborted_ = true;
    inner_.abort();
}

void DeviceKernelPublisher::make(std::size_t parameter, const std::function<void()>& on_progress,
                                 PublishTimes& times) {
    const std::size_t bucket = progress_.bucket_of(parameter);
    const wire::PiecePlan& piece = progress_.piece(bucket);
    // The maximum over one trainer is its own.
    inner_.gather(bucket, [](std::span<std::uint32_t>) {});
    inner_.fill(bucket, {scratch_->data(), piece.bytes}, on_progress, times);
    aborted_ = aborted_ || inner_.aborted();
    std::vector<kernels::cuda::PlacedRectangle> copies;
    for (const wire::PieceEntry& entry : piece.entries) {
        // Of the same size: tensors of one kind follow each other, layer by layer.
        const auto spare = spare_.find(entry.bytes);
        auto& kept = kept_[entry.parameter];
        if (spare != spare_.end()) {
            kept = std::move(spare->second);
            spare_.erase(spare);
        } else {
            kept = queue_.allocate(entry.bytes);
        }
        const auto bytes = static_cast<std::int64_t>(entry.bytes);
        copies.push_back({as_bytes(scratch_->data()) + entry.offset, bytes, as_bytes(kept->data()),
                          bytes, 1, bytes, 0});
        progress_.made(entry.parameter);
    }
    queue_.place(copies);
    queue_.wait();
}

const std::byte* DeviceKernelPublisher::made(std::size_t parameter,
                                             const std::function<void()>& on_progress,
                                             PublishTimes& times) {
    for (const std::size_t one : progress_.to_make(parameter)) make(one, on_progress, times);
    return kept_.at(parameter)->data();
}

void DeviceKernelPublisher::join(std::uint32_t parameter, std::byte* out,
                                 const std::function<void()>& on_progress, PublishTimes& times) {
    std::vector<kernels::cuda::PlacedRectangle> placed;
    std::vector<kernels::cuda::ValueRectangle> widened;
    const std::int64_t size = core::size_bytes(plan_.manifest.parameters[parameter].dtype);
    const std::int64_t stride = plan_.cols[parameter] * size;
    for (const KernelSource& source : plan_.sources[parameter]) {
        const std::byte* bytes = made(source.parameter, on_progress, times);
        const wire::ParameterMeta& from = plan_.checkpoint.manifest.parameters[source.parameter];
        const std::int64_t from_size = core::size_bytes(from.dtype);
        const core::Region& region = source.part.region;
        const std::int64_t from_stride = from.cols() * from_size;
        const std::uint8_t* first =
            as_bytes(bytes) + region.row * from_stride + region.col * from_size;
        std::uint8_t* place = as_bytes(out) + source.part.row * stride + source.part.col * size;
        if (from.dtype == plan_.manifest.parameters[parameter].dtype) {
            placed.push_back(
                {first, from_stride, place, stride, region.rows, region.cols * size, 0});
        } else {
            widened.push_back({first, from_stride, ValueType::bf16, place, stride, ValueType::f32,
                               region.rows, region.cols, 0});
        }
    }
    const auto start = Clock::now();
    queue_.place(placed);
    queue_.convert(widened);
    queue_.wait();
    for (const KernelSource& source : plan_.sources[parameter]) {
        if (progress_.took(source.parameter)) forget(source.parameter);
    }
    times.pack_s += std::chrono::duration<double>(Clock::now() - start).count();
}

void DeviceKernelPublisher::fill(std::size_t bucket, std::span<std::byte> piece,
                                 const std::function<void()>& on_progress, PublishTimes& times) {
    const wire::PiecePlan& plan = plan_.manifest.buckets[bucket].pieces.front();
    std::vector<wire::DigestRecord> digests;
    std::vector<kernels::cuda::DigestJob> jobs;
    for (const wire::PieceEntry& entry : plan.entries) {
        if (aborted_) break;
        std::byte* const out = piece.data() + entry.offset;
        // What no part covers is the padding of the vocabulary, which the engine keeps at zero.
        queue_.set_bytes(out, 0, entry.bytes);
        join(entry.parameter, out, on_progress, times);
        append_digest_jobs(plan_.manifest.parameters[entry.parameter], entry, as_bytes(out), jobs,
                           digests);
        on_progress();
    }
    const auto start = Clock::now();
    std::vector<numerics::Xxh128> found(jobs.size());
    queue_.digest(jobs, found.data());
    queue_.wait();
    for (std::size_t i = 0; i < found.size(); ++i)
        digests[i].digest = {found[i].low, found[i].high};
    const wire::PieceHeader header =
        wire::piece_header(plan_.manifest, bucket, 0, version_, aborted_);
    digests.resize(header.digest_count);
    std::vector<std::byte> head(wire::entries_offset(header.digest_count));
    wire::write_piece_header(head, header, digests);
    queue_.upload(piece.data(), head.data(), std::min<std::size_t>(head.size(), piece.size()),
                  kernels::cuda::DeviceQueue::Purpose::control);
    times.pack_s += std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace refit::trainer
