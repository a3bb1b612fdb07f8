// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "weights/region_check.hpp"

#include <string>

#include "core/error.hpp"

namespace refit::weights {

void check_region(const model::TensorSpec& tensor, const core::Region& region,
                  std::int64_t out_stride) {
    const std::int64_t rows = core::matrix_rows(tensor.shape);
    const std::int64_t cols = core::matrix_cols(tensor.shape);
    // Differences instead of sums: a sum of two large numbers could wrap around.
    const bool inside = region.row >= 0 && region.rows >= 0 && region.col >= 0 &&
                        region.cols >= 0 && region.row <= rows && region.col <= cols &&
                        region.rows <= rows - region.row && region.cols <= cols - region.col;
    if (!inside) {
        throw core::ShapeError("tensor '" + tensor.name + "' of shape " +
                               core::to_string(tensor.shape) + ": the region of rows " +
                               std::to_string(region.row) + " + " + std::to_string(region.rows) +
                               " and columns " + std::to_string(region.col) + " + " +
                               std::to_string(region.cols) + " lies outside of it");
    }
    if (region.rows > 1 && out_stride < region.cols) {
        throw core::ShapeError("tensor '" + tensor.name + "': rows of " +
                               std::to_string(region.cols) + " columns do not fit a stride of " +
                               std::to_string(out_stride) + " elements");
    }
}

}  // namespace refit::weights
