// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Faults of a scenario that the harness itself plants: bytes on the way, and ranks that end.
#pragma once

#include <cstdint>

#include "harness/case_setup.hpp"
#include "harness/rank_status.hpp"

namespace refit::harness {

/// Resolves the patterns of faults that strike tensors at set-up: names for the loaders, and a
/// check of all others. Throws ScenarioError for one that matches nothing that this fault can
/// strike (a scale's for a fault of scales), or, for `swap_tensors`, no two that can be exchanged:
/// a fault that strikes nothing proves nothing.
void aim_tensor_faults(const Case& c, CaseSetup& setup);

/// Gives each transport fault of `setup` a trainer and a byte whose cell the receiver concerned
/// keeps: elsewhere nobody would load it. Throws ScenarioError where the receiver keeps nothing of
/// the bucket. A fault of a bucket that does not exist stays as it is.
void aim_transport_faults(CaseSetup& setup, const wire::RefitManifest& manifest, int tp);

/// The faults `kill`, `stop` and `throw` of a case, where one names this rank, stage, iteration and
/// bucket (-1: a stage without buckets): ends or stops the process, or throws core::Error.
void strike(const Case& c, int rank, std::int64_t iteration, Stage stage, std::int64_t bucket);

}  // namespace refit::harness
