// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// KernelPublisher over weights that lie on the device: quantized, cut and joined there.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "trainer/device_publisher.hpp"
#include "trainer/kernel_plan.hpp"
#include "trainer/kernel_progress.hpp"

namespace refit::trainer {

class DeviceKernelPublisher final : public Publisher {
 public:
    /// All references must outlive the publisher; `weights` holds every tensor whole. Throws as
    /// DevicePublisher does.
    DeviceKernelPublisher(const KernelPlan& plan, const Payload& payload,
                          const TrainerFaults& faults, const DeviceShard& weights,
                          kernels::cuda::DeviceQueue& queue,
                          const std::vector<float>* cache_scales = nullptr);

    void begin(std::uint64_t version) override;
    /// One trainer has nothing to exchange.
    void gather(std::size_t bucket, const MaxOverTrainers& max_over_trainers) override;
    /// As DevicePublisher::fill.
    void fill(std::size_t bucket, std::span<std::byte> piece,
              const std::function<void()>& on_progress, PublishTimes& times) override;
    void abort() override;
    [[nodiscard]] const core::Findings& findings() const override { return inner_.findings(); }

 private:
    /// One tensor of the checkpoint plan on the device, made when it is first asked for.
    const std::byte* made(std::size_t parameter, const std::function<void()>& on_progress,
                          PublishTimes& times);
    /// Forgets a tensor whose last part was taken; nothing may be under way in it.
    void forget(std::size_t parameter);
    void make(std::size_t parameter, const std::function<void()>& on_progress, PublishTimes& times);
    void join(std::uint32_t parameter, std::byte* out, const std::function<void()>& on_progress,
              PublishTimes& times);

    const KernelPlan& plan_;
    kernels::cuda::DeviceQueue& queue_;
    DevicePublisher inner_;
    KernelProgress progress_;
    std::map<std::size_t, std::unique_ptr<kernels::cuda::DeviceBlock>> kept_;
    /// By size, for the next tensor: memory of the device is slow to get and to give back.
    std::multimap<std::size_t, std::unique_ptr<kernels::cuda::DeviceBlock>> spare_;
    std::unique_ptr<kernels::cuda::DeviceBlock> scratch_;
    std::uint64_t version_ = 0;
    bool aborted_ = false;
};

}  // namespace refit::trainer
