// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A recipe: a scheme plus everything that decides the bits, and where it was read.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.hpp"
#include "core/shape.hpp"
#include "kernels/numerics/tile_scaling.hpp"

namespace refit::quant {

/// What the receiver sees.
enum class Scheme { bf16, fp8_blockwise, fp8_channelwise, fp8_tensorwise, mxfp8 };

[[nodiscard]] std::string_view scheme_name(Scheme scheme);
[[nodiscard]] std::optional<Scheme> scheme_from_name(std::string_view name);
[[nodiscard]] std::vector<std::string> scheme_names();

struct Recipe {
    std::string name;
    Scheme scheme = Scheme::bf16;
    numerics::TileScaling scaling;
    std::string scale_suffix;  ///< as the recipe's own system writes it: "weight_scale_inv" or
                               ///< "weight_scale"
    int scale_rank = 2;        ///< rank of that tensor: 0, 1, 2 or 4
    std::string summary;       ///< order of operations in a line
    std::string source;        ///< repository, version, file
};

[[nodiscard]] const std::vector<Recipe>& recipe_catalog();
[[nodiscard]] std::vector<std::string> recipe_names();
/// Throws UsageError that lists the nearest names.
[[nodiscard]] const Recipe& find_recipe(std::string_view name);

/// Shape of the scale tensor of a [rows, cols] weight at the given rank (0, 1, 2 or 4). Blockwise:
/// the tile grid, 2-D, or 4-D [gr, 1, gc, 1]. Channelwise: [rows] or [rows, 1]. Tensorwise: [] or
/// [1]. Throws ShapeError for a rank the scheme lacks.
[[nodiscard]] core::Shape scale_shape(const Recipe& recipe, const core::Shape& weight, int rank);

/// Dtype of the scale tensor as the recipe's own system writes it: F32, BF16, or U8 for E8M0 (which
/// safetensors readers of the field know as U8).
[[nodiscard]] core::DType scale_dtype(const Recipe& recipe);
/// The bytes of that tensor from the backend's F32 scales. Exact, because a backend rounds to the
/// recipe's storage before; NaN becomes 0x7fc0 in BF16 and 255 in E8M0.
[[nodiscard]] std::vector<std::byte> stored_scales(const Recipe& recipe,
                                                   std::span<const float> scale_inv);
/// The inverse for any of the three dtypes. Throws ShapeError for another dtype or a size that is
/// no multiple of it.
[[nodiscard]] std::vector<float> read_scales(core::DType dtype, std::span<const std::byte> bytes);

/// Every field that decides a bit, as "field=value", in the order in which it acts.
[[nodiscard]] std::vector<std::string> describe(const numerics::TileScaling& scaling);

}  // namespace refit::quant
