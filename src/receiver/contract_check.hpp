// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The manifest against the contract, before any byte moves.
#pragma once

#include "core/finding.hpp"
#include "receiver/engine_contract.hpp"
#include "wire/manifest.hpp"

namespace refit::receiver {

/// Findings of the checks shape_contract, names and dtype, one a tensor and cause: missing, unknown
/// (with the nearest wanted name when the two belong together, such as weight_scale and
/// weight_scale_inv), twice, rank, shape (both printed), dtype. Each says what the real engine
/// would do and how to mend it. Includes the instance's own refusals, and, for a profile, the
/// errors of its members on tensors that have none yet.
[[nodiscard]] core::Findings check_manifest(const wire::RefitManifest& manifest,
                                            const ContractInstance& instance);

}  // namespace refit::receiver
