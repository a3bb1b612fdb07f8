// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "wire/manifest.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "wire/packing.hpp"

namespace refit::wire {
namespace {

using nlohmann::json;

ParameterMeta matrix(std::int64_t rows, std::int64_t cols, std::vector<std::int64_t> row_cuts,
                     std::vector<std::int64_t> col_cuts) {
    ParameterMeta meta;
    meta.name = "layer.weight";
    meta.shape = {rows, cols};
    meta.row_cuts = std::move(row_cuts);
    meta.col_cuts = std::move(col_cuts);
    return meta;
}

TEST(CellsWithin, ClipsRowsAndNumbersCellsRowByRow) {
    const ParameterMeta meta = matrix(10, 8, {0, 4, 10}, {0, 3, 8});
    const std::vector<Cell> cells = cells_within(meta, {2, 6});
    ASSERT_EQ(cells.size(), 4U);
    EXPECT_EQ(cells[0].index, 0U);
    EXPECT_EQ(cells[0].region, (core::Region{2, 0, 2, 3}));
    EXPECT_EQ(cells[1].index, 1U);
    EXPECT_EQ(cells[1].region, (core::Region{2, 3, 2, 5}));
    EXPECT_EQ(cells[2].index, 2U);
    EXPECT_EQ(cells[2].region, (core::Region{4, 0, 2, 3}));
    EXPECT_EQ(cells[3].region, (core::Region{4, 3, 2, 5}));
}

TEST(CellsWithin, ClipsRectangles) {
    const ParameterMeta meta = matrix(10, 8, {0, 4, 10}, {0, 3, 8});
    const std::vector<Cell> cells = cells_in_region(meta, core::Region{2, 1, 1, 4});
    ASSERT_EQ(cells.size(), 2U);
    EXPECT_EQ(cells[0].region, (core::Region{2, 1, 1, 2}));
    EXPECT_EQ(cells[1].index, 1U);
    EXPECT_EQ(cells[1].region, (core::Region{2, 3, 1, 2}));
    EXPECT_EQ(cells_in_region(meta, core::Region{5, 4, 2, 2}).at(0).index, 3U);
    EXPECT_TRUE(cells_in_region(meta, core::Region{0, 3, 10, 0}).empty());
}

TEST(CellsWithin, IsEmptyForNoRowsAndLeavesOutCellsWithoutElements) {
    EXPECT_TRUE(cells_within(matrix(10, 8, {0, 4, 10}, {0, 8}), {4, 4}).empty());
    const std::vector<Cell> cells = cells_within(matrix(10, 8, {0, 0, 10}, {0, 8, 8}), {0, 10});
    ASSERT_EQ(cells.size(), 1U);
    EXPECT_EQ(cells[0].index, 2U);
}

TEST(CellsWithin, CoversEachElementOfTheRowsOnceWithTheCellThatItsCutsGive) {
    std::mt19937 random(7);
    auto cuts = [&](std::int64_t extent) {
        std::vector<std::int64_t> all = {0, extent};
        const auto more = random() % 4;
        for (std::size_t i = 0; i < more; ++i) {
            all.push_back(static_cast<std::int64_t>(random() % static_cast<unsigned>(extent + 1)));
        }
        std::sort(all.begin(), all.end());
        return all;
    };
    auto cell_of = [](const std::vector<std::int64_t>& all, std::int64_t at) {
        std::size_t index = 0;
        while (all[index + 1] <= at) ++index;
        return index;
    };
    for (int turn = 0; turn < 300; ++turn) {
        const auto rows = static_cast<std::int64_t>(1 + random() % 20);
        const auto cols = static_cast<std::int64_t>(1 + random() % 12);
        const ParameterMeta meta = matrix(rows, cols, cuts(rows), cuts(cols));
        const auto begin = static_cast<std::int64_t>(random() % static_cast<unsigned>(rows));
        const auto end =
            begin + static_cast<std::int64_t>(random() % static_cast<unsigned>(rows - begin + 1));
        std::map<std::pair<std::int64_t, std::int64_t>, std::size_t> seen;
        for (const Cell& cell : cells_within(meta, {begin, end})) {
            for (std::int64_t r = 0; r < cell.region.rows; ++r) {
                for (std::int64_t c = 0; c < cell.region.cols; ++c) {
                    const bool fresh =
                        seen.emplace(std::pair{cell.region.row + r, cell.region.col + c},
                                     cell.index)
                            .second;
                    EXPECT_TRUE(fresh);
                }
            }
        }
        ASSERT_EQ(seen.size(), static_cast<std::size_t>((end - begin) * cols));
        for (const auto& [at, index] : seen) {
            EXPECT_GE(at.first, begin);
            EXPECT_LT(at.first, end);
            EXPECT_EQ(index, cell_of(meta.row_cuts, at.first) * (meta.col_cuts.size() - 1) +
                                 cell_of(meta.col_cuts, at.second));
        }
    }
}

RefitManifest sample() {
    PlannedParameter weight;
    weight.meta = matrix(300, 40, {0, 128, 300}, {0, 20, 40});
    weight.meta.kind = ParameterKind::codes;
    weight.meta.dtype = core::DType::f8_e4m3;
    weight.meta.recipe = "prime-rl-blockwise";
    weight.regions_of_trainer = {{0, 0, 128, 40}, {128, 0, 172, 40}};
    weight.unit = "layer";
    PlannedParameter scale;
    scale.meta = matrix(3, 1, {0, 1, 3}, {0, 1});
    scale.meta.name = "layer.weight_scale_inv";
    scale.meta.kind = ParameterKind::scale;
    scale.meta.dtype = core::DType::f32;
    scale.meta.recipe = "prime-rl-blockwise";
    scale.meta.scale_of = "layer.weight";
    scale.regions_of_trainer = {{0, 0, 1, 1}, {1, 0, 2, 1}};
    scale.unit = "layer";
    PlannedParameter norm;
    norm.meta.name = "norm.weight";
    norm.meta.shape = {77};
    norm.meta.row_cuts = {0, 77};
    norm.meta.col_cuts = {0, 1};
    norm.regions_of_trainer = {{0, 0, 77, 1}, {}};
    return pack({weight, scale, norm}, 12012, 2);
}

TEST(RefitManifest, FindsParametersAndSumsThePayload) {
    const RefitManifest manifest = sample();
    EXPECT_EQ(manifest.find("layer.weight_scale_inv"), 1);
    EXPECT_EQ(manifest.find("layer"), -1);
    EXPECT_EQ(manifest.payload_bytes(), 300U * 40U + 3U * 4U + 77U * 2U);
    EXPECT_EQ(manifest.buckets.size(), 2U);
}

TEST(ManifestJson, KeepsEveryField) {
    const RefitManifest before = sample();
    const RefitManifest after = manifest_from_json(to_json(before));
    ASSERT_EQ(after.parameters.size(), before.parameters.size());
    for (std::size_t i = 0; i < before.parameters.size(); ++i) {
        const ParameterMeta& a = before.parameters[i];
        const ParameterMeta& b = after.parameters[i];
        EXPECT_EQ(a.name, b.name);
        EXPECT_EQ(a.kind, b.kind);
        EXPECT_EQ(a.dtype, b.dtype);
        EXPECT_EQ(a.shape, b.shape);
        EXPECT_EQ(a.recipe, b.recipe);
        EXPECT_EQ(a.scale_of, b.scale_of);
        EXPECT_EQ(a.row_cuts, b.row_cuts);
        EXPECT_EQ(a.col_cuts, b.col_cuts);
    }
    ASSERT_EQ(after.buckets.size(), before.buckets.size());
    for (std::size_t i = 0; i < before.buckets.size(); ++i) {
        ASSERT_EQ(after.buckets[i].pieces.size(), before.buckets[i].pieces.size());
        for (std::size_t t = 0; t < before.buckets[i].pieces.size(); ++t) {
            const PiecePlan& a = before.buckets[i].pieces[t];
            const PiecePlan& b = after.buckets[i].pieces[t];
            EXPECT_EQ(a.bytes, b.bytes);
            EXPECT_EQ(a.payload_bytes, b.payload_bytes);
            ASSERT_EQ(a.entries.size(), b.entries.size());
            for (std::size_t e = 0; e < a.entries.size(); ++e) {
                EXPECT_EQ(a.entries[e].parameter, b.entries[e].parameter);
                EXPECT_EQ(a.entries[e].rows, b.entries[e].rows);
                EXPECT_EQ(a.entries[e].cols, b.entries[e].cols);
                EXPECT_EQ(a.entries[e].offset, b.entries[e].offset);
                EXPECT_EQ(a.entries[e].bytes, b.entries[e].bytes);
            }
        }
    }
}

struct BadManifest {
    const char* name;
    std::function<void(json&)> plant;
    const char* words;
};

class ManifestDamage : public ::testing::TestWithParam<BadManifest> {};

// An entry is [parameter, first row, end row, offset, bytes, first column, end column]; a piece is
// [bytes, payload, entries].
json& entry(json& root) {
    return root["buckets"][0][1][2][0];
}

const BadManifest kBadManifests[] = {
    {"UnknownParameter", [](json& j) { entry(j)[0] = 3; }, "not listed"},
    {"RowsBehindTheParameter",
     [](json& j) {
         entry(j)[2] = 301;
         entry(j)[4] = 173 * 40;
     },
     "leaves its parameter"},
    {"NegativeRow",
     [](json& j) {
         entry(j)[1] = -1;
         entry(j)[4] = 301 * 40;
     },
     "leaves its parameter"},
    {"ColumnsBehindTheParameter",
     [](json& j) {
         entry(j)[6] = 41;
         entry(j)[4] = 172 * 41;
     },
     "leaves its parameter"},
    {"NegativeColumn",
     [](json& j) {
         entry(j)[5] = -1;
         entry(j)[4] = 172 * 41;
     },
     "leaves its parameter"},
    {"NoColumns", [](json& j) { entry(j)[5] = 40; }, "leaves its parameter"},
    {"ColumnsThatTheBytesDoNotGive", [](json& j) { entry(j)[5] = 1; }, "size"},
    {"NoColumnRange", [](json& j) { entry(j).erase(5); }, "malformed"},
    {"NoRows", [](json& j) { entry(j)[2] = 128; }, "leaves its parameter"},
    {"OffsetBehindThePiece", [](json& j) { entry(j)[3] = 1 << 20; }, "leaves its piece"},
    {"OffsetThatWraps", [](json& j) { entry(j)[3] = std::uint64_t{0} - 64; }, "leaves its piece"},
    {"BytesThatRowsDoNotGive", [](json& j) { entry(j)[4] = 172 * 40 - 1; }, "size"},
    {"PieceThatIsTooSmall", [](json& j) { j["buckets"][0][1][0] = 1000; }, "leaves its piece"},
    {"UnknownDtype", [](json& j) { j["parameters"][0][2] = "FP8"; }, "dtype"},
    {"UnknownKind", [](json& j) { j["parameters"][0][1] = 9; }, "kind"},
    {"MissingCuts", [](json& j) { j["parameters"][0][6] = json::array({0}); }, "cuts"},
    {"CutsBehindTheColumns",
     [](json& j) {
         j["parameters"][0][7] = {0, 20, 41};
     },
     "cuts"},
    {"FallingCuts",
     [](json& j) {
         j["parameters"][0][6] = {0, 200, 128, 300};
     },
     "cuts"},
    {"MissingField", [](json& j) { j["parameters"][0].erase(7); }, "malformed"},
    {"MissingBuckets", [](json& j) { j.erase("buckets"); }, "malformed"},
    {"TextInsteadOfRows", [](json& j) { entry(j)[1] = "0"; }, "malformed"},
};

INSTANTIATE_TEST_SUITE_P(All, ManifestDamage, ::testing::ValuesIn(kBadManifests),
                         [](const ::testing::TestParamInfo<BadManifest>& bad) {
                             return bad.param.name;
                         });

TEST_P(ManifestDamage, IsRefusedWithWhatIsWrong) {
    json root = json::parse(to_json(sample()));
    ASSERT_NO_THROW((void)manifest_from_json(root.dump()));
    GetParam().plant(root);
    try {
        (void)manifest_from_json(root.dump());
        FAIL() << "taken";
    } catch (const core::Error& error) {
        EXPECT_NE(std::string(error.what()).find(GetParam().words), std::string::npos)
            << error.what();
    }
}

TEST(ManifestJson, RefusesTextThatIsCutOff) {
    const std::string text = to_json(sample());
    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, text.size() / 2}) {
        EXPECT_THROW((void)manifest_from_json(text.substr(0, size)), core::Error) << size;
    }
}

}  // namespace
}  // namespace refit::wire
