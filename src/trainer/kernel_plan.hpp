// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What a trainer sends where parameters travel in the engine's own format.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/refit_plan.hpp"
#include "wire/kernel_layout.hpp"

namespace refit::trainer {

/// Damage to plant into the conversion; globs over the names of the engine's parameters, "" = none.
struct KernelFaults {
    std::string drop_parameter;  ///< left out of manifest and buckets
    std::string wrong_shard;     ///< every rank gets the shard of the next one
};

/// A part of a parameter: from which tensor of the checkpoint plan.
struct KernelSource {
    std::size_t parameter = 0;  ///< index into KernelPlan::checkpoint.manifest.parameters
    wire::KernelPart part;
};

struct KernelPlan {
    wire::RefitManifest manifest;  ///< parameters under their names on the wire
    /// By parameter of the manifest.
    std::vector<std::int64_t> cols;  ///< row length that the parts address
    std::vector<std::vector<KernelSource>> sources;
    /// How the trainer makes each tensor of the checkpoint before it cuts and joins: every
    /// parameter in a bucket of its own.
    RefitPlan checkpoint;
    std::vector<std::size_t> uses;  ///< by parameter of the checkpoint plan: parts made of it
};

/// The plan of the only trainer. A parameter is never split over buckets. Throws ScenarioError
/// where a part's source is not made by this trainer, or made in a type that the parameter cannot
/// take; what make_plan() and the payload's framing throw.
[[nodiscard]] KernelPlan make_kernel_plan(const std::vector<model::TensorSpec>& tensors,
                                          const wire::WantedList& wanted,
                                          const wire::KernelLayout& layout, const Payload& payload,
                                          const parallel::Sharding& sharding,
                                          const TrainerFaults& faults,
                                          const KernelFaults& kernel_faults);

}  // namespace refit::trainer
