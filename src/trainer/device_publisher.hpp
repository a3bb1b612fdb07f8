// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// RefitPublisher over weights that lie on the device, into pieces that lie there too: quantized,
// laid out and digested without their bytes ever being on the host.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/cuda/device_queue.hpp"
#include "trainer/amax_exchange.hpp"
#include "trainer/device_shard.hpp"
#include "trainer/publisher.hpp"
#include "trainer/refit_plan.hpp"
#include "wire/piece.hpp"

namespace refit::trainer {

/// Why a plan cannot be published on the device alone; empty where it can.
[[nodiscard]] std::string why_not_on_device(const RefitPlan& plan, const Payload& payload);

class DevicePublisher final : public Publisher {
 public:
    /// All references must outlive the publisher. Throws ShapeError for a plan that
    /// why_not_on_device() refuses.
    DevicePublisher(const std::vector<model::TensorSpec>& tensors, const RefitPlan& plan,
                    const Payload& payload, const TrainerFaults& faults, const DeviceShard& weights,
                    kernels::cuda::DeviceQueue& queue, int trainer);

    void begin(std::uint64_t version) override;
    void gather(std::size_t bucket, const MaxOverTrainers& max_over_trainers) override;
    /// `piece` names memory of the device; all that writes it is done when this returns.
    void fill(std::size_t bucket, std::span<std::byte> piece,
              const std::function<void()>& on_progress, PublishTimes& times) override;
    void abort() override {
        aborted_ = true;
        queue_.abandon();
    }
    [[nodiscard]] const core::Findings& findings() const override { return findings_; }
    /// Whether pieces of this refit are marked aborted from now on.
    [[nodiscard]] bool aborted() const { return aborted_; }

 private:
    struct Quantized;
    void quantize_codes(std::size_t bucket, std::span<std::byte> piece,
                        std::vector<Quantized>& all);
    /// Enqueues scales and raw values of a piece whose codes are made.
    void lay_out(std::size_t bucket, std::span<std::byte> piece, const std::vector<Quantized>& all);
    /// Waits for the piece; digests of its cells, and what of its raw values is not finite.
    void digest_entries(std::size_t bucket, std::span<std::byte> piece,
                        const std::function<void()>& on_progress);
    void look_for_nonfinite(std::size_t bucket, const std::vector<Quantized>& all);
    void write_scale(const Quantized& one, const wire::PieceEntry& entry, std::byte* out);
    void report_nonfinite(const wire::ParameterMeta& meta, const Values& values,
                          const core::Region& region);
    void gather_tiles(const SharedTiles& shared, const core::Region& own);
    void quantize_rows(const Quantized& one, const ExchangedAmax& exchanged, std::uint8_t* codes);
    void write_head(std::size_t bucket, std::span<std::byte> piece);

    const std::vector<model::TensorSpec>& tensors_;
    const RefitPlan& plan_;
    const Payload& payload_;
    const TrainerFaults& faults_;
    const DeviceShard& weights_;
    kernels::cuda::DeviceQueue& queue_;
    std::size_t trainer_;
    AmaxExchange exchange_;
    std::uint64_t version_ = 0;
    bool aborted_ = false;
    core::Findings findings_;
    std::unique_ptr<kernels::cuda::DeviceBlock> amax_;
    std::unique_ptr<kernels::cuda::DeviceBlock> scales_;
    /// Scales of weights sent earlier whose own bucket is still to come, by parameter.
    /// The memory serves all refits.
    std::map<std::uint32_t, std::unique_ptr<kernels::cuda::DeviceBlock>> kept_scales_;
    std::vector<wire::DigestRecord> digests_;
};

}  // namespace refit::trainer
