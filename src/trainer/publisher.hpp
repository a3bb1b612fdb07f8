// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What a refit asks of a trainer rank, whatever format it sends.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "core/finding.hpp"

namespace refit::trainer {

/// Seconds by purpose, each in one of them.
struct PublishTimes {
    double quantize_s = 0.0;
    double pack_s = 0.0;     ///< raw tensors and digests
    double staging_s = 0.0;  ///< kernels::Backend::staging_seconds
};

/// Element-wise maximum over all trainers; collective among them.
using MaxOverTrainers = std::function<void(std::span<std::uint32_t>)>;

class Publisher {
 public:
    virtual ~Publisher() = default;
    /// A new refit of this version begins; findings are cleared.
    virtual void begin(std::uint64_t version) = 0;
    /// Exchanges the amax of tiles that shard boundaries cut (collective among the trainers where
    /// the bucket has any). After abort() only zeros are given.
    virtual void gather(std::size_t bucket, const MaxOverTrainers& max_over_trainers) = 0;
    /// Writes the piece: `piece` has exactly the planned size. `on_progress` is called at least
    /// once per stripe of 128 rows, or where a device works on the piece as a whole, between its
    /// steps. After an error finding (or abort) the piece is marked aborted
    /// and holds nothing to load.
    virtual void fill(std::size_t bucket, std::span<std::byte> piece,
                      const std::function<void()>& on_progress, PublishTimes& times) = 0;
    /// The rest of this refit is sent as aborted pieces, so that nobody waits for bytes that do not
    /// come.
    virtual void abort() = 0;
    /// Non-finite values under the policy `reject`: tensor, tile, first index, counts.
    [[nodiscard]] virtual const core::Findings& findings() const = 0;
};

}  // namespace refit::trainer
