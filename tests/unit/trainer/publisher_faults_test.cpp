// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A planted fault changes what it says and nothing else.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "publication.hpp"
#include "quant/recipe.hpp"

namespace refit::trainer_test {
namespace {

const std::string kUp = "model.layers.0.mlp.up_proj.weight";
const std::string kDown = "model.layers.0.mlp.down_proj.weight";
const std::string kNorm = "model.norm.weight";

struct Setting {
    std::vector<model::TensorSpec> tensors;
    FixedWeights source;
    wire::WantedList wanted;
    trainer::Payload payload;
    trainer::TrainerFaults faults;

    Setting() {
        const quant::Recipe& recipe = quant::find_recipe("prime-rl-blockwise");
        tensors = {matrix(kUp, 256, 130), matrix(kDown, 256, 130), matrix(kNorm, 1, 1)};
        tensors[1].role = model::Role::down_proj;
        tensors[2].role = model::Role::norm;
        tensors[2].shape = {64};
        std::uint32_t seed = 0;
        for (const model::TensorSpec& tensor : tensors) {
            source.set(tensor.name, random_values(core::element_count(tensor.shape), ++seed));
            want(wanted, tensor, tensor.role == model::Role::norm ? nullptr : &recipe);
        }
        payload.scheme = recipe.scheme;
        payload.recipe = &recipe;
    }
    [[nodiscard]] Publication run(const parallel::RowSharding& sharding = {2, 1, {}}) const {
        return publish(tensors, wanted, payload, sharding, faults, source);
    }
};

TEST(TrainerFaults, WithoutAnySendAllParametersOfTheWantedList) {
    const Setting setting;
    const Publication sent = setting.run();
    EXPECT_EQ(sent.bytes.size(), setting.wanted.size());
    for (const wire::WantedParameter& wanted : setting.wanted) {
        EXPECT_TRUE(sent.bytes.contains(wanted.name)) << wanted.name;
    }
    EXPECT_TRUE(sent.plan.findings.empty());
}

TEST(TrainerFaults, ScaleDoubledDoublesTheFirstScaleOfTheTensorForAnyShards) {
    const Publication clean = Setting().run();
    for (const parallel::RowSharding& sharding :
         {parallel::RowSharding{1, 128, {}}, parallel::RowSharding{2, 128, {}},
          parallel::RowSharding{3, 1, {}}}) {
        Setting setting;
        setting.faults.scale_doubled = "*up_proj*";
        const Publication sent = setting.run(sharding);
        EXPECT_EQ(sent.bytes.at(kUp), clean.bytes.at(kUp));
        EXPECT_EQ(sent.bytes.at(kDown + "_scale_inv"), clean.bytes.at(kDown + "_scale_inv"));
        std::vector<float> expected = clean.scales(kUp + "_scale_inv");
        expected[0] *= 2.0F;
        EXPECT_EQ(sent.scales(kUp + "_scale_inv"), expected) << sharding.ranks;
    }
}

TEST(TrainerFaults, DropTensorLeavesTheTensorAndItsScaleOut) {
    Setting setting;
    setting.faults.drop_tensor = kDown;
    const Publication sent = setting.run();
    EXPECT_FALSE(sent.bytes.contains(kDown));
    EXPECT_FALSE(sent.bytes.contains(kDown + "_scale_inv"));
    EXPECT_EQ(sent.bytes.size(), 3U);
    EXPECT_EQ(sent.bytes.at(kUp), Setting().run().bytes.at(kUp));
}

TEST(TrainerFaults, RenameScaleTakesTheSuffixOff) {
    Setting setting;
    setting.faults.rename_scale = kUp;
    const Publication clean = Setting().run();
    const Publication sent = setting.run();
    EXPECT_FALSE(sent.bytes.contains(kUp + "_scale_inv"));
    EXPECT_EQ(sent.bytes.at(kUp + "_scale"), clean.bytes.at(kUp + "_scale_inv"));
    EXPECT_TRUE(sent.bytes.contains(kDown + "_scale_inv"));
}

TEST(TrainerFaults, ScaleDtypeAnnouncesBytes) {
    Setting setting;
    setting.faults.scale_dtype = kUp;
    const Publication sent = setting.run();
    const wire::RefitManifest& manifest = sent.plan.manifest;
    const auto up = static_cast<std::size_t>(manifest.find(kUp + "_scale_inv"));
    const auto down = static_cast<std::size_t>(manifest.find(kDown + "_scale_inv"));
    EXPECT_EQ(manifest.parameters[up].dtype, core::DType::u8);
    EXPECT_EQ(manifest.parameters[down].dtype, core::DType::f32);
}

TEST(TrainerFaults, SwapTensorsExchangesTheValuesOfTwo) {
    Setting setting;
    setting.faults.swap_tensors = "*";
    const Publication clean = Setting().run();
    const Publication sent = setting.run();
    EXPECT_NE(clean.bytes.at(kUp), clean.bytes.at(kDown));
    EXPECT_EQ(sent.bytes.at(kUp), clean.bytes.at(kDown));
    EXPECT_EQ(sent.bytes.at(kDown), clean.bytes.at(kUp));
    EXPECT_EQ(sent.bytes.at(kUp + "_scale_inv"), clean.bytes.at(kDown + "_scale_inv"));
    EXPECT_EQ(sent.bytes.at(kNorm), clean.bytes.at(kNorm));
}

TEST(TrainerFaults, WrongEligibilitySendsBf16WhereFp8IsWanted) {
    Setting setting;
    setting.faults.wrong_eligibility = kUp;
    const Publication sent = setting.run();
    const std::vector<std::uint16_t>& values = setting.source.values(kUp);
    EXPECT_EQ(sent.bytes.at(kUp).size(), values.size() * 2);
    EXPECT_FALSE(sent.bytes.contains(kUp + "_scale_inv"));
    const auto index = static_cast<std::size_t>(sent.plan.manifest.find(kUp));
    EXPECT_EQ(sent.plan.manifest.parameters[index].kind, wire::ParameterKind::raw);
}

TEST(TrainerFaults, WrongEligibilityMayNameEveryTensorNormsIncluded) {
    // A glob over all tensors also names norms.
    Setting setting;
    setting.faults.wrong_eligibility = "*";
    const Publication sent = setting.run();
    EXPECT_FALSE(sent.bytes.contains(kUp + "_scale_inv"));
    EXPECT_FALSE(sent.bytes.contains(kDown + "_scale_inv"));
    EXPECT_FALSE(sent.any_aborted());
}

}  // namespace
}  // namespace refit::trainer_test
