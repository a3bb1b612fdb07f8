// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// How a scale tensor lies over the matrix that it belongs to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "core/dtype.hpp"
#include "core/shape.hpp"

namespace refit::checks {

/// Element [r, c] has scale number (r / tile_rows) * grid_cols + c / tile_cols.
struct ScaleLayout {
    std::string name;  ///< tensor | row | block | mx
    std::int64_t tile_rows = 1;
    std::int64_t tile_cols = 1;
    std::int64_t grid_cols = 1;
};

/// Rows and columns of a block of scaling.
struct BlockSize {
    std::int64_t rows = 128;
    std::int64_t cols = 128;
};

/// The layout of a scale of shape `scale` over a [rows, cols] weight: [], [1] or [1, 1] one value;
/// [rows] or [rows, 1] one a row; [cd(rows,b), cd(cols,b)] or [cd(rows,b), 1, cd(cols,b), 1] one a
/// block; E8M0 bytes [rows, cd(cols,32)] one a group of 32. Blocks are tried in the sizes that the
/// configuration declares, in their order, and then as 128 x 128. nullopt where no layout has the
/// shape, or the weight is not a matrix. Where two layouts of no declared size have it, they agree.
[[nodiscard]] std::optional<ScaleLayout> scale_layout(const core::Shape& weight,
                                                      core::DType scale_dtype,
                                                      const core::Shape& scale,
                                                      std::span<const BlockSize> declared = {});

/// Whether every code under a scale of zero is a zero itself, so that the product is what was
/// meant. `codes` : [rows, cols] F8_E4M3; `scales` : one a tile.
[[nodiscard]] bool zero_scales_hold_zeros(std::span<const std::byte> codes,
                                          const core::Shape& weight, std::span<const double> scales,
                                          const ScaleLayout& layout);

/// The name of the weight whose scale `name` is ("X.weight" of "X.weight_scale" and
/// "X.weight_scale_inv"); "" for any other name.
[[nodiscard]] std::string weight_of_scale(const std::string& name);

/// True for the names of scales of weights, activations and the KV cache.
[[nodiscard]] bool is_scale_name(const std::string& name);

}  // namespace refit::checks
