// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// One matrix through one recipe, band by band, and what quantize and export share around it.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "kernels/backend.hpp"

namespace refit::harness {

/// A viable backend by name. Throws NotViable with the reason, UsageError for an unknown name.
[[nodiscard]] const kernels::Backend& viable_backend(const std::string& name);

/// "1 NaN and 0 Inf, the first at [3, 7], tile [0, 0] of 128 x 128": of BF16 `values`, whole rows
/// of `cols` columns from row `first_row` of the matrix on. At least one of them is not finite.
[[nodiscard]] std::string describe_nonfinite(std::span<const std::uint16_t> values,
                                             std::int64_t cols, std::int64_t first_row,
                                             const kernels::TileGrid& grid);

/// A [rows, cols] matrix of BF16 values that is read when it is wanted.
struct MatrixSource {
    std::string name;  ///< for messages: tensor and file
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    /// Rows [row, row + count) to `out`, without gaps.
    std::function<void(std::int64_t row, std::int64_t count, std::uint16_t* out)> read;
};

/// Codes of the rows [row, row + count).
using CodesDone =
    std::function<void(std::int64_t row, std::int64_t count, std::span<const std::byte> codes)>;

/// Gives the codes to `codes_done`, in bands of rows from the first to the last, and returns the
/// scales [grid_rows * grid_cols], as the backend's `scales` gives them. Bits do not depend on the
/// bands. Needs memory for one row of tiles, or some 16 MiB of values where that is more, and reads
/// a matrix twice whose only tile is larger than that. Throws Error with exit code 1 that names the
/// first NaN or Inf.
[[nodiscard]] std::vector<float> quantize_matrix(const MatrixSource& source,
                                                 const numerics::TileScaling& scaling,
                                                 const kernels::Backend& backend,
                                                 const CodesDone& codes_done);

}  // namespace refit::harness
