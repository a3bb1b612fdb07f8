// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Rectangles of the source into memory, in steps that keep the run's progress visible.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "core/shape.hpp"
#include "model/tensor_spec.hpp"
#include "weights/weight_source.hpp"

namespace refit::trainer {

/// Bytes between two calls of on_progress.
inline constexpr std::int64_t kReadBytes = std::int64_t{4} << 20;

/// Memory of a rectangle of BF16 values, rounded up to a multiple of 64 bytes.
[[nodiscard]] std::size_t source_bytes(const core::Region& region);

/// Reads a rectangle, row by row without gaps, to `out`.
void read_region(const weights::WeightSource& source, const model::TensorSpec& tensor,
                 const core::Region& region, std::uint16_t* out,
                 const std::function<void()>& on_progress);

/// Throws ShapeError when `region` leaves `held`.
void require_within(const core::Region& region, const core::Region& held, std::size_t tensor);

}  // namespace refit::trainer
