// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Recipes against golden files that tests/golden/generate_recipes.py computed with numpy and
// ml_dtypes from the formulas.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/backend.hpp"
#include "quant/recipe.hpp"
#include "unit/kernels/emulated_avx512.hpp"

namespace refit::quant {
namespace {

/// REFIT_GOLDEN_DIR is where the files are on a machine that has the programs and not the sources.
std::string golden_folder() {
    const char* moved = std::getenv("REFIT_GOLDEN_DIR");
    return std::string(moved != nullptr ? moved : REFIT_SOURCE_DIR "/tests/golden") + "/recipes/";
}
const std::string kFolder = golden_folder();

struct Input {
    std::string name;
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    std::vector<std::uint16_t> values;
};

struct Output {
    std::vector<std::uint32_t> scale_bits;  ///< as stored: F32, BF16 or E8M0 patterns
    std::vector<std::uint8_t> codes;
    bool operator==(const Output&) const = default;
};

std::vector<std::string> read_lines(const std::string& path) {
    std::ifstream file(path);
    if (!file) {
        throw std::runtime_error("golden file " + path + " cannot be read");
    }
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);) {
        if (!line.starts_with('#')) {
            lines.push_back(line);
        }
    }
    return lines;
}

template <typename T>
void append_hex(const std::string& line, std::size_t digits, std::vector<T>& values) {
    for (std::size_t i = 0; i + digits <= line.size(); i += digits) {
        values.push_back(static_cast<T>(std::stoul(line.substr(i, digits), nullptr, 16)));
    }
}

std::vector<Input> read_inputs() {
    std::vector<Input> inputs;
    for (const std::string& line : read_lines(kFolder + "inputs.hex")) {
        if (line.starts_with("case ")) {
            std::istringstream words(line.substr(5));
            Input input;
            words >> input.name >> input.rows >> input.cols;
            inputs.push_back(input);
        } else {
            append_hex(line, 4, inputs.back().values);
        }
    }
    return inputs;
}

std::map<std::string, Output> read_outputs(const std::string& recipe) {
    std::map<std::string, Output> outputs;
    Output* current = nullptr;
    bool scales_next = false;
    std::size_t digits = 8;
    for (const std::string& line : read_lines(kFolder + recipe + ".hex")) {
        if (line.starts_with("recipe ")) {
            std::istringstream words(line.substr(7));
            std::string name;
            std::string dtype;
            words >> name >> dtype;
            if (name != recipe) {
                throw std::runtime_error("golden file of " + recipe + " says " + line);
            }
            digits = dtype == "f32" ? 8U : dtype == "bf16" ? 4U : 2U;
        } else if (line.starts_with("case ")) {
            std::istringstream words(line.substr(5));
            std::string name;
            words >> name;
            current = &outputs[name];
            scales_next = true;
        } else if (scales_next) {
            append_hex(line, digits, current->scale_bits);
            scales_next = false;
        } else {
            append_hex(line, 2, current->codes);
        }
    }
    return outputs;
}

Output quantize(const kernels::Backend& backend, const numerics::TileScaling& scaling,
                const Input& input) {
    const kernels::TileGrid grid = kernels::tile_grid(scaling, input.rows, input.cols);
    const auto tiles = static_cast<std::size_t>(grid.grid_rows * grid.grid_cols);
    kernels::Band band;
    band.data = input.values.data();
    band.row_stride = input.cols;
    band.row_count = input.rows;
    band.rows = input.rows;
    band.cols = input.cols;
    band.last_element_bits = static_cast<std::uint32_t>(input.values.back() & 0x7fffU) << 16;
    std::vector<std::uint32_t> amax(tiles);
    std::vector<float> scale_inv(tiles);
    Output output;
    output.codes.resize(input.values.size());
    backend.quantize(scaling, band, amax, scale_inv, output.codes.data(), input.cols, {});
    Recipe recipe;
    recipe.scaling = scaling;
    const std::vector<std::byte> bytes = stored_scales(recipe, scale_inv);
    const std::size_t width = bytes.size() / tiles;
    for (std::size_t i = 0; i < tiles; ++i) {
        std::uint32_t bits = 0;  // little-endian, as safetensors is
        std::memcpy(&bits, bytes.data() + i * width, width);
        output.scale_bits.push_back(bits);
    }
    return output;
}

class GoldenRecipe : public ::testing::TestWithParam<std::string> {};

std::string test_name(const ::testing::TestParamInfo<std::string>& parameter) {
    std::string name = parameter.param;
    std::replace(name.begin(), name.end(), '-', '_');
    return name;
}

INSTANTIATE_TEST_SUITE_P(Catalog, GoldenRecipe, ::testing::ValuesIn(recipe_names()), test_name);

TEST_P(GoldenRecipe, EqualsTheIndependentImplementationOnEveryBackend) {
    const Recipe& recipe = find_recipe(GetParam());
    const std::vector<Input> inputs = read_inputs();
    const std::map<std::string, Output> outputs = read_outputs(recipe.name);
    ASSERT_GE(inputs.size(), 20U);
    ASSERT_EQ(inputs.size(), outputs.size());
    for (const auto& [name, backend] : kernels::backends_under_test()) {
        if (backend == nullptr) {
            continue;  // the kernels' own tests report which backend is missing and why
        }
        for (const Input& input : inputs) {
            const Output& expected = outputs.at(input.name);
            ASSERT_EQ(static_cast<std::int64_t>(input.values.size()), input.rows * input.cols);
            const Output found = quantize(*backend, recipe.scaling, input);
            EXPECT_EQ(found.scale_bits, expected.scale_bits) << name << " case " << input.name;
            ASSERT_EQ(found.codes.size(), expected.codes.size()) << input.name;
            const auto [mine, theirs] =
                std::mismatch(found.codes.begin(), found.codes.end(), expected.codes.begin());
            EXPECT_TRUE(mine == found.codes.end())
                << name << " case " << input.name << ": code " << mine - found.codes.begin()
                << " is " << static_cast<int>(*mine) << ", expected " << static_cast<int>(*theirs);
        }
    }
}

/// The golden comparison itself: does any case tell `changed` from the recipe?
bool is_told_apart(const std::string& recipe, const numerics::TileScaling& changed) {
    const std::map<std::string, Output> outputs = read_outputs(recipe);
    for (const Input& input : read_inputs()) {
        if (!(quantize(*kernels::find_backend("portable"), changed, input) ==
              outputs.at(input.name))) {
            return true;
        }
    }
    return false;
}

TEST(GoldenComparison, CatchesAScaleFormulaOfTheOtherDevice) {
    for (const std::string& name : recipe_names()) {
        if (name.ends_with("-cpu")) {
            EXPECT_TRUE(is_told_apart(name, find_recipe(name.substr(0, name.size() - 4)).scaling))
                << name;
        }
    }
}

TEST(GoldenComparison, CatchesEachChangedFieldOfARecipe) {
    using numerics::TileScaling;
    const auto changed = [](const char* name, auto change) {
        TileScaling scaling = find_recipe(name).scaling;
        change(scaling);
        return is_told_apart(name, scaling);
    };
    EXPECT_FALSE(changed("prime-rl-blockwise", [](TileScaling&) {}));
    EXPECT_TRUE(changed("prime-rl-blockwise-cpu", [](TileScaling& s) {
        s.quotient = numerics::Quotient::multiply_by_reciprocal;
    }));
    EXPECT_TRUE(changed("prime-rl-blockwise",
                        [](TileScaling& s) { s.floor_on = numerics::FloorOn::amax; }));
    EXPECT_TRUE(changed("prime-rl-blockwise",
                        [](TileScaling& s) { s.floor_on = numerics::FloorOn::nothing; }));
    EXPECT_TRUE(
        changed("nemo-rl-linear", [](TileScaling& s) { s.edge = numerics::Edge::true_extent; }));
    EXPECT_TRUE(changed("nemo-rl-linear", [](TileScaling& s) {
        s.formula = numerics::ScaleFormula::c448_over_amax;
    }));
    EXPECT_TRUE(changed("nemo-rl-linear",
                        [](TileScaling& s) { s.special_amax = numerics::SpecialAmax::propagate; }));
    EXPECT_TRUE(changed("modelopt-pc-pt", [](TileScaling& s) { s.amax_ceiling = 0.0F; }));
    EXPECT_TRUE(changed("modelopt-pc-pt",
                        [](TileScaling& s) { s.special_amax = numerics::SpecialAmax::propagate; }));
    EXPECT_TRUE(changed("tensorwise", [](TileScaling& s) { s.add_zero = false; }));
    EXPECT_TRUE(changed("tensorwise", [](TileScaling& s) { s.zero_scale = 0.0F; }));
    EXPECT_TRUE(
        changed("slime-tensorwise", [](TileScaling& s) { s.round_quotient_to_bf16 = false; }));
    for (const char* name : {"slime-tensorwise", "modelopt-fp8", "llm-compressor-channel",
                             "llm-compressor-block", "llm-compressor-tensor"}) {
        EXPECT_TRUE(changed(name, [](TileScaling& s) {
            s.round_scale_to_bf16 = false;
            s.zero_scale = 0x1p-7F;
        })) << name;
    }
    EXPECT_TRUE(changed("modelopt-fp8-cpu", [](TileScaling& s) { s.round_scale_to_bf16 = true; }));
    EXPECT_TRUE(changed("llm-compressor-channel", [](TileScaling& s) { s.zero_scale = 0x1p-23F; }));
    EXPECT_TRUE(changed("llm-compressor-mxfp8",
                        [](TileScaling& s) { s.power_of_two = numerics::PowerOfTwo::e8m0_ceil; }));
    EXPECT_TRUE(changed("transformers-blockwise", [](TileScaling& s) {
        s.special_amax = numerics::SpecialAmax::factor_is_one;
    }));
    EXPECT_TRUE(changed("slime-offline", [](TileScaling& s) { s.floor_value = 1e-12F; }));
    EXPECT_TRUE(changed("areal-triton", [](TileScaling& s) {
        s.nonfinite_input = numerics::NonfiniteInput::propagate;
    }));
    EXPECT_TRUE(changed("areal-triton",
                        [](TileScaling& s) { s.quotient = numerics::Quotient::divide_by_scale; }));
    EXPECT_TRUE(changed("areal-triton", [](TileScaling& s) { s.floor_value = 1e-12F; }));
    EXPECT_TRUE(changed("areal-megatron",
                        [](TileScaling& s) { s.scale_storage = numerics::ScaleStorage::f32; }));
    for (const char* name : {"nemo-rl-2037-linear", "nemo-rl-2037-pow2"}) {
        EXPECT_TRUE(changed(name, [](TileScaling& s) {
            s.nonfinite_input = numerics::NonfiniteInput::propagate;
        })) << name;
        EXPECT_TRUE(changed(name, [](TileScaling& s) {
            s.nonfinite_input = numerics::NonfiniteInput::drop_nan;
        })) << name;
    }
    EXPECT_TRUE(
        changed("mxfp8", [](TileScaling& s) { s.power_of_two = numerics::PowerOfTwo::e8m0_ceil; }));
    EXPECT_TRUE(changed("mxfp8-ceil", [](TileScaling& s) {
        s.power_of_two = numerics::PowerOfTwo::exponent_byte;
    }));
    EXPECT_TRUE(changed("mxfp8", [](TileScaling& s) { s.tile_cols = 64; }));
    EXPECT_TRUE(changed("deepgemm-ue8m0", [](TileScaling& s) {
        s.power_of_two = numerics::PowerOfTwo::exponent_byte;
    }));
}

TEST(GoldenFiles, ExistForEveryRecipeOfTheCatalogAndForNoOther) {
    std::vector<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(kFolder)) {
        const std::string stem = entry.path().stem().string();
        if (entry.path().extension() == ".hex" && stem != "inputs") {
            found.push_back(stem);
        }
    }
    std::vector<std::string> expected = recipe_names();
    std::sort(found.begin(), found.end());
    std::sort(expected.begin(), expected.end());
    EXPECT_EQ(found, expected);
}

}  // namespace
}  // namespace refit::quant
