// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The truth is tests/golden/model: what the classes of Hugging Face transformers build, and for the
// models with experts the tables of their checkpoints.
#include "model/model_config.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <set>
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

/// The lines of the layers and experts that a listing of a model with experts is cut down to.
std::vector<std::string> cut_lines_of(const ModelConfig& config, const std::set<int>& layers) {
    std::vector<std::string> lines;
    for (const TensorSpec& tensor : tensors_of(config)) {
        const bool first_or_last = tensor.expert <= 0 || tensor.expert == config.experts - 1;
        if ((tensor.layer < 0 || layers.contains(tensor.layer)) && first_or_last) {
            lines.push_back(line_of(tensor));
        }
    }
    return lines;
}

const std::map<std::string, std::set<int>> kListedLayers = {
    {"qwen3-30b-a3b", {0, 47}},         {"qwen3-235b-a22b", {0, 93}}, {"tiny-moe", {0, 1}},
    {"deepseek-v3", {0, 2, 3, 60, 61}}, {"kimi-k2", {0, 1, 60}},      {"tiny-mla", {0, 1, 2}},
};

TEST(GoldenExpertListings, AreWhatTheCatalogueRowsGive) {
    for (const auto& [name, layers] : kListedLayers) {
        EXPECT_EQ(cut_lines_of(find_model(name).config, layers), golden_lines(name + ".tsv"))
            << name;
    }
}

TEST(GoldenExpertListings, AreWhatTheConfigFilesOfTransformersGive) {
    for (const auto& [name, layers] : kListedLayers) {
        const ModelConfig config = read_hf_config(kGolden + name + ".config.json");
        EXPECT_EQ(cut_lines_of(config, layers), golden_lines(name + ".tsv")) << name;
        EXPECT_EQ(config.architecture, find_model(name).config.architecture) << name;
        EXPECT_EQ(config.experts_per_token, find_model(name).config.experts_per_token) << name;
    }
}

TEST(GoldenExpertListings, CatchWrongFigures) {
    const std::vector<std::string> golden = golden_lines("deepseek-v3.tsv");
    const std::set<int>& layers = kListedLayers.at("deepseek-v3");
    const ModelConfig right = find_model("deepseek-v3").config;
    const auto differs = [&](auto change) {
        ModelConfig config = right;
        change(config);
        return cut_lines_of(config, layers) != golden;
    };
    EXPECT_FALSE(differs([](ModelConfig&) {}));
    EXPECT_TRUE(differs([](ModelConfig& c) { c.rope_head_dim = 0; }));
    EXPECT_TRUE(differs([](ModelConfig& c) { c.first_dense_layers = 2; }));
    EXPECT_TRUE(differs([](ModelConfig& c) { c.router_bias = false; }));
    EXPECT_TRUE(differs([](ModelConfig& c) { c.shared_experts = 2; }));
    EXPECT_TRUE(differs([](ModelConfig& c) { c.mtp_layers = 0; }));
    EXPECT_TRUE(differs([](ModelConfig& c) { c.experts = 255; }));
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
    EXPECT_EQ(seen + kListedLayers.size(), model_catalog().size());
}

TEST(GoldenTotals, AreThoseOfTheModelsWithExperts) {
    std::size_t seen = 0;
    for (const std::string& line : golden_lines("moe_totals.tsv")) {
        std::istringstream fields(line);
        std::string name;
        std::size_t tensors = 0;
        std::int64_t parameters = 0;
        fields >> name >> tensors >> parameters;
        const CatalogRow& row = find_model(name);
        EXPECT_EQ(row.published_parameters, parameters) << name;
        EXPECT_EQ(elements_of(row.config), parameters) << name;
        EXPECT_EQ(tensors_of(row.config).size(), tensors) << name;
        ++seen;
    }
    EXPECT_EQ(seen, kListedLayers.size());
}

// The published totals, in units of 10^5 parameters as their sources round them.
TEST(PublishedTotals, AreReachedByTheModelsWithExperts) {
    const auto rounded = [](const ModelConfig& config) {
        return (elements_of(config) + 50'000) / 100'000;
    };
    EXPECT_EQ(rounded(find_model("qwen3-30b-a3b").config), 305'321);
    EXPECT_EQ(rounded(find_model("qwen3-235b-a22b").config), 2'350'936);
    EXPECT_EQ(rounded(find_model("kimi-k2").config), 10'264'082);
    ModelConfig deepseek = find_model("deepseek-v3").config;
    EXPECT_EQ(rounded(deepseek), 6'844'898);
    EXPECT_EQ(tensors_of(deepseek).size(), 46'183U);
    deepseek.mtp_layers = 0;
    EXPECT_EQ(rounded(deepseek), 6'710'264);
    EXPECT_EQ(tensors_of(deepseek).size(), 45'395U);
}

int number_behind(const std::string& name, const std::string& mark) {
    const std::size_t at = name.find(mark);
    return at == std::string::npos ? -1 : std::stoi(name.substr(at + mark.size()));
}

TEST(TensorsOf, NumbersLayersAndExpertsAndLeavesTheRestOutside) {
    for (const char* model : {"tiny-qwen3", "tiny-moe", "tiny-mla"}) {
        for (const TensorSpec& tensor : tensors_of(find_model(model).config)) {
            EXPECT_EQ(tensor.layer, number_behind(tensor.name, "model.layers.")) << tensor.name;
            EXPECT_EQ(tensor.expert, number_behind(tensor.name, ".experts.")) << tensor.name;
            EXPECT_EQ(tensor.dtype, core::DType::bf16) << tensor.name;
        }
    }
}

TEST(TensorsOf, HasOneQueryProjectionWithoutALowRank) {
    ModelConfig config = find_model("tiny-mla").config;
    config.q_lora_rank = 0;
    const std::vector<TensorSpec> tensors = tensors_of(config);
    // Behind the embedding; 8 heads of 128 + 64.
    EXPECT_EQ(line_of(tensors[1]), "model.layers.0.self_attn.q_proj.weight\tq_proj\t1536x256");
    EXPECT_EQ(line_of(tensors[2]),
              "model.layers.0.self_attn.kv_a_proj_with_mqa.weight\tkv_a_proj\t192x256");
}

TEST(IsMoeLayer, FollowsTheStepTheListAndTheFirstLayers) {
    const auto moe_layers = [](const ModelConfig& config) {
        std::vector<int> layers;
        for (int layer = 0; layer < 6; ++layer) {
            if (is_moe_layer(config, layer)) layers.push_back(layer);
        }
        return layers;
    };
    ModelConfig config;
    config.architecture = Architecture::qwen3_moe;
    EXPECT_EQ(moe_layers(config), std::vector<int>{});
    config.experts = 8;
    EXPECT_EQ(moe_layers(config), (std::vector<int>{0, 1, 2, 3, 4, 5}));
    config.moe_layer_every = 2;  // layers whose number counted from one divides
    EXPECT_EQ(moe_layers(config), (std::vector<int>{1, 3, 5}));
    config.dense_layers = {3};
    EXPECT_EQ(moe_layers(config), (std::vector<int>{1, 5}));
    config.architecture = Architecture::deepseek_v3;
    config.dense_layers = {};
    config.first_dense_layers = 1;
    EXPECT_EQ(moe_layers(config), (std::vector<int>{2, 4}));
}

}  // namespace
}  // namespace refit::model
