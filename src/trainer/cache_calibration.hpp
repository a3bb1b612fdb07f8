// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A trainer's scales of the KV cache: from the activations of a calibration, anew for each step.
#pragma once

#include <functional>
#include <vector>

#include "model/tensor_spec.hpp"
#include "weights/weight_source.hpp"

namespace refit::trainer {

/// One F32 scale for each calibration: amax / 448, one IEEE division; 1 where amax is 0, NaN where
/// any value is NaN. The largest magnitude then becomes the largest finite E4M3 code, 448.
/// Passes on what the source throws. Source: NeMo-RL 7ea279a, scales of FP8 KV caches (F32, [1],
/// 1.0 where nothing was seen).
[[nodiscard]] std::vector<float> calibrate_cache_scales(
    const std::vector<model::TensorSpec>& calibrations, const weights::WeightSource& source,
    const std::function<void()>& on_progress);

}  // namespace refit::trainer
