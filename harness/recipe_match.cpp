// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/recipe_match.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <utility>

#include "core/aligned_buffer.hpp"
#include "kernels/backend.hpp"
#include "kernels/numerics/float8.hpp"

namespace refit::harness {
namespace {

/// Larger ones would need more memory than the rest of the walk.
constexpr std::int64_t kLargestMatrix = std::int64_t{1} << 24;

const char* layout_of(quant::Scheme scheme) {
    switch (scheme) {
        case quant::Scheme::fp8_blockwise:
            return "block";
        case quant::Scheme::fp8_channelwise:
            return "row";
        case quant::Scheme::fp8_tensorwise:
            return "tensor";
        case quant::Scheme::mxfp8:
            return "mx";
        case quant::Scheme::bf16:
            break;
    }
    return "";
}

bool fits(const quant::Recipe& recipe, const CheckpointSurvey::Scales& scales) {
    const core::DType dtype = scales.dtype == core::DType::f8_e8m0 ? core::DType::u8 : scales.dtype;
    // One scale for a small matrix may be that of its only block or of the whole tensor.
    const bool one = scales.values.size() == 1 && scales.layout.name != "mx";
    return quant::scale_dtype(recipe) == dtype &&
           (layout_of(recipe.scheme) == scales.layout.name || one);
}

bool explains(const quant::Recipe& recipe, const CheckpointSurvey::Scales& scales,
              const checks::StoredMatrix& codes, const std::vector<std::uint16_t>& values) {
    const kernels::TileGrid grid = kernels::tile_grid(recipe.scaling, codes.rows, codes.cols);
    const auto tiles = static_cast<std::size_t>(grid.grid_rows * grid.grid_cols);
    if (tiles != scales.values.size()) return false;
    std::vector<std::uint32_t> amax(tiles);
    std::vector<float> expected_scales(tiles);
    core::AlignedBuffer buffer(values.size());
    auto* expected = reinterpret_cast<std::uint8_t*>(buffer.data());
    if (!values.empty()) {
        const std::uint32_t last = (std::uint32_t{values.back()} & 0x7fffU) << 16;
        const kernels::Band band{values.data(), codes.cols, 0,   codes.rows,
                                 codes.rows,    codes.cols, last};
        kernels::find_backend("auto")->quantize(recipe.scaling, band, amax, expected_scales,
                                                expected, codes.cols, {});
    }
    for (std::size_t i = 0; i < tiles; ++i) {
        const auto wanted = static_cast<double>(expected_scales[i]);
        const double found = scales.values[i];
        if (found != wanted && !(std::isnan(found) && std::isnan(wanted))) return false;
    }
    const auto* found = reinterpret_cast<const std::uint8_t*>(codes.bytes.data());
    for (std::size_t i = 0; i < values.size(); ++i) {
        if (found[i] != expected[i] &&
            !(numerics::e4m3_is_nan(found[i]) && numerics::e4m3_is_nan(expected[i]))) {
            return false;
        }
    }
    return true;
}

}  // namespace

RecipeMatch::RecipeMatch(std::int64_t elements) : elements_(elements) {
    for (const quant::Recipe& recipe : quant::recipe_catalog()) left_.push_back(&recipe);
}

void RecipeMatch::add(const CheckpointSurvey::Scales& scales, const checks::StoredMatrix& codes,
                      const checks::StoredMatrix& source) {
    const std::int64_t elements = codes.rows * codes.cols;
    if (left_.empty() || source.dtype != core::DType::bf16 || elements > kLargestMatrix ||
        elements > elements_) {
        return;
    }
    elements_ -= elements;
    ++matrices_;
    std::vector<std::uint16_t> values(static_cast<std::size_t>(elements));
    if (!values.empty()) std::memcpy(values.data(), source.bytes.data(), source.bytes.size());
    // Recipes of one definition under several names are computed once.
    std::vector<std::pair<const quant::Recipe*, bool>> done;
    std::erase_if(left_, [&](const quant::Recipe* recipe) {
        if (!fits(*recipe, scales)) return true;
        const auto same = std::find_if(done.begin(), done.end(), [recipe](const auto& other) {
            return other.first->scaling == recipe->scaling;
        });
        const bool exact =
            same != done.end() ? same->second : explains(*recipe, scales, codes, values);
        done.emplace_back(recipe, exact);
        return !exact;
    });
}

std::vector<std::string> RecipeMatch::exact() const {
    std::vector<std::string> names;
    if (matrices_ == 0) return names;
    for (const quant::Recipe* recipe : left_) names.push_back(recipe->name);
    return names;
}

}  // namespace refit::harness
