// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/refit_plan.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/error.hpp"
#include "publication.hpp"
#include "quant/recipe.hpp"

namespace refit::trainer_test {
namespace {

struct Setting {
    std::vector<model::TensorSpec> tensors;
    wire::WantedList wanted;
    trainer::Payload payload;

    explicit Setting(const std::string& recipe_name = "prime-rl-blockwise") {
        const quant::Recipe& recipe = quant::find_recipe(recipe_name);
        payload.scheme = recipe.scheme;
        payload.recipe = &recipe;
    }
    void add(const std::string& name, std::int64_t rows, std::int64_t cols, bool quantized) {
        tensors.push_back(matrix(name, rows, cols));
        want(wanted, tensors.back(), quantized ? payload.recipe : nullptr);
    }
    [[nodiscard]] trainer::RefitPlan plan(const parallel::RowSharding& sharding) const {
        return trainer::make_plan(tensors, wanted, payload, sharding, {});
    }
};

TEST(RefitPlan, GivesTheScaleOfATileToTheOwnerOfItsFirstRow) {
    Setting setting;
    setting.add("a.weight", 300, 128, true);
    const trainer::RefitPlan plan = setting.plan({2, 1, {}});  // rows [0, 150) and [150, 300)
    const auto& pieces = plan.manifest.buckets.at(0).pieces;
    ASSERT_EQ(pieces[0].entries.size(), 2U);
    EXPECT_EQ(pieces[0].entries[1].rows, (core::RowRange{0, 2}));
    EXPECT_EQ(pieces[1].entries[1].rows, (core::RowRange{2, 3}));
}

TEST(RefitPlan, ExchangesOnlyWhatShardBoundariesCut) {
    Setting setting;
    setting.add("a.weight", 300, 260, true);
    EXPECT_EQ(setting.plan({1, 1, {}}).exchange_words.at(0), 0U);
    EXPECT_EQ(setting.plan({2, 128, {}}).exchange_words.at(0), 0U);
    const trainer::RefitPlan cut = setting.plan({2, 1, {}});
    EXPECT_EQ(cut.exchange_words.at(0), 3U);  // grid row 1 of three tiles
    EXPECT_EQ(cut.shared.at(0).at(0).grid_rows, (std::vector<std::int64_t>{1}));
}

TEST(RefitPlan, ExchangesTheLastElementForRecipesThatPadWithIt) {
    Setting ragged("nemo-rl-linear");
    ragged.add("a.weight", 300, 256, true);
    EXPECT_EQ(ragged.plan({2, 128, {}}).exchange_words.at(0), 1U);
    EXPECT_TRUE(ragged.plan({2, 128, {}}).shared.at(0).at(0).last_element);
    Setting whole("nemo-rl-linear");
    whole.add("a.weight", 256, 256, true);
    EXPECT_EQ(whole.plan({2, 128, {}}).exchange_words.at(0), 0U);
}

TEST(RefitPlan, ReportsWhereTheTrainersRuleDisagreesAndFollowsTheReceiver) {
    Setting setting;
    setting.add("a.weight", 128, 128, false);  // an up_proj that the receiver wants in BF16
    setting.add("b.weight", 128, 128, true);
    const trainer::RefitPlan plan = setting.plan({1, 128, {}});
    ASSERT_EQ(plan.findings.size(), 1U);
    EXPECT_EQ(plan.findings[0].tensor, "a.weight");
    EXPECT_EQ(plan.findings[0].severity, core::Severity::warning);
    EXPECT_EQ(plan.manifest.parameters.at(0).dtype, core::DType::bf16);
    EXPECT_EQ(plan.manifest.parameters.at(1).dtype, core::DType::f8_e4m3);
}

TEST(RefitPlan, BringsMembersOfAFuseGroupIntoOneBucket) {
    Setting setting;
    setting.add("q.weight", 64, 64, true);
    setting.add("norm.weight", 64, 64, false);
    setting.add("k.weight", 64, 64, true);
    for (wire::WantedParameter& wanted : setting.wanted) {
        if (!wanted.name.starts_with("norm")) wanted.fuse_group = "qkv";
    }
    setting.payload.bucket_bytes = 64 * 64 + 4;  // as much as q with its scale
    const trainer::RefitPlan plan = setting.plan({2, 1, {}});
    std::vector<std::string> names;
    for (const auto& meta : plan.manifest.parameters) names.push_back(meta.name);
    EXPECT_EQ(names, (std::vector<std::string>{"q.weight", "q.weight_scale_inv", "k.weight",
                                               "k.weight_scale_inv", "norm.weight"}));
    EXPECT_EQ(plan.productions[0].scale, 1);
    EXPECT_EQ(plan.productions[2].scale, 3);
    EXPECT_EQ(plan.productions[2].tensor, 2U);
    // Rows [0, 32) of both weights and both scales; rows [32, 64) of both weights.
    EXPECT_EQ(plan.manifest.buckets.at(0).pieces.at(0).entries.size(), 4U);
    EXPECT_EQ(plan.manifest.buckets.at(0).pieces.at(1).entries.size(), 2U);
    for (std::size_t b = 1; b < plan.manifest.buckets.size(); ++b) {
        for (const wire::PiecePlan& piece : plan.manifest.buckets[b].pieces) {
            for (const wire::PieceEntry& entry : piece.entries) EXPECT_EQ(entry.parameter, 4U);
        }
    }
}

TEST(RefitPlan, FollowsTheRankOfTheWantedScaleAndThePlantedOne) {
    Setting setting("prime-rl-channelwise");
    setting.add("a.weight", 30, 20, true);
    EXPECT_EQ(setting.plan({1, 1, {}}).manifest.parameters[1].shape, (core::Shape{30, 1}));
    setting.payload.scale_shape = trainer::ScaleShape::one_d;
    EXPECT_EQ(setting.plan({1, 1, {}}).manifest.parameters[1].shape, (core::Shape{30}));
    Setting blocks;
    blocks.add("a.weight", 300, 200, true);
    blocks.payload.scale_shape = trainer::ScaleShape::one_d;
    EXPECT_THROW((void)blocks.plan({1, 1, {}}), core::ShapeError);
}

TEST(RefitPlan, IsTheSameEachTime) {
    Setting setting;
    setting.add("a.weight", 300, 200, true);
    setting.add("b.weight", 17, 200, false);
    EXPECT_EQ(wire::to_json(setting.plan({3, 1, {}}).manifest),
              wire::to_json(setting.plan({3, 1, {}}).manifest));
}

}  // namespace
}  // namespace refit::trainer_test
