// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The truth is tests/golden/model: what the classes of Hugging Face transformers build.
#include "model/model_config.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "model/hf_config.hpp"
#include "model/model_catalog.hpp"

namespace refit::model {
namespace {

const std::string kGolden = std::string(REFIT_SOURCE_DIR) + "/tests/golden/model/";

std::vector<std::string> golden_lines(const std::string& file) {
    std::ifstream in(kGolden + file);
    EXPECT_TRUE(in) << kGolden + file;
    std::vector<std::string> lines;
    for (std::string line; std::getline(in, line);) {
        if (!line.empty() && line.front() != '#') lines.push_back(line);
    }
    return lines;
}

std::string line_of(const TensorSpec& tensor) {
    std::string shape;
    for (const std::int64_t extent : tensor.shape) {
        shape += (shape.empty() ? "" : "x") + std::to_string(extent);
    }
    return tensor.name + "\t" + std::string(role_name(tensor.role)) + "\t" + shape;
}

std::vector<std::string> lines_of(const ModelConfig& config) {
    std::vector<std::string> lines;
    for (const TensorSpec& tensor : tensors_of(config)) lines.push_back(line_of(tensor));
    return lines;
}

std::int64_t elements_of(const ModelConfig& config) {
    std::int64_t elements = 0;
    for (const TensorSpec& tensor : tensors_of(config))
        elements += core::element_count(tensor.shape);
    return elements;
}

class GoldenListing : public testing::TestWithParam<std::string> {};

TEST_P(GoldenListing, IsWhatTheCatalogueRowGives) {
    EXPECT_EQ(lines_of(find_model(GetParam()).config), golden_lines(GetParam() + ".tsv"));
}

TEST_P(GoldenListing, IsWhatTheConfigFileOfTransformersGives) {
    const ModelConfig config = read_hf_config(kGolden + GetParam() + ".config.json");
    EXPECT_EQ(lines_of(config), golden_lines(GetParam() + ".tsv"));
    EXPECT_FALSE(config.quantization_config.has_value());
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenListing,
                         testing::Values("llama-3.2-1b", "llama-3.1-8b", "qwen2.5-0.5b",
                                         "qwen2.5-7b", "qwen3-0.6b", "qwen3-8b", "tiny-llama",
                                         "tiny-qwen3"),
                         [](const auto& test) {
                             std::string name = test.param;
                             for (char& c : name) {
                                 if (c == '-' || c == '.') c = '_';
                             }
                             return name;
                         });

TEST(GoldenListings, MatchAModelThatIsOnlyAConfigFile) {
    const ModelConfig config = read_hf_config(kGolden + "smollm2-135m.config.json");
    EXPECT_EQ(lines_of(config), golden_lines("smollm2-135m.tsv"));
    EXPECT_EQ(tensors_of(config).size(), 272U);
}

TEST(GoldenListings, CatchAWrongFigure) {
    ModelConfig config = find_model("qwen3-0.6b").config;
    config.head_dim =
        config.hidden / config.heads;  // 64: the derivation that Qwen3 does not follow
    EXPECT_NE(lines_of(config), golden_lines("qwen3-0.6b.tsv"));
}

TEST(GoldenTotals, AreThoseOfEveryCatalogueRow) {
    std::size_t seen = 0;
    for (const std::string& line : golden_lines("totals.tsv")) {
        std::istringstream fields(line);
        std::string name;
        std::size_t tensors = 0;
        std::int64_t parameters = 0;
        fields >> name >> tensors >> parameters;
        if (name == "smollm2-135m") continue;  // not in the catalogue
        const CatalogRow& row = find_model(name);
        EXPECT_EQ(row.published_parameters, parameters) << name;
        EXPECT_EQ(elements_of(row.config), parameters) << name;
        EXPECT_EQ(tensors_of(row.config).size(), tensors) << name;
        ++seen;
    }
    EXPECT_EQ(seen, model_catalog().size());
}

TEST(TensorsOf, NumbersTheLayersAndLeavesTheRestOutside) {
    for (const TensorSpec& tensor : tensors_of(find_model("tiny-qwen3").config)) {
        const std::string prefix = "model.layers.";
        const int expected =
            tensor.name.starts_with(prefix) ? std::stoi(tensor.name.substr(prefix.size())) : -1;
        EXPECT_EQ(tensor.layer, expected) << tensor.name;
        EXPECT_EQ(tensor.dtype, core::DType::bf16) << tensor.name;
    }
}

}  // namespace
}  // namespace refit::model
