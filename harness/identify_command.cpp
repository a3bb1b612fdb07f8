// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/identify_command.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>

#include "core/aligned_buffer.hpp"
#include "core/error.hpp"
#include "harness/fp8_file.hpp"
#include "harness/run_output.hpp"
#include "kernels/backend.hpp"
#include "kernels/numerics/float8.hpp"
#include "quant/recipe.hpp"

namespace refit::harness {
namespace {

using nlohmann::json;

/// How far one recipe is from what was found.
struct Comparison {
    const quant::Recipe* recipe = nullptr;
    std::int64_t differing_codes = 0;
    std::int64_t differing_scales = 0;
    /// Of the first difference, scales before codes: where, and both patterns.
    bool first_is_scale = false;
    std::int64_t first = -1;
    std::uint32_t found = 0;
    std::uint32_t expected = 0;

    [[nodiscard]] bool exact() const { return differing_codes == 0 && differing_scales == 0; }
    [[nodiscard]] std::int64_t differing() const { return differing_codes + differing_scales; }
};

struct Identified {
    const Fp8Matrix* matrix = nullptr;
    std::vector<std::string> exact;
    Comparison nearest;
};

std::vector<const quant::Recipe*> candidates(const Fp8Matrix& matrix) {
    const core::DType found =
        matrix.scale->dtype == core::DType::f8_e8m0 ? core::DType::u8 : matrix.scale->dtype;
    // One scale a tensor has no shape of its own: [], [1] and [1, 1] are the same.
    const bool whole = matrix.layout == "tensor";
    const core::Shape shape = whole ? core::Shape{1} : matrix.scale_shape();
    std::vector<const quant::Recipe*> result;
    for (const quant::Recipe& recipe : quant::recipe_catalog()) {
        const bool of_tensor = recipe.scheme == quant::Scheme::fp8_tensorwise;
        const int rank = whole && of_tensor ? 1 : recipe.scale_rank;
        if (quant::scale_dtype(recipe) == found &&
            quant::scale_shape(recipe, matrix.shape(), rank) == shape) {
            result.push_back(&recipe);
        }
    }
    return result;
}

/// The BF16 values of the matrix; throws where the reference has it not or otherwise.
std::vector<std::uint16_t> reference_values(const weights::SafetensorsFile& reference,
                                            const Fp8Matrix& matrix) {
    const weights::StoredTensor* const stored = reference.find(matrix.codes->name);
    const std::string wanted = "BF16 " + core::to_string(matrix.codes->shape);
    if (stored == nullptr) {
        throw core::Error(core::ExitCode::verdict,
                          "the reference " + reference.path().string() + " has no tensor " +
                              matrix.codes->name + "; expected " + wanted +
                              "; name the file that the quantized one was made from");
    }
    if (stored->dtype != core::DType::bf16 || stored->shape != matrix.codes->shape) {
        throw core::Error(core::ExitCode::verdict,
                          "tensor " + stored->name + " of the reference " +
                              reference.path().string() + ": found " +
                              std::string(core::safetensors_name(stored->dtype)) + " " +
                              core::to_string(stored->shape) + "; expected " + wanted +
                              "; name the file that the quantized one was made from");
    }
    const std::span<const std::byte> bytes = reference.bytes(*stored);
    std::vector<std::uint16_t> values(bytes.size() / sizeof(std::uint16_t));
    if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
}

bool same_scale(float a, float b) {
    const auto bits_a = std::bit_cast<std::uint32_t>(a);
    const auto bits_b = std::bit_cast<std::uint32_t>(b);
    return bits_a == bits_b || (a != a && b != b);
}

Comparison compare(const quant::Recipe& recipe, const Fp8Matrix& matrix,
                   const std::vector<std::uint16_t>& values, std::span<const float> scales,
                   const std::uint8_t* codes) {
    const kernels::TileGrid grid = kernels::tile_grid(recipe.scaling, matrix.rows, matrix.cols);
    const auto tiles = static_cast<std::size_t>(grid.grid_rows * grid.grid_cols);
    const auto elements = static_cast<std::size_t>(matrix.rows * matrix.cols);
    std::vector<std::uint32_t> amax(tiles);
    std::vector<float> expected_scales(static_cast<std::size_t>(matrix.experts) * tiles);
    core::AlignedBuffer buffer(values.size());
    auto* expected = reinterpret_cast<std::uint8_t*>(buffer.data());
    for (std::size_t first = 0, tile = 0; first < values.size(); first += elements, tile += tiles) {
        const std::uint32_t last = (std::uint32_t{values[first + elements - 1]} & 0x7fffU) << 16;
        const kernels::Band band{values.data() + first, matrix.cols, 0,   matrix.rows,
                                 matrix.rows,           matrix.cols, last};
        kernels::find_backend("auto")->quantize(recipe.scaling, band, amax,
                                                std::span(expected_scales).subspan(tile, tiles),
                                                expected + first, matrix.cols, {});
    }
    Comparison result;
    result.recipe = &recipe;
    for (std::size_t i = 0; i < expected_scales.size(); ++i) {
        if (same_scale(scales[i], expected_scales[i])) continue;
        if (result.differing_scales++ == 0) {
            result.first_is_scale = true;
            result.first = static_cast<std::int64_t>(i);
            result.found = std::bit_cast<std::uint32_t>(scales[i]);
            result.expected = std::bit_cast<std::uint32_t>(expected_scales[i]);
        }
    }
    for (std::size_t i = 0; i < values.size(); ++i) {
        if (codes[i] == expected[i] ||
            (numerics::e4m3_is_nan(codes[i]) && numerics::e4m3_is_nan(expected[i]))) {
            continue;
        }
        if (result.differing_codes++ == 0 && !result.first_is_scale) {
            result.first = static_cast<std::int64_t>(i);
            result.found = codes[i];
            result.expected = expected[i];
        }
    }
    return result;
}

Identified identify_one(const weights::SafetensorsFile& file,
                        const weights::SafetensorsFile& reference, const Fp8Matrix& matrix) {
    Identified result;
    result.matrix = &matrix;
    const std::vector<const quant::Recipe*> recipes = candidates(matrix);
    if (recipes.empty()) {
        std::set<std::string> known;
        for (const quant::Recipe& recipe : quant::recipe_catalog()) {
            known.insert(
                std::string(core::safetensors_name(quant::scale_dtype(recipe))) + " " +
                core::to_string(quant::scale_shape(recipe, matrix.shape(), recipe.scale_rank)));
        }
        std::string list;
        for (const std::string& layout : known) list += (list.empty() ? "" : ", ") + layout;
        throw core::Error(core::ExitCode::verdict,
                          matrix.scale->name + " of " + file.path().string() + ": found " +
                              std::string(core::safetensors_name(matrix.scale->dtype)) + " " +
                              core::to_string(matrix.scale->shape) +
                              ", which no recipe writes for a weight " +
                              core::to_string(matrix.codes->shape) + "; expected one of " + list);
    }
    const std::vector<std::uint16_t> values = reference_values(reference, matrix);
    const std::vector<float> scales =
        quant::read_scales(matrix.scale->dtype, file.bytes(*matrix.scale));
    const auto* codes = reinterpret_cast<const std::uint8_t*>(file.bytes(*matrix.codes).data());
    // Recipes of one definition under several names are computed once.
    std::vector<Comparison> done;
    for (const quant::Recipe* recipe : recipes) {
        const auto same = std::find_if(done.begin(), done.end(), [recipe](const Comparison& other) {
            return other.recipe->scaling == recipe->scaling;
        });
        Comparison comparison =
            same != done.end() ? *same : compare(*recipe, matrix, values, scales, codes);
        comparison.recipe = recipe;
        if (comparison.exact()) result.exact.push_back(recipe->name);
        if (done.empty() || comparison.differing() < result.nearest.differing()) {
            result.nearest = comparison;
        }
        done.push_back(comparison);
    }
    return result;
}

/// Index in a tensor of the shape, whatever its rank.
std::vector<std::int64_t> position(std::int64_t number, const core::Shape& shape) {
    std::vector<std::int64_t> index(shape.size());
    for (std::size_t i = index.size(); i-- > 0;) {
        index[i] = number % shape[i];
        number /= shape[i];
    }
    return index;
}

std::vector<std::int64_t> index_of(const Identified& one) {
    const Comparison& nearest = one.nearest;
    if (!nearest.first_is_scale) {
        return position(nearest.first, one.matrix->codes->shape);
    }
    return position(nearest.first, one.matrix->scale->shape);
}

double value_of(const Comparison& comparison, std::uint32_t bits) {
    return static_cast<double>(comparison.first_is_scale
                                   ? std::bit_cast<float>(bits)
                                   : numerics::e4m3_to_f32(static_cast<std::uint8_t>(bits)));
}

std::string pattern_of(const Comparison& comparison, std::uint32_t bits) {
    return comparison.first_is_scale ? fmt::format("0x{:08x}", bits)
                                     : fmt::format("0x{:02x}", bits);
}

json first_difference(const Identified& one) {
    const Comparison& nearest = one.nearest;
    if (nearest.first < 0) return nullptr;
    return {{"what", nearest.first_is_scale ? "scale" : "code"},
            {"index", index_of(one)},
            {"found", number_or_null(value_of(nearest, nearest.found))},
            {"expected", number_or_null(value_of(nearest, nearest.expected))},
            {"found_bits", pattern_of(nearest, nearest.found)},
            {"expected_bits", pattern_of(nearest, nearest.expected)}};
}

std::string joined(const std::vector<std::string>& names) {
    std::string text;
    for (const std::string& name : names) text += (text.empty() ? "" : ",") + name;
    return text;
}

/// Recipes that are exact for every tensor, in catalog order.
std::vector<std::string> common(const std::vector<Identified>& all) {
    std::vector<std::string> names;
    for (const std::string& name : quant::recipe_names()) {
        const bool everywhere = std::all_of(all.begin(), all.end(), [&name](const Identified& one) {
            return std::find(one.exact.begin(), one.exact.end(), name) != one.exact.end();
        });
        if (everywhere) names.push_back(name);
    }
    return names;
}

void print(const IdentifyOptions& options, const std::vector<Identified>& all,
           const std::vector<std::string>& names) {
    for (const Identified& one : all) {
        if (!one.exact.empty()) {
            fmt::print("{}  exact={}\n", one.matrix->codes->name, joined(one.exact));
            continue;
        }
        const Comparison& nearest = one.nearest;
        fmt::print(
            "{}  nearest={}  differing_codes={}  differing_scales={}  first={} {} found {:.9g} "
            "({}) expected {:.9g} ({})\n",
            one.matrix->codes->name, nearest.recipe->name, nearest.differing_codes,
            nearest.differing_scales, nearest.first_is_scale ? "scale" : "code",
            core::to_string(index_of(one)), value_of(nearest, nearest.found),
            pattern_of(nearest, nearest.found), value_of(nearest, nearest.expected),
            pattern_of(nearest, nearest.expected));
    }
    fmt::print("# {}: {} matrices; recipes that explain every one exactly: {}\n",
               options.file.string(), all.size(), names.empty() ? "none" : joined(names));
}

int identify(const IdentifyOptions& options, const std::vector<std::string>& argv) {
    if (!options.json.empty()) {
        refuse_same_file("--json", options.json, options.file);
        refuse_same_file("--json", options.json, options.reference);
    }
    check_writable(options.json);
    const weights::SafetensorsFile file(options.file);
    const weights::SafetensorsFile reference(options.reference);
    const std::vector<Fp8Matrix> matrices = fp8_matrices(file);
    std::vector<Identified> all;
    json rows = json::array();
    bool identified = true;
    for (const Fp8Matrix& matrix : matrices) {
        all.push_back(identify_one(file, reference, matrix));
        const Identified& one = all.back();
        identified = identified && !one.exact.empty();
        rows.push_back({{"tensor", matrix.codes->name},
                        {"scale", matrix.scale->name},
                        {"exact", one.exact},
                        {"nearest", one.nearest.recipe->name},
                        {"differing_codes", one.nearest.differing_codes},
                        {"differing_scales", one.nearest.differing_scales},
                        {"first_difference", first_difference(one)}});
    }
    const std::vector<std::string> names = common(all);
    json root = json_head("refitbench.identify/1", argv);
    root["file"] = options.file.string();
    root["reference"] = options.reference.string();
    root["exact"] = names;
    root["tensors"] = rows;
    put_json(options.json, root);
    if (options.json != "-") print(options, all, names);
    return static_cast<int>(identified ? core::ExitCode::as_expected : core::ExitCode::verdict);
}

}  // namespace

int identify_command(const IdentifyOptions& options, const std::vector<std::string>& argv) {
    return guarded([&] { return identify(options, argv); });
}

}  // namespace refit::harness
