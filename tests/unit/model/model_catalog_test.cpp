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
    EXPECT_EQ(names.size(), 12U);
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
