// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "weights/synthetic_weights.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <set>

#include "core/error.hpp"

namespace refit::weights {
namespace {

const model::TensorSpec kMatrix{"model.layers.0.self_attn.q_proj.weight",
                                {640, 1000},
                                core::DType::bf16,
                                model::Role::q_proj,
                                0};

double value_of(std::uint16_t bits) {
    return static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16));
}

std::vector<std::uint16_t> read_region(const WeightSource& weights, const model::TensorSpec& tensor,
                                       const core::Region& region) {
    std::vector<std::uint16_t> out(static_cast<std::size_t>(region.rows * region.cols));
    weights.read(tensor, region, out.data(), region.cols);
    return out;
}

std::vector<std::uint16_t> read_all(const WeightSource& weights,
                                    const model::TensorSpec& tensor = kMatrix) {
    return read_region(weights, tensor,
                       {0, 0, core::matrix_rows(tensor.shape), core::matrix_cols(tensor.shape)});
}

double share_that_differs(const std::vector<std::uint16_t>& a,
                          const std::vector<std::uint16_t>& b) {
    EXPECT_EQ(a.size(), b.size());
    std::size_t differ = 0;
    for (std::size_t i = 0; i < a.size(); ++i) differ += a[i] != b[i] ? 1 : 0;
    return static_cast<double>(differ) / static_cast<double>(a.size());
}

class RegionsOfSyntheticWeights : public testing::TestWithParam<core::Shape> {};

TEST_P(RegionsOfSyntheticWeights, AreThoseOfTheWholeTensor) {
    model::TensorSpec tensor = kMatrix;
    tensor.shape = GetParam();
    const std::int64_t rows = core::matrix_rows(tensor.shape);
    const std::int64_t cols = core::matrix_cols(tensor.shape);
    for (const double share : {0.0, 0.01}) {
        const auto weights = make_synthetic_weights(7, 3, {share, 20.0});
        const std::vector<std::uint16_t> whole = read_all(*weights, tensor);
        for (const core::Region& region : {core::Region{0, 0, 1, 1},
                                           {rows / 2, cols / 3, rows - rows / 2, cols - cols / 3},
                                           {rows - 1, 0, 1, cols},
                                           {0, cols - 1, rows, 1},
                                           {0, 0, 0, 0},
                                           {rows, cols, 0, 0}}) {
            const std::int64_t stride = region.cols + 3;
            std::vector<std::uint16_t> out(static_cast<std::size_t>((region.rows + 1) * stride),
                                           0xABCD);
            weights->read(tensor, region, out.data(), stride);
            for (std::int64_t r = 0; r < region.rows; ++r) {
                for (std::int64_t c = 0; c < stride; ++c) {
                    const std::uint16_t expected =
                        c < region.cols ? whole[static_cast<std::size_t>((region.row + r) * cols +
                                                                         region.col + c)]
                                        : 0xABCD;
                    ASSERT_EQ(out[static_cast<std::size_t>(r * stride + c)], expected)
                        << r << " " << c;
                }
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Shapes, RegionsOfSyntheticWeights,
                         testing::Values(core::Shape{640, 1000}, core::Shape{3, 70000},
                                         core::Shape{5, 12, 33}, core::Shape{513},
                                         core::Shape{1, 1}),
                         [](const auto& test) {
                             std::string name = "Shape";
                             for (const std::int64_t n : test.param)
                                 name += "_" + std::to_string(n);
                             return name;
                         });

TEST(SyntheticWeights, DifferByRowTensorAndSeed) {
    const auto weights = make_synthetic_weights(7, 0, {});
    const std::vector<std::uint16_t> values = read_all(*weights);
    std::set<std::vector<std::uint16_t>> rows;
    for (auto at = values.begin(); at != values.end(); at += 1000) rows.emplace(at, at + 1000);
    EXPECT_EQ(rows.size(), 640U);

    model::TensorSpec other = kMatrix;
    other.name = "model.layers.1.self_attn.q_proj.weight";
    EXPECT_GT(share_that_differs(values, read_all(*weights, other)), 0.9);
    EXPECT_GT(share_that_differs(values, read_all(*make_synthetic_weights(8, 0, {}))), 0.9);
    EXPECT_EQ(values, read_all(*make_synthetic_weights(7, 0, {})));
}

TEST(SyntheticWeights, HaveNoTwoEqualRowsInALargeVocabulary) {
    model::TensorSpec tensor = kMatrix;
    tensor.shape = {163840, 8};  // 8 columns: the whole row in two words
    const std::vector<std::uint16_t> values = read_all(*make_synthetic_weights(7, 0, {}), tensor);
    std::vector<std::array<std::uint16_t, 8>> rows(163840);
    for (std::size_t i = 0; i < values.size(); ++i) rows[i / 8][i % 8] = values[i];
    std::sort(rows.begin(), rows.end());
    EXPECT_EQ(std::adjacent_find(rows.begin(), rows.end()), rows.end());
}

TEST(SyntheticWeights, LookGaussianWithASpreadFromRowToRow) {
    model::TensorSpec tensor = kMatrix;
    tensor.shape = {256, 8192};
    const std::vector<std::uint16_t> values = read_all(*make_synthetic_weights(7, 0, {}), tensor);
    double least = 1.0;
    double most = 0.0;
    double total = 0.0;
    double fourth = 0.0;
    for (std::size_t row = 0; row < 256; ++row) {
        double sum = 0.0;
        double squares = 0.0;
        double fourths = 0.0;
        for (std::size_t col = 0; col < 8192; ++col) {
            const double x = value_of(values[row * 8192 + col]);
            ASSERT_TRUE(std::isnormal(x)) << row << " " << col;
            sum += x;
            squares += x * x;
            fourths += x * x * x * x;
        }
        const double variance = squares / 8192;
        const double deviation = std::sqrt(variance);
        EXPECT_NEAR(sum / 8192, 0.0, 5.0 * deviation / std::sqrt(8192.0)) << row;
        least = std::min(least, deviation);
        most = std::max(most, deviation);
        total += variance;
        fourth += fourths / 8192 / (variance * variance);
    }
    EXPECT_NEAR(std::sqrt(total / 256), 0.02, 0.002);
    EXPECT_GT(least, 0.0135);  // 0.02 / sqrt(2), and 4 % for the sample
    EXPECT_LT(most, 0.0295);
    EXPECT_GT(most / least, 1.7);
    EXPECT_NEAR(fourth / 256, 3.0, 0.05);  // 3 for a Gaussian, 1.8 for a uniform distribution
}

TEST(SyntheticWeights, MoveOnePercentByOneUnitFromStepToStep) {
    const auto weights = make_synthetic_weights(7, 0, {});
    std::vector<std::uint16_t> before = read_all(*weights);
    const std::vector<std::uint16_t> first = before;
    for (std::int64_t step = 1; step <= 5; ++step) {
        weights->set_step(step);
        const std::vector<std::uint16_t> after = read_all(*weights);
        const double share = share_that_differs(before, after);
        EXPECT_GT(share, 0.005) << step;
        EXPECT_LT(share, 0.02) << step;
        for (std::size_t i = 0; i < after.size(); ++i) ASSERT_LE(std::abs(after[i] - before[i]), 1);
        before = after;
    }
    // The changes add up.
    EXPECT_GT(share_that_differs(first, before), 0.04);
}

TEST(SyntheticWeights, ReachAnyStepWithoutThoseBeforeIt) {
    const auto weights = make_synthetic_weights(7, 0, {});
    const std::vector<std::uint16_t> first = read_all(*weights);
    weights->set_step(1'000'000'007);
    const std::vector<std::uint16_t> far = read_all(*weights);
    EXPECT_EQ(far, read_all(*make_synthetic_weights(7, 1'000'000'007, {})));
    for (std::size_t i = 0; i < far.size(); ++i) ASSERT_LE(std::abs(far[i] - first[i]), 2);
    weights->set_step(0);
    EXPECT_EQ(read_all(*weights), first);
}

TEST(SyntheticWeights, KeepNormsNearOneAndBiasesSmall) {
    const auto weights = make_synthetic_weights(7, 0, {});
    const model::TensorSpec norm{
        "model.norm.weight", {4096}, core::DType::bf16, model::Role::norm, -1};
    for (const std::uint16_t bits : read_all(*weights, norm)) {
        ASSERT_NEAR(value_of(bits), 1.0, 0.6);
    }
    const model::TensorSpec bias{
        "model.layers.0.self_attn.q_proj.bias", {4096}, core::DType::bf16, model::Role::bias, 0};
    for (const std::uint16_t bits : read_all(*weights, bias)) ASSERT_NEAR(value_of(bits), 0.0, 0.2);
}

TEST(SyntheticWeights, MakeTheWantedShareOfOutliers) {
    const std::vector<std::uint16_t> plain = read_all(*make_synthetic_weights(7, 0, {}));
    const std::vector<std::uint16_t> spiked =
        read_all(*make_synthetic_weights(7, 0, {0.001, 16.0}));
    std::size_t outliers = 0;
    for (std::size_t i = 0; i < plain.size(); ++i) {
        if (plain[i] == spiked[i]) continue;
        ++outliers;
        ASSERT_EQ(value_of(spiked[i]), 16.0 * value_of(plain[i]));  // exact for a power of two
    }
    EXPECT_NEAR(static_cast<double>(outliers) / static_cast<double>(plain.size()), 0.001, 0.0002);
    const std::vector<std::uint16_t> all = read_all(*make_synthetic_weights(7, 0, {1.0, 2.0}));
    EXPECT_EQ(share_that_differs(plain, all), 1.0);
}

TEST(SyntheticWeights, SayWhatTheyAre) {
    const auto weights = make_synthetic_weights(7, 0, {});
    EXPECT_EQ(weights->description(), "synthetic seed 7 step 0");
    weights->set_step(2);
    EXPECT_EQ(weights->description(), "synthetic seed 7 step 2");
    EXPECT_THAT(make_synthetic_weights(7, 0, {0.25, 20.0})->description(),
                testing::HasSubstr("outliers 0.25"));
}

TEST(SyntheticWeights, RefuseRegionsStepsAndOutliersThatCannotBe) {
    const auto weights = make_synthetic_weights(7, 0, {});
    std::vector<std::uint16_t> out(4000);
    EXPECT_THROW(weights->read(kMatrix, {640, 0, 1, 1}, out.data(), 1000), core::ShapeError);
    EXPECT_THROW(weights->read(kMatrix, {0, 999, 1, 2}, out.data(), 1000), core::ShapeError);
    EXPECT_THROW(weights->read(kMatrix, {-1, 0, 1, 1}, out.data(), 1000), core::ShapeError);
    EXPECT_THROW(weights->read(kMatrix, {0, 0, 2, 1000}, out.data(), 999), core::ShapeError);
    EXPECT_THROW(weights->set_step(-1), core::ScenarioError);
    EXPECT_THROW((void)make_synthetic_weights(7, 0, {1.5, 20.0}), core::ScenarioError);
    EXPECT_THROW((void)make_synthetic_weights(7, 0, {-0.1, 20.0}), core::ScenarioError);
    EXPECT_THROW((void)make_synthetic_weights(7, 0, {0.1, std::nan("")}), core::ScenarioError);
}

}  // namespace
}  // namespace refit::weights
