// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "wire/wanted_list.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.hpp"

namespace refit::wire {
namespace {

WantedList sample() {
    WantedParameter weight;
    weight.name = "model.layers.0.mlp.up_proj.weight";
    weight.dtypes = {core::DType::f8_e4m3};
    weight.shape = {256, 384};
    weight.scale = weight.name + "_scale_inv";
    weight.row_cuts = {0, 128, 256};
    weight.col_cuts = {0, 384};
    weight.fuse_group = "model.layers.0.mlp.gate_up_proj";
    WantedParameter scale;
    scale.name = weight.scale;
    scale.dtypes = {core::DType::f32, core::DType::bf16};
    scale.shape = {2, 3};
    scale.scale_of = weight.name;
    scale.row_cuts = {0, 1, 2};
    scale.col_cuts = {0, 3};
    scale.fuse_group = weight.fuse_group;
    scale.calibration = "model.layers.0.self_attn.k_cache";
    return {weight, scale};
}

TEST(WantedListJson, KeepsEveryField) {
    const WantedList before = sample();
    const WantedList after = wanted_list_from_json(to_json(before));
    ASSERT_EQ(after.size(), before.size());
    for (std::size_t i = 0; i < before.size(); ++i) {
        EXPECT_EQ(after[i].name, before[i].name);
        EXPECT_EQ(after[i].dtypes, before[i].dtypes);
        EXPECT_EQ(after[i].shape, before[i].shape);
        EXPECT_EQ(after[i].scale, before[i].scale);
        EXPECT_EQ(after[i].scale_of, before[i].scale_of);
        EXPECT_EQ(after[i].row_cuts, before[i].row_cuts);
        EXPECT_EQ(after[i].col_cuts, before[i].col_cuts);
        EXPECT_EQ(after[i].fuse_group, before[i].fuse_group);
        EXPECT_EQ(after[i].calibration, before[i].calibration);
    }
    EXPECT_TRUE(wanted_list_from_json(to_json({})).empty());
}

TEST(WantedListJson, RefusesWhatIsNotAList) {
    nlohmann::json unknown_dtype = nlohmann::json::parse(to_json(sample()));
    unknown_dtype[0][1][0] = "FP8";
    nlohmann::json short_row = nlohmann::json::parse(to_json(sample()));
    short_row[1].erase(7);
    for (const std::string& text :
         {std::string(), std::string("["), std::string("[1]"), unknown_dtype.dump(),
          short_row.dump(), to_json(sample()).substr(0, 40)}) {
        EXPECT_THROW((void)wanted_list_from_json(text), core::Error) << text;
    }
}

}  // namespace
}  // namespace refit::wire
