// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// One trainer rank's side of a refit: bucket by bucket, own rectangles -> codes, scales, raw bytes,
// digests.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "core/finding.hpp"
#include "kernels/backend.hpp"
#include "trainer/entry_quantizer.hpp"
#include "trainer/publisher.hpp"
#include "trainer/refit_plan.hpp"
#include "trainer/sent_scales.hpp"
#include "trainer/weight_rows.hpp"
#include "wire/piece.hpp"

namespace refit::trainer {

class RefitPublisher final : public Publisher {
 public:
    /// All references must outlive the publisher. `cache_scales`: the values of the payload's
    /// calibrations, which may change between refits; null where it has none.
    RefitPublisher(const std::vector<model::TensorSpec>& tensors, const RefitPlan& plan,
                   const Payload& payload, const TrainerFaults& faults,
                   const kernels::Backend& backend, const WeightRows& weights, int trainer,
                   const std::vector<float>* cache_scales = nullptr);

    void begin(std::uint64_t version) override;
    void gather(std::size_t bucket, const MaxOverTrainers& max_over_trainers) override;
    void fill(std::size_t bucket, std::span<std::byte> piece,
              const std::function<void()>& on_progress, PublishTimes& times) override;
    void abort() override { aborted_ = true; }
    [[nodiscard]] const core::Findings& findings() const override { return findings_; }
    /// Whether pieces of this refit are marked aborted from now on.
    [[nodiscard]] bool aborted() const { return aborted_; }

 private:
    void fill_codes(std::size_t bucket, const wire::PieceEntry& entry, std::span<std::byte> piece,
                    const std::function<void()>& on_progress, PublishTimes& times);
    void fill_raw(const wire::PieceEntry& entry, std::span<std::byte> piece,
                  const std::function<void()>& on_progress, PublishTimes& times);
    void finish_scale(const wire::PieceEntry& entry, std::span<std::byte> piece);
    /// What the policy for non-finite values makes of a quantized rectangle.
    void apply_policy(const wire::ParameterMeta& meta, const Values& values,
                      const core::Region& region);
    void send_scales(std::size_t bucket, const Production& production,
                     const EntryQuantizer& quantizer, std::span<std::byte> piece);
    void gather_tiles(const SharedTiles& shared, const core::Region& own);
    void write_scales(const wire::PieceEntry& entry, std::int64_t first_grid_row,
                      const Panel& panel, std::span<std::byte> piece) const;
    /// A rectangle as it is quantized: under the policy `sanitize` a copy without non-finite
    /// values, valid until the next call.
    [[nodiscard]] Values values_to_send(std::size_t tensor, const core::Region& region);
    [[nodiscard]] bool has_nonfinite(const Values& values, const core::Region& region) const;
    void report_nonfinite(const wire::ParameterMeta& meta, const Values& values,
                          const core::Region& region);

    const std::vector<model::TensorSpec>& tensors_;
    const RefitPlan& plan_;
    const Payload& payload_;
    const TrainerFaults& faults_;
    const kernels::Backend& backend_;
    const WeightRows& weights_;
    std::size_t trainer_;
    AmaxExchange exchange_;
    numerics::TileScaling scaling_;
    std::uint64_t version_ = 0;
    bool aborted_ = false;
    core::Findings findings_;
    std::vector<std::uint32_t> amax_;
    std::vector<float> scales_;
    std::vector<std::uint16_t> sanitized_;
    std::vector<std::uint16_t> unaligned_;  ///< raw values on their way to an odd address
    /// Scales of weights sent earlier whose own bucket is still to come, by parameter.
    std::map<std::uint32_t, std::vector<std::byte>> kept_scales_;
    std::vector<wire::DigestRecord> digests_;
    SentCacheScales cache_scales_;
};

}  // namespace refit::trainer
