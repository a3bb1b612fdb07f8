// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/check_catalog.hpp"

#include <gtest/gtest.h>

namespace refit::checks {
namespace {

TEST(CheckCatalog, NamesTheChecksOfTheInterfaceInItsOrder) {
    const std::vector<std::string> expected = {"shape_contract",   "names",     "dtype",
                                               "completeness",     "nonfinite", "digest",
                                               "round_trip",       "sqnr",      "byte_identity",
                                               "source_unchanged", "version",   "layer_output"};
    EXPECT_EQ(check_names(), expected);
}

TEST(CheckCatalog, RunsAllButLayerOutputByDefault) {
    for (const CheckRow& row : check_catalog()) {
        EXPECT_EQ(row.by_default, row.name != "layer_output") << row.name;
        EXPECT_TRUE(row.available) << row.name;
        EXPECT_FALSE(row.question.empty()) << row.name;
        EXPECT_FALSE(row.truth.empty()) << row.name;
    }
}

}  // namespace
}  // namespace refit::checks
