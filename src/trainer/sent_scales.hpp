// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What of a scale does not depend on where it is made: policy, calibration, planted damage.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "kernels/numerics/tile_scaling.hpp"
#include "trainer/refit_plan.hpp"
#include "wire/manifest.hpp"

namespace refit::trainer {

/// The recipe's scaling; under the policy `propagate` one in which every tile that holds NaN or Inf
/// shows, whatever the recipe makes of it. A default object without a recipe.
[[nodiscard]] numerics::TileScaling sent_scaling(const Payload& payload);

/// Whether the planted fault scale_doubled strikes the first scale of a weight, by its own name or
/// by that of the scale.
[[nodiscard]] bool is_scale_doubled(const RefitPlan& plan, const TrainerFaults& faults,
                                    const wire::ParameterMeta& weight,
                                    const Production& production);

/// Scales of the KV cache as they are sent.
class SentCacheScales {
 public:
    /// `values`: by calibration of the payload, which may change between refits; null where it has
    /// none. All references must outlive the object.
    SentCacheScales(const RefitPlan& plan, const TrainerFaults& faults,
                    const std::vector<float>* values)
        : plan_(plan), faults_(faults), values_(values) {}

    [[nodiscard]] bool sends(const wire::PieceEntry& entry) const {
        return plan_.productions[entry.parameter].calibration >= 0;
    }
    /// The [entry.bytes] bytes of an entry that sends() says yes to. Throws ShapeError where there
    /// is no value for it.
    [[nodiscard]] std::vector<std::byte> bytes(const wire::PieceEntry& entry);

 private:
    const RefitPlan& plan_;
    const TrainerFaults& faults_;
    const std::vector<float>* values_;
    std::map<std::uint32_t, float> first_;  ///< of a planted fault, by parameter
};

}  // namespace refit::trainer
