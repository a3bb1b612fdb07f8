// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What each policy makes of NaN and Inf in the trainers' weights.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "publication.hpp"
#include "quant/recipe.hpp"

namespace refit::trainer_test {
namespace {

constexpr std::uint16_t kNan = 0x7fc0;
constexpr std::uint16_t kInf = 0x7f80;
constexpr std::uint16_t kMinusInf = 0xff80;

const std::string kName = "model.layers.0.mlp.up_proj.weight";
const std::string kScale = kName + "_scale_inv";
constexpr std::int64_t kRows = 300;
constexpr std::int64_t kCols = 260;

std::size_t at(std::int64_t row, std::int64_t col) {
    return static_cast<std::size_t>(row * kCols + col);
}

struct Setting {
    FixedWeights source;
    std::vector<model::TensorSpec> tensors;
    wire::WantedList wanted;
    trainer::Payload payload;

    Setting(trainer::Nonfinite policy, const std::vector<std::uint16_t>& values) {
        const quant::Recipe& recipe = quant::find_recipe("prime-rl-blockwise");
        tensors = {matrix(kName, kRows, kCols)};
        source.set(kName, values);
        want(wanted, tensors[0], &recipe);
        payload.scheme = recipe.scheme;
        payload.recipe = &recipe;
        payload.nonfinite = policy;
    }
    [[nodiscard]] Publication run(const parallel::RowSharding& sharding) const {
        return publish(tensors, wanted, payload, sharding, {}, source);
    }
};

TEST(NonfiniteReject, NamesTensorTileFirstIndexAndCounts) {
    std::vector<std::uint16_t> values = random_values(kRows * kCols, 1);
    values[at(130, 257)] = kMinusInf;
    values[at(131, 2)] = kNan;
    values[at(299, 259)] = kInf;
    const Publication sent = Setting(trainer::Nonfinite::reject, values).run({1, 128, {}});
    EXPECT_TRUE(sent.any_aborted());
    ASSERT_EQ(sent.findings[0].size(), 1U);
    const core::Finding& finding = sent.findings[0][0];
    EXPECT_EQ(finding.check, "nonfinite");
    EXPECT_EQ(finding.severity, core::Severity::error);
    EXPECT_EQ(finding.tensor, kName);
    EXPECT_EQ(finding.index, (std::vector<std::int64_t>{130, 257}));
    EXPECT_EQ(finding.measured, "-Inf");
    for (const char* words : {"1 NaN and 2 Inf", "[130, 257]", "tile [1, 2]"}) {
        EXPECT_NE(finding.message.find(words), std::string::npos) << finding.message;
    }
    EXPECT_FALSE(finding.remedy.empty());
}

TEST(NonfiniteReject, PassesFiniteWeightsAlsoTheLargest) {
    std::vector<std::uint16_t> values = random_values(kRows * kCols, 1);
    values[at(7, 7)] = 0x7f7f;  // the largest BF16
    const Publication sent = Setting(trainer::Nonfinite::reject, values).run({2, 1, {}});
    EXPECT_FALSE(sent.any_aborted());
    EXPECT_TRUE(sent.findings[0].empty());
    EXPECT_TRUE(sent.findings[1].empty());
}

TEST(NonfiniteReject, IsReportedByTheTrainerThatHoldsTheValueAlone) {
    std::vector<std::uint16_t> values = random_values(kRows * kCols, 1);
    values[at(160, 3)] = kNan;  // in the tile that the boundary at row 150 cuts
    const Publication sent = Setting(trainer::Nonfinite::reject, values).run({2, 1, {}});
    EXPECT_TRUE(sent.findings[0].empty());
    ASSERT_EQ(sent.findings[1].size(), 1U);
    EXPECT_EQ(sent.findings[1][0].index, (std::vector<std::int64_t>{160, 3}));
    EXPECT_TRUE(sent.aborted[0][0]);
    EXPECT_TRUE(sent.aborted[0][1]);
}

TEST(NonfiniteReject, CoversRawTensorsToo) {
    model::TensorSpec norm = matrix("model.norm.weight", 1, 1);
    norm.shape = {64};
    norm.role = model::Role::norm;
    FixedWeights source;
    std::vector<std::uint16_t> values(64, bf16(1.0F));
    values[33] = kNan;
    source.set(norm.name, values);
    wire::WantedList wanted;
    want(wanted, norm, nullptr);
    const Publication sent =
        publish({norm}, wanted, {}, parallel::RowSharding{2, 1, {}}, {}, source);
    EXPECT_TRUE(sent.findings[0].empty());
    ASSERT_EQ(sent.findings[1].size(), 1U);
    EXPECT_EQ(sent.findings[1][0].index, (std::vector<std::int64_t>{33}));
    EXPECT_EQ(sent.findings[1][0].measured, "NaN");
    EXPECT_TRUE(sent.any_aborted());
}

TEST(NonfiniteReject, KeepsTheRestOfTheRefitAborted) {
    const quant::Recipe& recipe = quant::find_recipe("prime-rl-blockwise");
    std::vector<model::TensorSpec> tensors;
    FixedWeights source;
    wire::WantedList wanted;
    for (int layer = 0; layer < 3; ++layer) {
        const std::string name = "model.layers." + std::to_string(layer) + ".mlp.up_proj.weight";
        tensors.push_back(matrix(name, 16, 16));
        std::vector<std::uint16_t> values = random_values(256, 3);
        if (layer == 1) values[17] = kInf;
        source.set(name, values);
        want(wanted, tensors.back(), &recipe);
    }
    trainer::Payload payload;
    payload.scheme = recipe.scheme;
    payload.recipe = &recipe;
    payload.bucket_bytes = 300;
    const Publication sent =
        publish(tensors, wanted, payload, parallel::RowSharding{1, 128, {}}, {}, source);
    ASSERT_EQ(sent.aborted.size(), 3U);
    EXPECT_FALSE(sent.aborted[0][0]);
    EXPECT_TRUE(sent.aborted[1][0]);
    EXPECT_TRUE(sent.aborted[2][0]);
}

TEST(NonfinitePropagate, MakesTheScaleOfEachBadTileNanAndNoOther) {
    std::vector<std::uint16_t> values = random_values(kRows * kCols, 1);
    const std::vector<std::uint16_t> clean = values;
    values[at(5, 140)] = kInf;    // tile [0, 1]
    values[at(280, 259)] = kNan;  // tile [2, 2]
    for (const parallel::RowSharding& sharding :
         {parallel::RowSharding{1, 128, {}}, parallel::RowSharding{3, 1, {}}}) {
        const Publication sent = Setting(trainer::Nonfinite::propagate, values).run(sharding);
        EXPECT_FALSE(sent.any_aborted());
        const std::vector<float> scales = sent.scales(kScale);
        const std::vector<float> others =
            Setting(trainer::Nonfinite::propagate, clean).run(sharding).scales(kScale);
        ASSERT_EQ(scales.size(), 9U);
        for (std::size_t i = 0; i < scales.size(); ++i) {
            if (i == 1 || i == 8) {
                EXPECT_TRUE(std::isnan(scales[i])) << i;
            } else {
                EXPECT_EQ(scales[i], others[i]) << i;
            }
        }
        for (const core::Findings& findings : sent.findings) EXPECT_TRUE(findings.empty());
    }
}

TEST(NonfiniteSanitize, SendsWhatZeroAnd448InTheirPlaceWouldGive) {
    std::vector<std::uint16_t> values = random_values(kRows * kCols, 1);
    std::vector<std::uint16_t> mended = values;
    const auto plant = [&](std::int64_t row, std::int64_t col, std::uint16_t bad, float good) {
        values[at(row, col)] = bad;
        mended[at(row, col)] = bf16(good);
    };
    plant(5, 140, kInf, 448.0F);
    plant(149, 0, kNan, 0.0F);  // both in the grid row that boundaries cut
    plant(151, 1, kMinusInf, -448.0F);
    plant(299, 259, 0xffff, 0.0F);  // the last element of the matrix
    for (const char* name :
         {"prime-rl-blockwise", "nemo-rl-linear", "tensorwise", "prime-rl-channelwise"}) {
        const quant::Recipe& recipe = quant::find_recipe(name);
        const Whole whole = quantize_whole(recipe, mended, kRows, kCols);
        for (const parallel::RowSharding& sharding :
             {parallel::RowSharding{1, 128, {}}, parallel::RowSharding{2, 128, {}},
              parallel::RowSharding{2, 1, {}}, parallel::RowSharding{3, 1, {}}}) {
            SCOPED_TRACE(std::string(name) + ", " + std::to_string(sharding.ranks) +
                         " trainers, multiples of " + std::to_string(sharding.multiple));
            Setting setting(trainer::Nonfinite::sanitize, values);
            setting.payload.scheme = recipe.scheme;
            setting.payload.recipe = &recipe;
            setting.wanted.clear();
            want(setting.wanted, setting.tensors[0], &recipe);
            const Publication sent = setting.run(sharding);
            EXPECT_FALSE(sent.any_aborted());
            EXPECT_EQ(sent.bytes.at(kName), whole.codes);
            EXPECT_EQ(bits_of(sent.scales(setting.wanted[1].name)), bits_of(whole.scales));
        }
    }
}

TEST(NonfiniteSanitize, MendsRawTensorsAndLeavesTheTrainersOwnWeightsAlone) {
    model::TensorSpec norm = matrix("model.norm.weight", 1, 1);
    norm.shape = {4};
    norm.role = model::Role::norm;
    FixedWeights source;
    source.set(norm.name, {bf16(1.5F), kNan, kInf, kMinusInf});
    wire::WantedList wanted;
    want(wanted, norm, nullptr);
    trainer::Payload payload;
    payload.nonfinite = trainer::Nonfinite::sanitize;
    const Publication sent =
        publish({norm}, wanted, payload, parallel::RowSharding{1, 128, {}}, {}, source);
    const std::vector<std::uint16_t> expected = {bf16(1.5F), 0, bf16(448.0F), bf16(-448.0F)};
    const auto bytes = std::as_bytes(std::span(expected));
    EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), sent.bytes.at(norm.name).begin()));
}

TEST(NonfiniteRecipe, SendsWhatTheRecipeMakesOfIt) {
    std::vector<std::uint16_t> values = random_values(kRows * kCols, 1);
    values[at(140, 200)] = kNan;
    const Whole whole =
        quantize_whole(quant::find_recipe("prime-rl-blockwise"), values, kRows, kCols);
    for (const int trainers : {1, 3}) {
        const Publication sent = Setting(trainer::Nonfinite::recipe, values).run({trainers, 1, {}});
        EXPECT_FALSE(sent.any_aborted());
        EXPECT_EQ(sent.bytes.at(kName), whole.codes);
        EXPECT_EQ(bits_of(sent.scales(kScale)), bits_of(whole.scales));
    }
}

}  // namespace
}  // namespace refit::trainer_test
