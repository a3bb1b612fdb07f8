// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/device_shard.hpp"

#include <algorithm>

#include "trainer/source_read.hpp"

namespace refit::trainer {
namespace {

constexpr std::int64_t kRowMultiple = 8;       ///< elements: 16 bytes
constexpr std::size_t kTensorAlignment = 256;  ///< bytes

using Purpose = kernels::cuda::DeviceQueue::Purpose;

}  // namespace

DeviceShard::DeviceShard(const std::vector<model::TensorSpec>& tensors,
                         const std::vector<parallel::Placement>& placements, int trainer,
                         const weights::WeightSource& source, kernels::cuda::DeviceQueue& queue,
                         const std::function<void()>& on_progress)
    : queue_(queue) {
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        const core::Region& region = placements[i].held[static_cast<std::size_t>(trainer)];
        held_.push_back(region);
        const bool empty = parallel::is_empty(region);
        strides_.push_back(empty ? 0 : core::ceil_div(region.cols, kRowMultiple) * kRowMultiple);
        offsets_.push_back(bytes_);
        const auto own = static_cast<std::size_t>(empty ? 0 : region.rows * strides_.back() * 2);
        bytes_ += (own + kTensorAlignment - 1) / kTensorAlignment * kTensorAlignment;
    }
    memory_ = queue_.allocate(bytes_);
    reload(tensors, source, on_progress);
}

std::uint16_t* DeviceShard::first(std::size_t tensor) const {
    return reinterpret_cast<std::uint16_t*>(memory_->data() + offsets_[tensor]);
}

void DeviceShard::reload(const std::vector<model::TensorSpec>& tensors,
                         const weights::WeightSource& source,
                         const std::function<void()>& on_progress) {
    std::vector<std::uint16_t> rows;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        const core::Region& own = held_[i];
        if (parallel::is_empty(own)) continue;
        const std::int64_t stride = strides_[i];
        const std::int64_t step = std::max<std::int64_t>(1, kUploadBytes / (2 * stride));
        for (std::int64_t row = 0; row < own.rows; row += step) {
            const std::int64_t count = std::min(step, own.rows - row);
            rows.assign(static_cast<std::size_t>(count * stride), 0);
            source.read(tensors[i], {own.row + row, own.col, count, own.cols}, rows.data(), stride);
            queue_.upload(first(i) + row * stride, rows.data(), rows.size() * sizeof rows.front(),
                          Purpose::weights);
            on_progress();
        }
    }
}

Values DeviceShard::values(std::size_t tensor, const core::Region& region) const {
    const core::Region& own = held_[tensor];
    require_within(region, own, tensor);
    return {first(tensor) + (region.row - own.row) * strides_[tensor] + region.col - own.col,
            strides_[tensor]};
}

std::vector<wire::Digest> DeviceShard::digests(const std::function<void()>& on_progress) const {
    std::vector<kernels::cuda::DigestJob> jobs;
    for (std::size_t i = 0; i < held_.size(); ++i) {
        const bool empty = parallel::is_empty(held_[i]);
        kernels::cuda::DigestJob job;
        job.data = reinterpret_cast<const std::uint8_t*>(first(i));
        job.stride = 2 * strides_[i];
        job.rows = empty ? 0 : held_[i].rows;
        job.row_bytes = empty ? 0 : 2 * held_[i].cols;
        jobs.push_back(job);
    }
    std::vector<numerics::Xxh128> found(jobs.size());
    queue_.digest(jobs, found.data());
    queue_.wait();
    on_progress();
    std::vector<wire::Digest> digests;
    for (const numerics::Xxh128& one : found) digests.push_back({one.low, one.high});
    return digests;
}

void DeviceShard::flip_first(std::size_t tensor) {
    std::uint16_t value = 0;
    queue_.download(&value, first(tensor), sizeof value, Purpose::control);
    value ^= 1;
    queue_.upload(first(tensor), &value, sizeof value, Purpose::control);
}

}  // namespace refit::trainer
