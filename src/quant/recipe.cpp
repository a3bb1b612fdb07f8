// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "quant/recipe.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "core/error.hpp"
#include "core/nearest_name.hpp"

namespace refit::quant {
namespace {

constexpr std::array<std::pair<Scheme, std::string_view>, 5> kSchemes = {{
    {Scheme::bf16, "bf16"},
    {Scheme::fp8_blockwise, "fp8_blockwise"},
    {Scheme::fp8_channelwise, "fp8_channelwise"},
    {Scheme::fp8_tensorwise, "fp8_tensorwise"},
    {Scheme::mxfp8, "mxfp8"},
}};

[[noreturn]] void refuse_rank(const Recipe& recipe, const core::Shape& weight, int rank,
                              const std::string& expected) {
    throw core::ShapeError("scale shape of a " + core::to_string(weight) +
                           " weight under recipe '" + recipe.name + "': rank " +
                           std::to_string(rank) + " was asked for, but " +
                           std::string(scheme_name(recipe.scheme)) + " has " + expected);
}

}  // namespace

std::string_view scheme_name(Scheme scheme) {
    const auto* row = std::find_if(kSchemes.begin(), kSchemes.end(),
                                   [scheme](const auto& entry) { return entry.first == scheme; });
    return row == kSchemes.end() ? std::string_view("unknown") : row->second;
}

std::optional<Scheme> scheme_from_name(std::string_view name) {
    for (const auto& [scheme, known] : kSchemes) {
        if (known == name) {
            return scheme;
        }
    }
    return std::nullopt;
}

std::vector<std::string> scheme_names() {
    std::vector<std::string> names;
    for (const auto& entry : kSchemes) {
        names.emplace_back(entry.second);
    }
    return names;
}

std::vector<std::string> recipe_names() {
    std::vector<std::string> names;
    for (const Recipe& recipe : recipe_catalog()) {
        names.push_back(recipe.name);
    }
    return names;
}

const Recipe& find_recipe(std::string_view name) {
    for (const Recipe& recipe : recipe_catalog()) {
        if (recipe.name == name) {
            return recipe;
        }
    }
    throw core::UsageError(core::unknown_name_message("recipe", name, recipe_names()));
}

core::Shape scale_shape(const Recipe& recipe, const core::Shape& weight, int rank) {
    const std::int64_t rows = core::matrix_rows(weight);
    const std::int64_t cols = core::matrix_cols(weight);
    switch (recipe.scheme) {
        case Scheme::fp8_blockwise:
        case Scheme::mxfp8: {
            const std::int64_t tile_rows = std::max<std::int64_t>(1, recipe.scaling.tile_rows);
            const std::int64_t tile_cols = std::max<std::int64_t>(1, recipe.scaling.tile_cols);
            const std::int64_t grid_rows = core::ceil_div(rows, tile_rows);
            const std::int64_t grid_cols = core::ceil_div(cols, tile_cols);
            if (rank == 2) {
                return {grid_rows, grid_cols};
            }
            if (rank == 4 && recipe.scheme == Scheme::fp8_blockwise) {
                return {grid_rows, 1, grid_cols, 1};
            }
            refuse_rank(recipe, weight, rank,
                        recipe.scheme == Scheme::mxfp8 ? "rank 2, the tile grid"
                                                       : "rank 2 or 4, the tile grid");
        }
        case Scheme::fp8_channelwise:
            if (rank == 1) {
                return {rows};
            }
            if (rank == 2) {
                return {rows, 1};
            }
            refuse_rank(recipe, weight, rank, "rank 1 or 2, one scale a row");
        case Scheme::fp8_tensorwise:
            if (rank == 1) {
                return {1};
            }
            refuse_rank(recipe, weight, rank, "rank 1, one scale");
        case Scheme::bf16:
            break;
    }
    refuse_rank(recipe, weight, rank, "no scales");
}

}  // namespace refit::quant
