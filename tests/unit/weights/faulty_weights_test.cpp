// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include <fnmatch.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/error.hpp"
#include "weights/synthetic_weights.hpp"

namespace refit::weights {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

const model::TensorSpec kGate{"model.layers.0.mlp.gate_proj.weight", {40, 50}};
const model::TensorSpec kUp{"model.layers.0.mlp.up_proj.weight", {40, 50}};

Plant cell(const std::string& tensor, PlantKind kind, std::int64_t row, std::int64_t col) {
    return {tensor, kind, row, col, 0};
}
Plant spread(const std::string& tensor, PlantKind kind, std::int64_t count) {
    return {tensor, kind, -1, -1, count};
}

std::vector<std::uint16_t> read_all(const WeightSource& weights, const model::TensorSpec& tensor) {
    std::vector<std::uint16_t> out(2000);
    weights.read(tensor, {0, 0, 40, 50}, out.data(), 50);
    return out;
}

std::unique_ptr<WeightSource> faulty(std::vector<Plant> plants, std::uint64_t seed = 1) {
    return make_faulty_weights(make_synthetic_weights(7, 0, {}), std::move(plants), seed);
}

TEST(FaultyWeights, ChangeOneCellOfTheTensorsThatMatch) {
    const auto plain = make_synthetic_weights(7, 0, {});
    const auto weights = faulty({cell("*.gate_proj.*", PlantKind::nan, 3, 4)});
    std::vector<std::uint16_t> expected = read_all(*plain, kGate);
    expected[3 * 50 + 4] = 0x7FC0;
    EXPECT_EQ(read_all(*weights, kGate), expected);
    EXPECT_EQ(read_all(*weights, kUp), read_all(*plain, kUp));
}

TEST(FaultyWeights, ChangeAWholeRow) {
    std::vector<std::uint16_t> expected = read_all(*make_synthetic_weights(7, 0, {}), kGate);
    std::fill(expected.begin() + 39 * 50, expected.end(), std::uint16_t{0});
    EXPECT_EQ(read_all(*faulty({cell("*", PlantKind::zero, 39, -1)}), kGate), expected);
}

TEST(FaultyWeights, PlantEveryKindAsIts754Pattern) {
    const auto bits = [](PlantKind kind) {
        return read_all(*faulty({cell("*", kind, 0, 0)}), kGate).front();
    };
    const auto value = [&](PlantKind kind) {
        return std::bit_cast<float>(static_cast<std::uint32_t>(bits(kind)) << 16);
    };
    EXPECT_TRUE(std::isnan(value(PlantKind::nan)));
    EXPECT_TRUE(std::isinf(value(PlantKind::inf)));
    EXPECT_EQ(value(PlantKind::zero), 0.0F);
    EXPECT_EQ(std::fpclassify(value(PlantKind::subnormal)), FP_SUBNORMAL);
    EXPECT_TRUE(std::isfinite(value(PlantKind::huge)));
    EXPECT_EQ(bits(PlantKind::huge) + 1, 0x7F80)
        << "the pattern below Inf is the largest finite one";
}

TEST(FaultyWeights, SpreadTheWantedNumberBySeed) {
    for (const std::int64_t count : {1, 7, 1999, 2000}) {
        const auto values = read_all(*faulty({spread("*", PlantKind::inf, count)}), kGate);
        EXPECT_EQ(std::count(values.begin(), values.end(), 0x7F80), count);
    }
    const std::vector<Plant> plants = {spread("*", PlantKind::inf, 20)};
    const auto values = read_all(*faulty(plants), kGate);
    EXPECT_EQ(values, read_all(*faulty(plants), kGate));
    EXPECT_NE(values, read_all(*faulty(plants, 2), kGate));
    // In every eighth of the tensor: not all in one corner.
    for (auto at = values.begin(); at != values.end(); at += 250) {
        EXPECT_GT(std::count(at, at + 250, 0x7F80), 0);
    }
}

TEST(FaultyWeights, ShowTheSameFaultsInEveryRegion) {
    const auto weights =
        faulty({spread("*", PlantKind::nan, 111), cell("*", PlantKind::inf, 20, 25),
                cell("*", PlantKind::huge, 21, -1)});
    const std::vector<std::uint16_t> whole = read_all(*weights, kGate);
    for (std::int64_t row = 0; row < 40; row += 7) {
        for (std::int64_t col = 0; col < 50; col += 11) {
            const std::int64_t rows = std::min<std::int64_t>(7, 40 - row);
            const std::int64_t cols = std::min<std::int64_t>(11, 50 - col);
            std::vector<std::uint16_t> part(static_cast<std::size_t>(rows * 13), 5);
            weights->read(kGate, {row, col, rows, cols}, part.data(), 13);
            for (std::int64_t r = 0; r < rows; ++r) {
                for (std::int64_t c = 0; c < 13; ++c) {
                    const std::uint16_t expected =
                        c < cols ? whole[static_cast<std::size_t>((row + r) * 50 + col + c)] : 5;
                    ASSERT_EQ(part[static_cast<std::size_t>(r * 13 + c)], expected);
                }
            }
        }
    }
}

TEST(FaultyWeights, PassStepsOnAndSayWhatTheyAre) {
    const auto weights = faulty({cell("*", PlantKind::nan, 0, 0)});
    weights->set_step(4);
    EXPECT_EQ(weights->description(), "synthetic seed 7 step 4, 1 plant");
    EXPECT_THROW(read_all(*weights, {"small", {40, 49}}), core::ShapeError);
}

TEST(CheckPlants, PassesWhatExists) {
    const std::vector<model::TensorSpec> tensors = {kGate, kUp, {"model.norm.weight", {50}}};
    EXPECT_NO_THROW(check_plants({}, tensors));
    EXPECT_NO_THROW(
        check_plants({cell("*proj*", PlantKind::nan, 39, 49), cell("*", PlantKind::nan, 39, -1),
                      cell("model.norm.weight", PlantKind::nan, 49, 0),
                      spread(kGate.name, PlantKind::zero, 2000)},
                     tensors));
}

TEST(CheckPlants, RefusesWhatDoesNot) {
    const std::vector<model::TensorSpec> tensors = {kGate, kUp, {"model.norm.weight", {50}}};
    const auto expect_refused = [&](const Plant& plant, const std::string& reason,
                                    const std::string& more) {
        EXPECT_THAT([&] { check_plants({plant}, tensors); },
                    ThrowsMessage<core::ScenarioError>(
                        AllOf(HasSubstr(plant.tensor), HasSubstr(reason), HasSubstr(more))));
    };
    expect_refused(cell("model.norm.weigth", PlantKind::nan, 0, 0), "matches no tensor",
                   "nearest: model.norm.weight");
    expect_refused(cell("*proj*", PlantKind::nan, 40, 0), "row 40", kGate.name);
    expect_refused(cell("*proj*", PlantKind::nan, 0, 50), "column 50", "[40, 50]");
    expect_refused(cell("*", PlantKind::nan, 0, 1), "column 1", "model.norm.weight");
    expect_refused(spread("*gate*", PlantKind::nan, 2001), "count 2001", "[40, 50]");
    expect_refused(spread("*", PlantKind::nan, 0), "wants either a row", "count above 0");
    expect_refused({"*", PlantKind::nan, 1, -1, 5}, "wants either a row", "");
    expect_refused({"*", PlantKind::nan, -1, 3, 5}, "column 3", "needs a row");
    expect_refused(cell("*", PlantKind::nan, -2, 0), "negative", "");
}

TEST(GlobMatch, AgreesWithTheShell) {
    const std::vector<std::string> patterns = {"",    "*",   "a",   "?",    "a*",    "*a",
                                               "*a*", "a?b", "**",  "*.*",  "a*b*",  "*?",
                                               "?*?", "*ab", "a.b", "*aab", "a*a*a", "?.?"};
    const std::vector<std::string> texts = {"",     "a",    "b",   "ab",        "aab",
                                            "a.b",  "aaab", ".",   "a.",        "axb",
                                            "abab", "aaa",  "baa", "model.a.b", "a/b"};
    for (const std::string& pattern : patterns) {
        for (const std::string& text : texts) {
            EXPECT_EQ(glob_match(pattern, text), fnmatch(pattern.c_str(), text.c_str(), 0) == 0)
                << pattern << " | " << text;
        }
    }
    EXPECT_TRUE(glob_match("model.layers.*.mlp.gate_proj.weight", kGate.name));
    EXPECT_FALSE(glob_match("model.layers.*.mlp.gate_proj.bias", kGate.name));
}

}  // namespace
}  // namespace refit::weights
