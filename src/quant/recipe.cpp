// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "quant/recipe.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <utility>

#include "core/error.hpp"
#include "core/nearest_name.hpp"
#include "kernels/numerics/bfloat16.hpp"
#include "kernels/numerics/float8.hpp"
#include "quant/element_values.hpp"

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
            if (rank == 0) {
                return {};
            }
            if (rank == 1) {
                return {1};
            }
            refuse_rank(recipe, weight, rank, "rank 0 or 1, one scale");
        case Scheme::bf16:
            break;
    }
    refuse_rank(recipe, weight, rank, "no scales");
}

core::DType scale_dtype(const Recipe& recipe) {
    switch (recipe.scaling.scale_storage) {
        case numerics::ScaleStorage::f32:
            return core::DType::f32;
        case numerics::ScaleStorage::bf16:
            return core::DType::bf16;
        case numerics::ScaleStorage::e8m0:
            return core::DType::u8;
    }
    return core::DType::f32;
}

std::vector<std::byte> stored_scales(const Recipe& recipe, std::span<const float> scale_inv) {
    std::vector<std::byte> bytes;
    const auto append = [&bytes](auto value) {
        std::byte raw[sizeof(value)];
        std::memcpy(raw, &value, sizeof(value));
        bytes.insert(bytes.end(), raw, raw + sizeof(value));
    };
    for (const float scale : scale_inv) {
        switch (recipe.scaling.scale_storage) {
            case numerics::ScaleStorage::f32:
                append(scale);
                break;
            case numerics::ScaleStorage::bf16:
                append(numerics::f32_to_bf16(scale));
                break;
            case numerics::ScaleStorage::e8m0:
                append(numerics::f32_to_e8m0(scale));
                break;
        }
    }
    return bytes;
}

std::vector<float> read_scales(core::DType dtype, std::span<const std::byte> bytes) {
    const auto width = static_cast<std::size_t>(core::size_bytes(dtype));
    const bool known = dtype == core::DType::f32 || dtype == core::DType::bf16 ||
                       dtype == core::DType::f16 || dtype == core::DType::u8 ||
                       dtype == core::DType::f8_e8m0;
    if (!known || bytes.size() % width != 0) {
        throw core::ShapeError("reading scales: found " + std::to_string(bytes.size()) +
                               " bytes of " + std::string(core::safetensors_name(dtype)) +
                               "; expected whole F32, BF16, F16 or E8M0 values");
    }
    std::vector<float> scales(bytes.size() / width);
    read_values(dtype, bytes.data(), static_cast<std::int64_t>(scales.size()), scales.data());
    return scales;
}

std::vector<std::string> describe(const numerics::TileScaling& scaling) {
    using namespace numerics;
    std::vector<std::string> fields;
    const auto extent = [](std::int64_t side) {
        return side == 0 ? std::string("all") : std::to_string(side);
    };
    const auto number = [](float value) {
        char text[32];
        std::snprintf(text, sizeof(text), "%.9g", static_cast<double>(value));
        return std::string(text);
    };
    const auto add = [&fields](const char* field, const std::string& value) {
        fields.push_back(std::string(field) + "=" + value);
    };
    static constexpr const char* kNonfinite[] = {"propagate", "drop_nan", "replace"};
    static constexpr const char* kEdge[] = {"true_extent", "pad_last_element"};
    static constexpr const char* kSpecial[] = {"propagate", "factor_is_one", "amax_is_448",
                                               "factor_is_one_unless_positive"};
    static constexpr const char* kFormula[] = {"amax/448", "amax*fl32(1/448)", "fl32(1/amax)*448",
                                               "448/amax"};
    static constexpr const char* kPower[] = {"none",      "scale_up",   "exponent_byte",
                                             "e8m0_ceil", "e8m0_floor", "e8m0_above"};
    static constexpr const char* kQuotient[] = {"x/s", "x*f", "x*fl32(1/s)"};
    static constexpr const char* kStorage[] = {"F32", "BF16", "E8M0"};
    const auto of = [](const auto& names, auto value) {
        return std::string(names[static_cast<std::size_t>(value)]);
    };
    add("tile", extent(scaling.tile_rows) + "x" + extent(scaling.tile_cols));
    add("nonfinite", of(kNonfinite, scaling.nonfinite_input));
    add("edge", of(kEdge, scaling.edge));
    add("special_amax", of(kSpecial, scaling.special_amax));
    if (scaling.floor_on == FloorOn::amax) add("amax_floor", number(scaling.floor_value));
    if (scaling.amax_ceiling > 0.0F) add("amax_ceiling", number(scaling.amax_ceiling));
    if (scaling.power_of_two != PowerOfTwo::e8m0_floor &&
        scaling.power_of_two != PowerOfTwo::e8m0_above) {
        add("formula", of(kFormula, scaling.formula));
    }
    if (scaling.floor_on == FloorOn::scale) add("scale_floor", number(scaling.floor_value));
    if (scaling.zero_scale > 0.0F) add("zero_scale", number(scaling.zero_scale));
    add("power_of_two", of(kPower, scaling.power_of_two));
    if (scaling.round_scale_to_bf16) add("scale_rounded_to", "BF16");
    add("quotient", of(kQuotient, scaling.quotient));
    if (scaling.round_quotient_to_bf16) add("quotient_rounded_to", "BF16");
    if (scaling.add_zero) add("add_zero", "yes");
    add("clamp", scaling.clamp ? "yes" : "no");
    add("scale_dtype", of(kStorage, scaling.scale_storage));
    return fields;
}

}  // namespace refit::quant
