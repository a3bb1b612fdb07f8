// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "core/error.hpp"

#include <gtest/gtest.h>

#include "core/finding.hpp"

namespace refit::core {
namespace {

TEST(Errors, CarryTheExitCodeThatUsersScriptAgainst) {
    EXPECT_EQ(static_cast<int>(UsageError("x").code()), 2);
    EXPECT_EQ(static_cast<int>(ScenarioError("x").code()), 2);
    EXPECT_EQ(static_cast<int>(FileError("x").code()), 3);
    EXPECT_EQ(static_cast<int>(ResourceError("x").code()), 3);
    EXPECT_EQ(static_cast<int>(MpiError("x").code()), 3);
    EXPECT_EQ(static_cast<int>(RecordError("x").code()), 3);
    EXPECT_EQ(static_cast<int>(ShapeError("x").code()), 3);
    EXPECT_EQ(static_cast<int>(NotViable("x").code()), 77);
    EXPECT_EQ(static_cast<int>(Error(ExitCode::verdict, "x").code()), 1);
}

TEST(Findings, FailOnlyThroughOneOfSeverityError) {
    Finding warning;
    warning.severity = Severity::warning;
    EXPECT_FALSE(has_error({}));
    EXPECT_FALSE(has_error({warning, warning}));
    EXPECT_TRUE(has_error({warning, Finding{}}));
}

}  // namespace
}  // namespace refit::core
