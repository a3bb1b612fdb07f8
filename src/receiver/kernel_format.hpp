// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Parameters that arrive in the engine's own format: fused, cut for one rank, copied in place.
//
// Source: prime-rl 559b447, src/prime_rl/inference/vllm/worker/weight_transfer.py
// (load_weights_kernel): names are looked up among the parameters, shapes compared, copy_ casts.
// SGLang 8905cbd, weight_updater.py, load_format "direct": default_weight_loader by exact name.
#pragma once

#include "core/finding.hpp"
#include "receiver/engine_contract.hpp"
#include "wire/kernel_layout.hpp"
#include "wire/manifest.hpp"

namespace refit::receiver {

/// Every parameter of every rank with the parts it is made of, ranks of one parameter side by side,
/// in the order of the instance.
[[nodiscard]] wire::KernelLayout kernel_layout(const ContractInstance& instance);

/// The same engine asking for its own parameters: `wanted` has each of them once a rank under its
/// name on the wire, cut as wire::kernel_cuts() says; `spans` copies a rank's own ones, one a cell.
/// Destinations keep number, order, bytes and dtype; those with three dimensions are seen as one
/// row an expert.
[[nodiscard]] ContractInstance kernel_instance(const ContractInstance& instance);

/// Findings of the checks names, shape_contract and dtype, before any byte moves, one a parameter
/// and cause, with what the original does: it raises for unknown names and other shapes, but only
/// after the good ones are copied; it casts types and does not see what is missing. A name without
/// a rank is meant for every rank. Includes the instance's own refusals.
[[nodiscard]] core::Findings check_kernel_manifest(const wire::RefitManifest& manifest,
                                                   const ContractInstance& instance);

}  // namespace refit::receiver
