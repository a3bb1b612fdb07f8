// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/scale_layout.hpp"

#include <algorithm>
#include <string_view>

namespace refit::checks {
namespace {

constexpr std::int64_t kMxGroup = 32;
constexpr std::string_view kInverse = "_scale_inv";
constexpr std::string_view kPlain = "_scale";

ScaleLayout layout(const char* name, std::int64_t tile_rows, std::int64_t tile_cols,
                   std::int64_t grid_cols) {
    // An empty matrix has no tiles; the extent 1 keeps divisions defined.
    return {name, std::max<std::int64_t>(tile_rows, 1), std::max<std::int64_t>(tile_cols, 1),
            grid_cols};
}

/// Whether `scale` is a grid of such blocks over the weight.
std::optional<ScaleLayout> block_layout(const core::Shape& weight, const core::Shape& scale,
                                        const BlockSize& block) {
    if (block.rows < 1 || block.cols < 1) return std::nullopt;
    const std::int64_t grid_rows = core::ceil_div(weight[0], block.rows);
    const std::int64_t grid_cols = core::ceil_div(weight[1], block.cols);
    if (scale != core::Shape{grid_rows, grid_cols} &&
        scale != core::Shape{grid_rows, 1, grid_cols, 1}) {
        return std::nullopt;
    }
    return layout("block", block.rows, block.cols, grid_cols);
}

}  // namespace

std::optional<ScaleLayout> scale_layout(const core::Shape& weight, core::DType scale_dtype,
                                        const core::Shape& scale,
                                        std::span<const BlockSize> declared) {
    if (weight.size() != 2) return std::nullopt;
    const std::int64_t rows = weight[0];
    const std::int64_t cols = weight[1];
    if (scale_dtype == core::DType::u8 || scale_dtype == core::DType::f8_e8m0) {
        const std::int64_t groups = core::ceil_div(cols, kMxGroup);
        if (scale == core::Shape{rows, groups}) return layout("mx", 1, kMxGroup, groups);
    }
    for (const BlockSize& block : declared) {
        if (auto found = block_layout(weight, scale, block)) return found;
    }
    if (auto found = block_layout(weight, scale, BlockSize{})) return found;
    if (scale.empty() || scale == core::Shape{1} || scale == core::Shape{1, 1}) {
        return layout("tensor", rows, cols, 1);
    }
    if (scale == core::Shape{rows} || scale == core::Shape{rows, 1}) {
        return layout("row", 1, cols, 1);
    }
    return std::nullopt;
}

bool zero_scales_hold_zeros(std::span<const std::byte> codes, const core::Shape& weight,
                            std::span<const double> scales, const ScaleLayout& layout) {
    const std::int64_t rows = weight[0];
    const std::int64_t cols = weight[1];
    for (std::size_t number = 0; number < scales.size(); ++number) {
        if (scales[number] != 0.0) continue;
        const std::int64_t top = static_cast<std::int64_t>(number) / layout.grid_cols;
        const std::int64_t left = static_cast<std::int64_t>(number) % layout.grid_cols;
        const std::int64_t row_end = std::min(rows, (top + 1) * layout.tile_rows);
        const std::int64_t col_end = std::min(cols, (left + 1) * layout.tile_cols);
        for (std::int64_t row = top * layout.tile_rows; row < row_end; ++row) {
            for (std::int64_t col = left * layout.tile_cols; col < col_end; ++col) {
                const auto code = codes[static_cast<std::size_t>(row * cols + col)];
                if ((std::to_integer<unsigned>(code) & 0x7FU) != 0) return false;
            }
        }
    }
    return true;
}

std::string weight_of_scale(const std::string& name) {
    for (const std::string_view suffix : {kInverse, kPlain}) {
        if (!name.ends_with(".weight" + std::string(suffix))) continue;
        return name.substr(0, name.size() - suffix.size());
    }
    return "";
}

bool is_scale_name(const std::string& name) {
    return name.ends_with(kInverse) || name.ends_with(kPlain);
}

}  // namespace refit::checks
