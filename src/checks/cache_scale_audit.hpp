// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The audit of loaded scales of the KV cache: against the activations that they were made from.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "checks/audit.hpp"

namespace refit::checks {

/// Appends one tensor, one digest a part, and findings for each scale of the KV cache that the
/// instance wants and this rank holds.
///   completeness : the parameter still holds what the loader left before the refit
///   nonfinite    : NaN, Inf, zero or a negative number
///   round_trip   : any bit differs from fl32(amax / 448) of the calibration, 1 for an amax of 0;
///                  a scale of another step or layer shows here
/// Throws ShapeError where the instance wants a scale of a calibration that is not in `truth`;
/// passes on what its source throws.
void append_cache_scales(const receiver::ContractInstance& instance, int tp_rank,
                         const receiver::LoadedParameters& loaded, const CacheTruth& truth,
                         const std::set<std::string>& enabled, int rank,
                         const std::function<void()>& on_progress, AuditResult& result);

}  // namespace refit::checks
