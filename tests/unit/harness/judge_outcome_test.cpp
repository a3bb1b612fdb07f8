// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <string>

#include "harness/case_outcome.hpp"

namespace refit::harness {
namespace {

core::Finding finding(const std::string& check, const std::string& tensor,
                      core::Severity severity = core::Severity::error) {
    core::Finding f;
    f.check = check;
    f.tensor = tensor;
    f.severity = severity;
    return f;
}

TEST(JudgeOutcome, FollowsTheTable) {
    const core::Findings none;
    const core::Findings warning = {finding("digest", "a.weight", core::Severity::warning)};
    const core::Findings digest = {finding("digest", "a.weight")};
    const core::Findings other = {finding("names", "b.weight")};
    const core::Findings both = {finding("names", "b.weight"), finding("digest", "a.weight")};
    struct Row {
        Expectation expect;
        core::Findings findings;
        bool error;
        std::string outcome;
    };
    const Row rows[] = {
        {{"pass", "", ""}, none, false, "pass"},
        {{"pass", "", ""}, warning, false, "pass"},
        {{"pass", "", ""}, digest, false, "fail"},
        {{"pass", "", ""}, none, true, "error"},
        {{"pass", "", ""}, digest, true, "error"},
        {{"finding", "", ""}, none, false, "unexpected_pass"},
        {{"finding", "", ""}, warning, false, "unexpected_pass"},
        {{"finding", "", ""}, digest, false, "expected_finding"},
        {{"finding", "", ""}, none, true, "error"},
        {{"finding", "digest", ""}, digest, false, "expected_finding"},
        {{"finding", "digest", ""}, other, false, "fail"},
        {{"finding", "digest", ""}, both, false, "expected_finding"},
        {{"finding", "digest", ""}, warning, false, "unexpected_pass"},
        {{"finding", "digest", "a.*"}, digest, false, "expected_finding"},
        {{"finding", "digest", "b.*"}, digest, false, "fail"},
        {{"finding", "", "b.*"}, both, false, "expected_finding"},
        // Check and tensor must meet in one finding.
        {{"finding", "digest", "b.*"}, both, false, "fail"},
        {{"error", "", ""}, none, true, "expected_error"},
        {{"error", "", ""}, digest, true, "expected_error"},
        {{"error", "", ""}, none, false, "unexpected_pass"},
        {{"error", "", ""}, digest, false, "fail"},
    };
    for (const Row& row : rows) {
        EXPECT_EQ(judge_outcome(row.expect, row.findings, row.error), row.outcome)
            << row.expect.outcome << " " << row.expect.check << " " << row.expect.tensor << ", "
            << row.findings.size() << " findings, error " << row.error;
    }
}

}  // namespace
}  // namespace refit::harness
