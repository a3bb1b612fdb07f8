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
#include "trainer/device_quantizer.hpp"
#include "trainer/device_shard.hpp"
#include "trainer/publisher.hpp"
#include "trainer/refit_plan.hpp"
#include "trainer/sent_scales.hpp"
#include "wire/piece.hpp"

namespace refit::trainer {

/// Why a payload cannot be published on the device alone; empty where it can.
[[nodiscard]] std::string why_not_on_device(const Payload& payload);

class DevicePublisher final : public Publisher {
 public:
    /// All references must outlive the publisher. `cache_scales` as for RefitPublisher. Throws
    /// ShapeError for a payload that why_not_on_device() refuses.
    DevicePublisher(const RefitPlan& plan, const Payload& payload, const TrainerFaults& faults,
                    const DeviceShard& weights, kernels::cuda::DeviceQueue& queue, int trainer,
                    const std::vector<float>* cache_scales = nullptr);

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
    /// Codes, amax and scales of a piece; reports what is not finite where that is refused.
    void quantize_codes(std::size_t bucket, std::span<std::byte> piece,
                        std::vector<QuantizedEntry>& all);
    /// Enqueues a look at values that this trainer holds: `most` grows by magnitudes, of which one
    /// is that of NaN or Inf after the next wait where such a value was found. It must not move
    /// until then.
    void look(std::size_t tensor, const core::Region& region, std::vector<std::uint32_t>& most);
    /// Reports the first entry of the piece that is not finite. `bad` is the first of codes; raw
    /// entries behind it are looked at with their digests.
    void report_first(std::size_t bucket, const QuantizedEntry& bad);
    void report_nonfinite(const wire::ParameterMeta& meta, const Values& values,
                          const core::Region& region);
    /// Sent as it is: neither codes nor a scale.
    [[nodiscard]] bool is_raw(const wire::PieceEntry& entry) const;
    /// Enqueues scales and raw values of a piece whose codes are made.
    void lay_out(std::size_t bucket, std::span<std::byte> piece,
                 const std::vector<QuantizedEntry>& all);
    void write_scales(std::size_t bucket, std::span<std::byte> piece,
                      const std::vector<QuantizedEntry>& all);
    void write_scale(const QuantizedEntry& one, const wire::PieceEntry& entry, std::byte* out);
    /// Waits for the piece; digests of its cells, and what of its raw values is not finite.
    void digest_entries(std::size_t bucket, std::span<std::byte> piece,
                        const std::function<void()>& on_progress);
    void write_head(std::size_t bucket, std::span<std::byte> piece);

    const RefitPlan& plan_;
    const Payload& payload_;
    const TrainerFaults& faults_;
    const DeviceShard& weights_;
    kernels::cuda::DeviceQueue& queue_;
    std::size_t trainer_;
    AmaxExchange exchange_;
    numerics::TileScaling scaling_;
    DeviceQuantizer quantizer_;
    SentCacheScales cache_scales_;
    std::uint64_t version_ = 0;
    bool aborted_ = false;
    core::Findings findings_;
    /// Scales of weights sent earlier whose own bucket is still to come, by parameter.
    /// The memory serves all refits.
    std::map<std::uint32_t, std::unique_ptr<kernels::cuda::DeviceBlock>> kept_scales_;
    std::vector<wire::DigestRecord> digests_;
};

}  // namespace refit::trainer
