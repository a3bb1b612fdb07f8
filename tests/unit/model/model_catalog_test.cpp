// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "model/model_catalog.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "core/error.hpp"

namespace refit::model {
namespace {

using testing::HasSubstr;
using testing::Property;
using testing::Throws;
using testing::ThrowsMessage;

TEST(ModelCatalog, HasEachNameOnceAndASourceForEachRow) {
    std::set<std::string> names;
    for (const CatalogRow& row : model_catalog()) {
        EXPECT_TRUE(names.insert(row.config.name).second) << row.config.name;
        EXPECT_FALSE(row.source.empty()) << row.config.name;
    }
    EXPECT_EQ(names.size(), 18U);
    EXPECT_EQ(names.size(), model_names().size());
}

TEST(ModelCatalog, TinyModelsKeepWholeScalingTilesAtTp4) {
    for (const char* name : {"tiny-llama", "tiny-qwen3"}) {
        for (const TensorSpec& tensor : tensors_of(find_model(name).config)) {
            if (tensor.shape.size() != 2) continue;
            for (const std::int64_t extent : tensor.shape) {
                EXPECT_EQ(extent % (128 * 4), 0) << name << " " << tensor.name;
            }
        }
    }
}

TEST(ModelCatalog, TinyModelsWithExpertsKeepWholeScalingTilesAtTp4) {
    for (const char* name : {"tiny-moe", "tiny-mla"}) {
        const ModelConfig config = find_model(name).config;
        for (const TensorSpec& tensor : tensors_of(config)) {
            if (tensor.shape.size() != 2) continue;
            const bool rows_are_cut =
                tensor.role == Role::q_proj || tensor.role == Role::k_proj ||
                tensor.role == Role::v_proj || tensor.role == Role::q_b_proj ||
                tensor.role == Role::kv_b_proj || tensor.role == Role::gate_proj ||
                tensor.role == Role::up_proj;
            const bool cols_are_cut = tensor.role == Role::o_proj || tensor.role == Role::down_proj;
            if (rows_are_cut) {
                EXPECT_EQ(tensor.shape[0] % (128 * 4), 0) << name << tensor.name;
            }
            if (cols_are_cut) {
                EXPECT_EQ(tensor.shape[1] % (128 * 4), 0) << name << tensor.name;
            }
            // Every rank holds it whole, with half a tile at its end as in DeepSeek-V3.
            if (tensor.role == Role::kv_a_proj) {
                EXPECT_EQ(tensor.shape[0] % 128, 64);
            }
            EXPECT_EQ(tensor.shape[1] % 128, 0) << name << tensor.name;
        }
        EXPECT_EQ(config.heads % 4, 0) << name;
        EXPECT_EQ(config.experts % 4, 0) << name;
    }
}

TEST(FindModel, ListsTheNearestNamesForAnUnknownOne) {
    EXPECT_THAT([] { (void)find_model("qwen3-0.6"); },
                ThrowsMessage<core::UsageError>(
                    testing::AllOf(HasSubstr("'qwen3-0.6'"), HasSubstr("qwen3-0.6b"))));
}

TEST(SliceLayers, KeepsTheFirstLayersAndEverythingOutside) {
    const ModelConfig whole = find_model("llama-3.2-1b").config;
    const std::vector<TensorSpec> all = tensors_of(whole);
    const std::vector<TensorSpec> part = tensors_of(slice_layers(whole, 3));
    std::size_t expected = 0;
    for (const TensorSpec& tensor : all) {
        if (tensor.layer >= 3) continue;
        ASSERT_LT(expected, part.size());
        EXPECT_EQ(part[expected].name, tensor.name);
        ++expected;
    }
    EXPECT_EQ(part.size(), expected);
}

TEST(SliceLayers, KeepsDenseLayersDenseAndTheMtpLayerForTheWholeModelAlone) {
    const ModelConfig whole = find_model("deepseek-v3").config;
    EXPECT_EQ(slice_layers(whole, 61).mtp_layers, 1);
    const ModelConfig four = slice_layers(whole, 4);
    EXPECT_EQ(four.mtp_layers, 0);
    EXPECT_EQ(four.first_dense_layers, 3);
    EXPECT_FALSE(is_moe_layer(four, 2));
    EXPECT_TRUE(is_moe_layer(four, 3));
    // Three dense layers of 12 tensors, one with experts of 782, embedding, norm and head.
    EXPECT_EQ(tensors_of(four).size(), 3U * 12U + 782U + 3U);
    const ModelConfig two = slice_layers(whole, 2);
    EXPECT_EQ(two.first_dense_layers, 2);
    EXPECT_EQ(tensors_of(two).size(), 2U * 12U + 3U);

    ModelConfig listed = find_model("tiny-moe").config;
    listed.dense_layers = {0, 1};
    EXPECT_EQ(slice_layers(listed, 1).dense_layers, std::vector<std::int64_t>{0});
}

TEST(SliceLayers, RefusesNoneAndMoreThanThereAre) {
    const ModelConfig config = find_model("tiny-llama").config;
    EXPECT_THROW((void)slice_layers(config, 0), core::ScenarioError);
    EXPECT_THROW((void)slice_layers(config, -1), core::ScenarioError);
    EXPECT_THAT([&] { (void)slice_layers(config, 3); },
                ThrowsMessage<core::ScenarioError>(HasSubstr("1 to 2")));
    EXPECT_EQ(slice_layers(config, 2).layers, 2);
}

}  // namespace
}  // namespace refit::model
