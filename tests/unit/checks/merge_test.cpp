// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "checks/audit.hpp"
#include "core/error.hpp"

namespace refit::checks {
namespace {

const std::set<std::string> kSqnr = {"sqnr"};

RankAudit rank_with(int rank, const std::string& key, double x2, double error2, double expected2) {
    RankAudit audit;
    audit.rank = rank;
    TensorAudit tensor;
    tensor.tensor = "w";
    tensor.quantized = true;
    tensor.elements = 10;
    tensor.sum_x2 = x2;
    tensor.sum_error2 = error2;
    tensor.sum_expected_error2 = expected2;
    tensor.max_error_over_bound = 0.5 + rank;
    audit.result.tensors.push_back(tensor);
    audit.result.digests.push_back({key, {1, 1}});
    return audit;
}

TEST(SqnrDb, IsTenTimesTheDecimalLogarithm) {
    EXPECT_DOUBLE_EQ(sqnr_db(1000.0, 1.0), 30.0);
    EXPECT_EQ(sqnr_db(1.0, 0.0), std::numeric_limits<double>::infinity());
    EXPECT_TRUE(std::isnan(sqnr_db(1.0, std::numeric_limits<double>::quiet_NaN())));
}

TEST(MergeAudits, AddsDisjointPartsAndCountsReplicasOnce) {
    const MergedAudit merged =
        merge_audits({rank_with(3, "w|8,0,8,8", 100, 1, 1), rank_with(2, "w|0,0,8,8", 300, 3, 3),
                      rank_with(4, "w|8,0,8,8", 100, 1, 1)},
                     kSqnr);
    ASSERT_EQ(merged.tensors.size(), 1U);
    EXPECT_EQ(merged.tensors[0].elements, 20);
    EXPECT_EQ(merged.tensors[0].sum_x2, 400.0);
    EXPECT_EQ(merged.max_error_over_bound, 3.5);
    EXPECT_DOUBLE_EQ(merged.pooled_sqnr_db, 20.0);
    EXPECT_TRUE(merged.findings.empty());
}

TEST(MergeAudits, HasNoPooledSqnrWithoutQuantizedElements) {
    EXPECT_TRUE(std::isnan(merge_audits({}, kSqnr).pooled_sqnr_db));
    RankAudit raw = rank_with(0, "w|0,0,1,1", 0, 0, 0);
    raw.result.tensors[0].quantized = false;
    EXPECT_TRUE(std::isnan(merge_audits({raw}, kSqnr).pooled_sqnr_db));
    EXPECT_TRUE(merge_audits({raw}, kSqnr).findings.empty());
}

core::Finding found_at(std::int64_t row, const std::string& remedy) {
    core::Finding finding;
    finding.check = "nonfinite";
    finding.tensor = "w";
    finding.index = {row, 7};
    finding.remedy = remedy;
    return finding;
}

TEST(MergeAudits, LetsTheLowestRankSpeakOfACauseThatSeveralFind) {
    RankAudit fifth = rank_with(5, "w|0,0,8,8", 1, 0, 0);
    fifth.result.findings = {found_at(3, "repair the weights")};
    RankAudit fourth = rank_with(4, "w|8,0,8,8", 1, 0, 0);
    fourth.result.findings = {found_at(300, "repair the weights"), found_at(9, "look at the cast")};
    RankAudit sixth = rank_with(6, "w|16,0,8,8", 1, 0, 0);
    sixth.result.findings = {found_at(5, "look at the cast"), found_at(6, "look at the scale"),
                             found_at(7, "look at the scale")};
    const core::Findings findings = merge_audits({fifth, fourth, sixth}, {}).findings;
    std::vector<std::int64_t> rows;
    for (const core::Finding& finding : findings) rows.push_back(finding.index.at(0));
    // Both of rank 4, and of rank 6 the cause that is its own, as often as it said it.
    EXPECT_EQ(rows, (std::vector<std::int64_t>{300, 9, 6, 7}));
}

TEST(MergeAudits, FindsAnErrorThatIsTooSmallAsWellAsOneThatIsTooLarge) {
    // 0.05 dB is a factor of 1.01158 in the squared error.
    const auto findings = [](double error2, double expected2) {
        return merge_audits({rank_with(0, "w|0,0,8,8", 1000, error2, expected2)}, kSqnr)
            .findings.size();
    };
    EXPECT_EQ(findings(1.0, 1.0), 0U);
    EXPECT_EQ(findings(1.011, 1.0), 0U);
    EXPECT_EQ(findings(1.012, 1.0), 1U);
    EXPECT_EQ(findings(1.0, 1.012), 1U);
    EXPECT_EQ(findings(0.0, 1.0), 1U);
    EXPECT_EQ(findings(0.0, 0.0), 0U);
    // Exact codes: what a few roundings of an F32 scale leave is no error, more is. The limit here
    // is (2^-22)^2 of the 1000 that the values' squares sum to, 5.7e-11.
    EXPECT_EQ(findings(5e-11, 0.0), 0U);
    EXPECT_EQ(findings(6e-11, 0.0), 1U);
    EXPECT_EQ(findings(std::numeric_limits<double>::quiet_NaN(), 1.0), 1U);
    EXPECT_EQ(findings(std::numeric_limits<double>::infinity(), 1.0), 1U);
}

TEST(MergeAudits, AllowsTheRoundingOfTheScaleWhereCodesAreNearlyExactButNoMore) {
    // Relative errors of 2^-24 and of 2^-21: -144.5 and -126.4 dB, where an exact scale would leave
    // -330 dB.
    const double rounding = std::ldexp(1.0, -48);
    const double more = std::ldexp(1.0, -42);
    const double nothing = 1e-33;

    EXPECT_TRUE(
        merge_audits({rank_with(0, "w|0,0,8,8", 1.0, rounding, nothing)}, kSqnr).findings.empty());
    EXPECT_EQ(merge_audits({rank_with(0, "w|0,0,8,8", 1.0, more, nothing)}, kSqnr).findings.size(),
              1U);
    EXPECT_EQ(merge_audits({rank_with(0, "w|0,0,8,8", 1.0, more, 0.0)}, kSqnr).findings.size(), 1U);
}

TEST(CheckVersions, RefusesListsOfDifferentLength) {
    EXPECT_THROW((void)check_versions(1, {0, 1}, {1}, {false, false}), core::ShapeError);
}

}  // namespace
}  // namespace refit::checks
