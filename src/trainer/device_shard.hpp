// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The part of every tensor that one trainer rank holds in memory of the device, uploaded once.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/cuda/device_queue.hpp"
#include "parallel/placement.hpp"
#include "trainer/held_weights.hpp"
#include "trainer/weight_rows.hpp"

namespace refit::trainer {

/// Host memory through which a trainer's weights are uploaded, at most.
inline constexpr std::int64_t kUploadBytes = std::int64_t{16} << 20;

class DeviceShard final : public HeldWeights {
 public:
    /// Reads this trainer's rectangle of every tensor and uploads it. placements : by model tensor.
    /// `queue` must outlive the shard.
    DeviceShard(const std::vector<model::TensorSpec>& tensors,
                const std::vector<parallel::Placement>& placements, int trainer,
                const weights::WeightSource& source, kernels::cuda::DeviceQueue& queue,
                const std::function<void()>& on_progress);

    void reload(const std::vector<model::TensorSpec>& tensors, const weights::WeightSource& source,
                const std::function<void()>& on_progress) override;
    [[nodiscard]] const core::Region& held(std::size_t tensor) const override {
        return held_[tensor];
    }
    /// Made on the device.
    [[nodiscard]] std::vector<wire::Digest> digests(
        const std::function<void()>& on_progress) const override;
    void flip_first(std::size_t tensor) override;
    [[nodiscard]] std::uint64_t size_bytes() const override { return bytes_; }

    /// Values of `region` (global) on the device; the host never follows the pointer. Rows begin at
    /// multiples of 16 bytes where the region begins with what is held; what stands behind a row
    /// that is no multiple of 8 columns is 0. Throws ShapeError for values that are not held.
    [[nodiscard]] Values values(std::size_t tensor, const core::Region& region) const;

 private:
    [[nodiscard]] std::uint16_t* first(std::size_t tensor) const;

    kernels::cuda::DeviceQueue& queue_;
    std::vector<core::Region> held_;
    std::vector<std::size_t> offsets_;   ///< bytes
    std::vector<std::int64_t> strides_;  ///< elements
    std::size_t bytes_ = 0;
    std::unique_ptr<kernels::cuda::DeviceBlock> memory_;
};

}  // namespace refit::trainer
