// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The bounds that every WeightSource holds its callers to.
#pragma once

#include <cstdint>

#include "core/shape.hpp"
#include "model/tensor_spec.hpp"

namespace refit::weights {

/// Throws ShapeError, with the tensor's name and shape, unless `region` lies within `tensor` and
/// `out_stride` is at least region.cols (or a single row is asked for).
void check_region(const model::TensorSpec& tensor, const core::Region& region,
                  std::int64_t out_stride);

}  // namespace refit::weights
