// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "quant/recipe.hpp"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "core/error.hpp"

namespace refit::quant {
namespace {

TEST(RecipeCatalog, HasUniqueNamesAndCompleteRows) {
    std::set<std::string> names;
    for (const Recipe& recipe : recipe_catalog()) {
        EXPECT_TRUE(names.insert(recipe.name).second) << recipe.name;
        EXPECT_FALSE(recipe.summary.empty()) << recipe.name;
        EXPECT_FALSE(recipe.source.empty()) << recipe.name;
        EXPECT_TRUE(recipe.scale_suffix == "weight_scale_inv" ||
                    recipe.scale_suffix == "weight_scale");
        // The recipe's own rank is one that its scheme has.
        EXPECT_NO_THROW((void)scale_shape(recipe, {256, 256}, recipe.scale_rank)) << recipe.name;
    }
}

TEST(RecipeCatalog, HasTheDefaultOfEveryFp8Scheme) {
    EXPECT_EQ(find_recipe("prime-rl-blockwise").scheme, Scheme::fp8_blockwise);
    EXPECT_EQ(find_recipe("prime-rl-channelwise").scheme, Scheme::fp8_channelwise);
    EXPECT_EQ(find_recipe("modelopt-pc-pt").scheme, Scheme::fp8_channelwise);
    EXPECT_EQ(find_recipe("tensorwise").scheme, Scheme::fp8_tensorwise);
}

TEST(RecipeCatalog, DiffersBetweenTwinsOnlyInWhatPyTorchRoundsOtherwiseOnCuda) {
    int twins = 0;
    for (const Recipe& recipe : recipe_catalog()) {
        if (!recipe.name.ends_with("-cpu")) {
            continue;
        }
        ++twins;
        const Recipe& on_cuda = find_recipe(recipe.name.substr(0, recipe.name.size() - 4));
        EXPECT_EQ(recipe.scaling.formula, numerics::ScaleFormula::amax_over_448);
        EXPECT_EQ(on_cuda.scaling.formula, numerics::ScaleFormula::amax_times_reciprocal_448);
        numerics::TileScaling same = on_cuda.scaling;
        same.formula = recipe.scaling.formula;
        // Only a quotient of BF16 tensors takes a BF16 scalar.
        EXPECT_TRUE(same.round_quotient_to_bf16 || !same.round_scale_to_bf16) << recipe.name;
        EXPECT_FALSE(recipe.scaling.round_scale_to_bf16) << recipe.name;
        same.round_scale_to_bf16 = false;
        EXPECT_TRUE(same == recipe.scaling) << recipe.name;
    }
    EXPECT_GE(twins, 4);
}

TEST(FindRecipe, NamesTheNearestRecipesForAnUnknownOne) {
    try {
        (void)find_recipe("prime-rl-blockwize");
        FAIL() << "an unknown recipe was found";
    } catch (const core::UsageError& error) {
        EXPECT_NE(std::string(error.what()).find("prime-rl-blockwise"), std::string::npos)
            << error.what();
    }
}

TEST(SchemeNames, ReturnFromTheirText) {
    EXPECT_EQ(scheme_names().size(), 5U);
    for (const std::string& name : scheme_names()) {
        ASSERT_TRUE(scheme_from_name(name).has_value()) << name;
        EXPECT_EQ(scheme_name(*scheme_from_name(name)), name);
    }
    EXPECT_FALSE(scheme_from_name("fp8").has_value());
}

TEST(ScaleShape, RoundsTheTileGridUp) {
    const Recipe& block = find_recipe("prime-rl-blockwise");
    EXPECT_EQ(scale_shape(block, {576, 7168}, 2), (core::Shape{5, 56}));
    EXPECT_EQ(scale_shape(block, {129, 1}, 2), (core::Shape{2, 1}));
    EXPECT_EQ(scale_shape(block, {576, 7168}, 4), (core::Shape{5, 1, 56, 1}));
}

TEST(ScaleShape, HasOneScaleARowOrATensorElsewhere) {
    const Recipe& row = find_recipe("modelopt-pc-pt");
    EXPECT_EQ(scale_shape(row, {576, 7168}, 1), (core::Shape{576}));
    EXPECT_EQ(scale_shape(row, {576, 7168}, 2), (core::Shape{576, 1}));
    EXPECT_EQ(scale_shape(find_recipe("tensorwise"), {576, 7168}, 1), (core::Shape{1}));
    EXPECT_EQ(scale_shape(find_recipe("modelopt-fp8"), {576, 7168}, 0), core::Shape{});
    EXPECT_THROW((void)scale_shape(row, {576, 7168}, 0), core::ShapeError);
}

TEST(ScaleShape, RefusesARankThatTheSchemeLacks) {
    EXPECT_THROW((void)scale_shape(find_recipe("prime-rl-blockwise"), {8, 8}, 1), core::ShapeError);
    EXPECT_THROW((void)scale_shape(find_recipe("prime-rl-channelwise"), {8, 8}, 4),
                 core::ShapeError);
    EXPECT_THROW((void)scale_shape(find_recipe("tensorwise"), {8, 8}, 2), core::ShapeError);
    EXPECT_THROW((void)scale_shape(Recipe{}, {8, 8}, 2), core::ShapeError);
}

}  // namespace
}  // namespace refit::quant
