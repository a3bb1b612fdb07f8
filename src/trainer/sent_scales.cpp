// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/sent_scales.hpp"

#include <cstring>
#include <string>

#include "core/error.hpp"
#include "kernels/numerics/bfloat16.hpp"
#include "weights/synthetic_weights.hpp"

namespace refit::trainer {
namespace {

bool strikes(const std::string& glob, const std::string& name) {
    return !glob.empty() && weights::glob_match(glob, name);
}

}  // namespace

numerics::TileScaling sent_scaling(const Payload& payload) {
    numerics::TileScaling scaling;
    if (payload.recipe != nullptr) scaling = payload.recipe->scaling;
    if (payload.nonfinite == Nonfinite::propagate)
        scaling.nonfinite_input = numerics::NonfiniteInput::propagate;
    return scaling;
}

bool is_scale_doubled(const RefitPlan& plan, const TrainerFaults& faults,
                      const wire::ParameterMeta& weight, const Production& production) {
    if (strikes(faults.scale_doubled, weight.name)) return true;
    return production.scale >= 0 &&
           strikes(faults.scale_doubled,
                   plan.manifest.parameters[static_cast<std::size_t>(production.scale)].name);
}

std::vector<std::byte> SentCacheScales::bytes(const wire::PieceEntry& entry) {
    const wire::ParameterMeta& meta = plan_.manifest.parameters[entry.parameter];
    const auto index = static_cast<std::size_t>(plan_.productions[entry.parameter].calibration);
    if (values_ == nullptr || index >= values_->size()) {
        throw core::ShapeError("the trainer was asked for " + meta.name +
                               " and has no value of its calibration; calibrate before the refit");
    }
    float value = (*values_)[index];
    if (strikes(faults_.stale_cache_scale, meta.name))
        value = first_.try_emplace(entry.parameter, value).first->second;
    if (strikes(faults_.scale_doubled, meta.name)) value *= 2.0F;
    if (strikes(faults_.cache_scale_value, meta.name)) value = faults_.cache_scale_replacement;
    std::vector<std::byte> bytes(entry.bytes);
    if (meta.dtype == core::DType::f32) {
        std::memcpy(bytes.data(), &value, sizeof value);
    } else if (meta.dtype == core::DType::bf16) {
        const std::uint16_t bits = numerics::f32_to_bf16(value);
        std::memcpy(bytes.data(), &bits, sizeof bits);
    }
    // Else a planted type, which the contract refuses before anything moves: zeros.
    return bytes;
}

}  // namespace refit::trainer
