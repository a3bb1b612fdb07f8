// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Where a trainer's BF16 values stand when they are quantized: in memory from the start, or read
// for one bucket at a time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/shape.hpp"

namespace refit::trainer {

/// A rectangle in memory: element (r, c) of it is data[r * stride + c].
struct Values {
    const std::uint16_t* data = nullptr;
    std::int64_t stride = 0;
};

class WeightRows {
 public:
    virtual ~WeightRows() = default;
    /// BF16 values of `region` (global) of a model tensor; valid until the next bucket is read.
    /// Throws ShapeError for values that this trainer does not have at hand.
    [[nodiscard]] virtual Values values(std::size_t tensor, const core::Region& region) const = 0;
};

}  // namespace refit::trainer
