// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "record/run_record.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "unit/record/sample_record.hpp"

namespace {

using refit::record::CaseRecord;
using refit::test::kNan;

// All seconds below are sums of powers of two, so every expected value is exact.

TEST(WallOf, TakesTheMaximumOverRanksAndThenTheMedianOverIterations) {
    CaseRecord record;
    record.samples["wall"] = {{1.0, 4.0}, {2.0, 0.5}, {8.0, 1.0}, {3.0, 3.0}};
    const auto wall = refit::record::wall_of(record);
    EXPECT_EQ(wall.samples, (std::vector<double>{4.0, 2.0, 8.0, 3.0}));
    EXPECT_EQ(wall.median, 3.5);
    EXPECT_EQ(wall.min, 2.0);
    EXPECT_EQ(wall.max, 8.0);
}

TEST(WallOf, LeavesOutRanksAndIterationsWithoutANumber) {
    CaseRecord record;
    record.samples["wall"] = {{kNan, 4.0}, {kNan, kNan}, {1.0, kNan}, {}, {2.0}};
    const auto wall = refit::record::wall_of(record);
    EXPECT_EQ(wall.samples, (std::vector<double>{4.0, 1.0, 2.0}));
    EXPECT_EQ(wall.median, 2.0);
}

TEST(WallOf, IsNotANumberWhereNothingWasMeasured) {
    const auto wall = refit::record::wall_of(CaseRecord{});
    EXPECT_TRUE(std::isnan(wall.median));
    EXPECT_TRUE(std::isnan(wall.min));
    EXPECT_TRUE(std::isnan(wall.max));
    EXPECT_TRUE(std::isnan(refit::record::algbw_bytes_per_s(CaseRecord{})));
    EXPECT_TRUE(std::isnan(refit::record::byte_ratio(CaseRecord{})));
}

TEST(StagesOf, NamesTheRankWithTheLargestMedianAndNotTheOneWithOneSlowIteration) {
    CaseRecord record;
    record.samples["gather"] = {{9.0, 2.0}, {1.0, 2.0}, {1.0, 2.0}};
    const auto stages = refit::record::stages_of(record);
    EXPECT_EQ(stages.at("gather").median_s, 2.0);
    EXPECT_EQ(stages.at("gather").slowest_rank, 1);
}

TEST(StagesOf, LeavesOutStagesWithoutAPartAndTheWall) {
    CaseRecord record;
    record.samples["wall"] = {{1.0}};
    record.samples["quantize"] = {{kNan, kNan}};
    record.samples["source"] = {{kNan, 0.5}};
    const auto stages = refit::record::stages_of(record);
    EXPECT_EQ(stages.size(), 1U);
    EXPECT_EQ(stages.at("source").slowest_rank, 1);
}

TEST(Bandwidth, IsBytesOnTheWireOverTheMedianWall) {
    CaseRecord record;
    record.bytes_wire = 3072;
    record.bytes_bf16 = 4096;
    record.samples["wall"] = {{0.5}, {0.25}, {8.0}};
    EXPECT_EQ(refit::record::algbw_bytes_per_s(record), 6144.0);
    EXPECT_EQ(refit::record::byte_ratio(record), 0.75);
}

std::string verdict(std::initializer_list<const char*> outcomes) {
    std::vector<CaseRecord> cases;
    for (const char* outcome : outcomes) {
        cases.emplace_back();
        cases.back().outcome = outcome;
    }
    return refit::record::verdict_of(cases);
}

TEST(VerdictOf, PutsErrorBeforeFailureBeforePass) {
    EXPECT_EQ(verdict({"pass", "pass"}), "pass");
    EXPECT_EQ(verdict({"pass", "fail", "expected_finding"}), "fail");
    EXPECT_EQ(verdict({"pass", "unexpected_pass"}), "fail");
    EXPECT_EQ(verdict({"fail", "error", "pass"}), "error");
    EXPECT_EQ(verdict({"expected_finding", "expected_error"}), "pass");
}

TEST(VerdictOf, IsSkippedOnlyWhenNothingRan) {
    EXPECT_EQ(verdict({"skipped", "skipped"}), "skipped");
    EXPECT_EQ(verdict({"skipped", "pass"}), "pass");
    EXPECT_EQ(verdict({}), "skipped");
}

}  // namespace
