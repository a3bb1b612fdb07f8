// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// One trainer rank's side of a refit: bucket by bucket, own rectangles -> codes, scales, raw bytes,
// digests.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/finding.hpp"
#include "kernels/backend.hpp"
#include "trainer/refit_plan.hpp"
#include "trainer/weight_rows.hpp"
#include "wire/piece.hpp"

namespace refit::trainer {

/// Seconds by purpose.
struct PublishTimes {
    double quantize_s = 0.0;
    double pack_s = 0.0;  ///< raw tensors and digests
};

/// Element-wise maximum over all trainers; collective among them.
using MaxOverTrainers = std::function<void(std::span<std::uint32_t>)>;

class RefitPublisher {
 public:
    /// All references must outlive the publisher.
    RefitPublisher(const std::vector<model::TensorSpec>& tensors, const RefitPlan& plan,
                   const Payload& payload, const TrainerFaults& faults,
                   const kernels::Backend& backend, const WeightRows& weights, int trainer);

    /// A new refit of this version begins; findings are cleared.
    void begin(std::uint64_t version);
    /// Exchanges the amax of tiles that shard boundaries cut (collective among the trainers where
    /// the bucket has any). After abort() only zeros are given.
    void gather(std::size_t bucket, const MaxOverTrainers& max_over_trainers);
    /// Writes the piece: `piece` has exactly the planned size. `on_progress` is called at least
    /// once per stripe of 128 rows. After an error finding (or abort) the piece is marked aborted
    /// and holds nothing to load.
    void fill(std::size_t bucket, std::span<std::byte> piece,
              const std::function<void()>& on_progress, PublishTimes& times);
    /// The rest of this refit is sent as aborted pieces, so that nobody waits for bytes that do not
    /// come.
    void abort() { aborted_ = true; }

    /// Non-finite values under the policy `reject`: tensor, tile, first index, counts.
    [[nodiscard]] const core::Findings& findings() const { return findings_; }

 private:
    struct EntryDigests;
    struct Panel;
    void fill_codes(std::size_t bucket, const wire::PieceEntry& entry, std::span<std::byte> piece,
                    const std::function<void()>& on_progress, PublishTimes& times);
    void fill_raw(const wire::PieceEntry& entry, std::span<std::byte> piece,
                  const std::function<void()>& on_progress, PublishTimes& times);
    void finish_scale(const wire::PieceEntry& entry, std::span<std::byte> piece);
    void gather_tiles(const SharedTiles& shared, const core::Region& own);
    void write_scales(const wire::PieceEntry& entry, std::int64_t first_grid_row,
                      const Panel& panel, std::span<std::byte> piece) const;
    /// A rectangle as it is quantized: under the policy `sanitize` a copy without non-finite
    /// values, valid until the next call.
    [[nodiscard]] Values values_to_send(std::size_t tensor, const core::Region& region);
    [[nodiscard]] bool has_nonfinite(const Values& values, const core::Region& region) const;
    [[nodiscard]] const SharedTiles* shared_tiles(std::size_t bucket,
                                                  std::uint32_t parameter) const;
    [[nodiscard]] std::uint32_t last_element_bits(const SharedTiles* shared) const;
    void report_nonfinite(const wire::ParameterMeta& meta, const Values& values,
                          const core::Region& region);

    const std::vector<model::TensorSpec>& tensors_;
    const RefitPlan& plan_;
    const Payload& payload_;
    const TrainerFaults& faults_;
    const kernels::Backend& backend_;
    const WeightRows& weights_;
    std::size_t trainer_;
    numerics::TileScaling scaling_;
    std::uint64_t version_ = 0;
    bool aborted_ = false;
    core::Findings findings_;
    std::vector<std::uint32_t> exchange_;  ///< of the bucket that gather() was called for
    std::vector<std::uint32_t> amax_;
    std::vector<float> scales_;
    std::vector<std::uint16_t> sanitized_;
    std::vector<wire::DigestRecord> digests_;
};

}  // namespace refit::trainer
