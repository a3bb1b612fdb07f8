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
#include "receiver/weight_loader.hpp"
#include "trainer/refit_publisher.hpp"
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
    trainer::RefitPublisher* publisher = nullptr;
    receiver::WeightLoader* loader = nullptr;
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
