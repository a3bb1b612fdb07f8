// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The truth: values of any region of any tensor, the same on every rank.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/shape.hpp"
#include "model/tensor_spec.hpp"

namespace refit::weights {

/// Values are BF16 bit patterns. Implementations are immutable after construction but for set_step,
/// and `read` may be called from several threads.
class WeightSource {
 public:
    virtual ~WeightSource() = default;

    /// Writes `region` of `tensor` to `out`, row-major, `out_stride` elements from row to row.
    /// out : [region.rows, region.cols] BF16.
    /// Throws ShapeError for a region outside the tensor, FileError when a checkpoint cannot be
    /// read.
    virtual void read(const model::TensorSpec& tensor, const core::Region& region,
                      std::uint16_t* out, std::int64_t out_stride) const = 0;

    /// Training step whose values `read` gives from now on. Synthetic weights move about 1 % of the
    /// BF16 values from one step to the next; a checkpoint has one step and ignores it.
    virtual void set_step(std::int64_t step) = 0;

    /// One line for the record: "synthetic seed 7 step 0", "safetensors /path (2 files)".
    [[nodiscard]] virtual std::string description() const = 0;
};

}  // namespace refit::weights
