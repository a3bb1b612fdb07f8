// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The trainer's side of a refit in the engine's own format: quantize as for a checkpoint, then cut
// and join for each rank.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "core/aligned_buffer.hpp"
#include "trainer/kernel_plan.hpp"
#include "trainer/kernel_progress.hpp"
#include "trainer/refit_publisher.hpp"

namespace refit::trainer {

class KernelPublisher final : public Publisher {
 public:
    /// All references must outlive the publisher. `weights` holds every tensor whole for the whole
    /// refit; `cache_scales` as in RefitPublisher.
    KernelPublisher(const std::vector<model::TensorSpec>& tensors, const KernelPlan& plan,
                    const Payload& payload, const TrainerFaults& faults,
                    const kernels::Backend& backend, const WeightRows& weights,
                    const std::vector<float>* cache_scales = nullptr);

    void begin(std::uint64_t version) override;
    /// One trainer has nothing to exchange.
    void gather(std::size_t bucket, const MaxOverTrainers& max_over_trainers) override;
    void fill(std::size_t bucket, std::span<std::byte> piece,
              const std::function<void()>& on_progress, PublishTimes& times) override;
    void abort() override;
    [[nodiscard]] const core::Findings& findings() const override { return inner_.findings(); }

 private:
    /// Bytes of one tensor of the checkpoint plan, made when it is first asked for.
    const std::vector<std::byte>& made(std::size_t parameter,
                                       const std::function<void()>& on_progress,
                                       PublishTimes& times);
    void make(std::size_t parameter, const std::function<void()>& on_progress, PublishTimes& times);
    void copy_part(std::uint32_t parameter, const KernelSource& source,
                   const std::vector<std::byte>& bytes, std::byte* out) const;

    const KernelPlan& plan_;
    RefitPublisher inner_;
    KernelProgress progress_;
    std::map<std::size_t, std::vector<std::byte>> kept_;
    core::AlignedBuffer scratch_;
    std::uint64_t version_ = 0;
    bool aborted_ = false;
};

}  // namespace refit::trainer
