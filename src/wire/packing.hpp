// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Parameters into buckets.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/shape.hpp"
#include "wire/framing.hpp"
#include "wire/manifest.hpp"

namespace refit::wire {

/// One parameter as the trainers will send it, before it has a bucket.
struct PlannedParameter {
    ParameterMeta meta;
    /// What each trainer sends, by trainer; an empty rectangle where it sends nothing. Of a scale
    /// the grid elements whose tile begins in the trainer's rectangle of the weight.
    std::vector<core::Region> regions_of_trainer;
    /// Parameters of one unit never straddle a bucket: a weight with its scale, partners that the
    /// engine fuses. Consecutive parameters with equal non-empty units form one.
    std::string unit;
};

/// Fills buckets in order. A unit that does not fit into what is left of a bucket opens the next
/// one; a unit larger than a bucket has one of its own, of its own size; a raw tensor without a
/// unit that is larger is split by rows. bucket_bytes counts payload over all trainers.
[[nodiscard]] RefitManifest pack(const std::vector<PlannedParameter>& parameters,
                                 std::uint64_t bucket_bytes, int trainers);

/// The same list cut by another framing: one trainer sends every parameter whole, in list order,
/// and a piece holds the bytes of one message of the original behind header and digests, at a
/// multiple of kParameterAlignment. What frame() throws; ScenarioError where a parameter has
/// another number of senders than one.
[[nodiscard]] RefitManifest pack_framed(const std::vector<PlannedParameter>& parameters,
                                        Framing framing, std::uint64_t buffer_bytes);

/// The list that a framing walks, as a manifest states it.
[[nodiscard]] std::vector<FramedTensor> framed_tensors(
    const std::vector<ParameterMeta>& parameters);

}  // namespace refit::wire
