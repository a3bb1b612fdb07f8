// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/rank_report.hpp"

#include <gtest/gtest.h>

namespace refit::harness {
namespace {

core::Finding sample() {
    core::Finding f;
    f.check = "nonfinite";
    f.severity = core::Severity::warning;
    f.tensor = "model.norm.weight";
    f.index = {3, -1};
    f.measured = "NaN \"quoted\"\n";
    f.limit = "finite";
    f.rank = 4;
    f.message = "words";
    f.engine_behaviour = "raises";
    f.engine_message = "ValueError";
    f.remedy = "mend";
    return f;
}

void expect_same(const core::Finding& a, const core::Finding& b) {
    EXPECT_EQ(a.check, b.check);
    EXPECT_EQ(a.severity, b.severity);
    EXPECT_EQ(a.tensor, b.tensor);
    EXPECT_EQ(a.index, b.index);
    EXPECT_EQ(a.measured, b.measured);
    EXPECT_EQ(a.limit, b.limit);
    EXPECT_EQ(a.rank, b.rank);
    EXPECT_EQ(a.message, b.message);
    EXPECT_EQ(a.engine_behaviour, b.engine_behaviour);
    EXPECT_EQ(a.engine_message, b.engine_message);
    EXPECT_EQ(a.remedy, b.remedy);
}

TEST(RankReport, KeepsEveryFieldOfFindings) {
    const core::Findings findings = findings_from_json(findings_to_json({sample(), {}}));
    ASSERT_EQ(findings.size(), 2U);
    expect_same(findings[0], sample());
    expect_same(findings[1], core::Finding{});
    EXPECT_TRUE(findings_from_json(findings_to_json({})).empty());
}

TEST(RankReport, SurvivesNamesThatAreNotUtf8) {
    core::Finding f = sample();
    f.tensor = "bad \xff name";
    EXPECT_EQ(findings_from_json(findings_to_json({f})).size(), 1U);
}

TEST(RankReport, KeepsEveryFieldOfARefit) {
    RefitResult before;
    before.committed = true;
    before.error = "words";
    before.findings = {sample()};
    before.times.wall_s = 0.1;
    before.times.cpu_s = 1.0 / 3.0;
    before.times.stage_s = {{"load", 0.25}, {"check", 1e-9}};
    before.times.buckets = {{2, 300, {{"load", {0.5, 0.75}}}}, {3, 0, {}}};
    const RefitResult after = refit_result_from_json(refit_result_to_json(before));
    EXPECT_EQ(after.committed, before.committed);
    EXPECT_EQ(after.error, before.error);
    ASSERT_EQ(after.findings.size(), 1U);
    expect_same(after.findings[0], before.findings[0]);
    EXPECT_EQ(after.times.wall_s, before.times.wall_s);
    EXPECT_EQ(after.times.cpu_s, before.times.cpu_s);
    EXPECT_EQ(after.times.stage_s, before.times.stage_s);
    ASSERT_EQ(after.times.buckets.size(), 2U);
    EXPECT_EQ(after.times.buckets[0].index, 2);
    EXPECT_EQ(after.times.buckets[0].bytes, 300);
    EXPECT_EQ(after.times.buckets[0].stage, before.times.buckets[0].stage);
    EXPECT_TRUE(after.times.buckets[1].stage.empty());
}

}  // namespace
}  // namespace refit::harness
