// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// One trainer rank's side of a refit: bucket by bucket, own rows -> codes, scales, raw bytes,
// digests.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/finding.hpp"
#include "kernels/backend.hpp"
#include "trainer/refit_plan.hpp"
#include "trainer/resident_shard.hpp"
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
                   const kernels::Backend& backend, const ResidentShard& shard, int trainer);

    /// A new refit of this version begins; findings are cleared.
    void begin(std::uint64_t version);
    /// Exchanges the amax of tiles that shard boundaries cut (collective among the trainers where
    /// the bucket has any).
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
    void fill_codes(std::size_t bucket, const wire::PieceEntry& entry, std::span<std::byte> piece,
                    const std::function<void()>& on_progress, PublishTimes& times);
    void fill_raw(const wire::PieceEntry& entry, std::span<std::byte> piece,
                  const std::function<void()>& on_progress, PublishTimes& times);
    void finish_scale(const wire::PieceEntry& entry, std::span<std::byte> piece);
    /// Rows of the shard as they are quantized: under the policy `sanitize` a copy without
    /// non-finite values, valid until the next call.
    [[nodiscard]] const std::uint16_t* values_to_send(std::size_t tensor,
                                                      const core::RowRange& rows,
                                                      std::int64_t cols);
    [[nodiscard]] std::span<const std::uint32_t> shared_amax(std::size_t bucket,
                                                             std::uint32_t parameter,
                                                             std::int64_t grid_row,
                                                             std::int64_t grid_cols) const;
    [[nodiscard]] std::uint32_t last_element_bits(std::size_t bucket,
                                                  std::uint32_t parameter) const;
    void report_nonfinite(const wire::ParameterMeta& meta, const std::uint16_t* data,
                          const core::RowRange& rows, std::int64_t cols, const char* where);

    const std::vector<model::TensorSpec>& tensors_;
    const RefitPlan& plan_;
    const Payload& payload_;
    const TrainerFaults& faults_;
    const kernels::Backend& backend_;
    const ResidentShard& shard_;
    std::size_t trainer_;
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
