// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// ONE refit, top to bottom: gather, quantize, pack, broadcast | check, load, commit. Read this file
// first.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/finding.hpp"
#include "harness/rank_status.hpp"
#include "harness/stage_clock.hpp"
#include "harness/world.hpp"
#include "kernels/backend.hpp"
#include "receiver/weight_loader.hpp"
#include "trainer/publisher.hpp"
#include "transport/transport.hpp"

namespace refit::harness {

/// Everything one rank needs for its refits; exactly one of publisher and loader is set.
struct RefitContext {
    World& world;
    RankStatus& status;
    transport::Transport& transport;
    const wire::RefitManifest& manifest;
    int trainers = 1;
    bool pipeline = true;  ///< false: one bucket and one stage after the other
    trainer::Publisher* publisher = nullptr;
    receiver::WeightLoader* loader = nullptr;
    /// The weights are not resident: before each bucket all ranks meet, the trainers read what they
    /// send in it, and all meet again. The clocks stand still between the two meetings, so that
    /// wall = time from start to commit - sum over buckets of (end - begin of its reading phase).
    /// Nothing else moves in such a phase, and so nothing of the refit is hidden behind it; the
    /// price is that buckets do not overlap. The same on all ranks.
    bool source_by_bucket = false;
    /// Of a trainer whose backend stages: its staging is a stage of its own, taken out of those in
    /// which it happens. Null where there is none.
    const kernels::Backend* staging_backend = nullptr;
    /// Of a trainer with `source_by_bucket`: reads a bucket's values; called with on_progress.
    std::function<void(std::size_t bucket, const std::function<void()>&)> read_source = {};
};

struct RefitResult {
    bool committed = false;
    RefitTimes times;
    core::Findings findings;  ///< of this rank
    std::string error_stage;  ///< where `error` was met
    std::string error;  ///< this rank could not do its part; the stream was drained all the same
};

/// Collective over the world. The version becomes visible on every receiver or on none.
[[nodiscard]] RefitResult run_refit(RefitContext& context, std::uint64_t version);

}  // namespace refit::harness
