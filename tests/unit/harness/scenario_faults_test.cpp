// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Expected values are those that the interface states for the keys; none comes from the parser.
#include "harness/scenario.hpp"

#include <set>

#include "checks/check_catalog.hpp"
#include "core/error.hpp"
#include "unit/harness/scenario_texts.hpp"

namespace refit::harness {
namespace {

using testing::HasSubstr;

TEST(ScenarioFaults, TakeTheFieldsOfTheirRow) {
    const Case one =
        only_case(with("trainer: {ranks: 2}\nfaults: [{name: kill, rank: 2, stage: load, "
                       "iteration: 4}, {name: flip_byte, bucket: 3}]\n"));
    ASSERT_EQ(one.faults.size(), 2U);
    EXPECT_EQ(one.faults[0].name, "kill");
    EXPECT_EQ(one.faults[0].rank, 2);
    EXPECT_EQ(one.faults[0].stage, "load");
    EXPECT_EQ(one.faults[0].iteration, 4);
    EXPECT_EQ(one.faults[1].bucket, 3);
    EXPECT_THAT(error_of(with("faults: [{name: flip_bite}]\n")), HasSubstr("flip_byte"));
    EXPECT_THAT(error_of(with("faults: [{bucket: 1}]\n")), HasSubstr("'name'"));
    EXPECT_THAT(error_of(with("faults: [{name: kill, rank: 1}]\n")), HasSubstr("stage"));
    EXPECT_THAT(error_of(with("faults: [{name: kill, rank: 2, stage: load}]\n")),
                HasSubstr("at most 1"));
    EXPECT_THAT(error_of(with("faults: [{name: kill, rank: 1, stage: lode}]\n")),
                HasSubstr("load"));
    EXPECT_THAT(error_of(with("faults: [{name: skip_load}]\n")), HasSubstr("tensor"));
    EXPECT_THAT(error_of(with("faults: [{name: flip_byte, receiver: 1}]\n")),
                HasSubstr("receiver"));
    EXPECT_THAT(error_of(with("faults: [{name: kill, rank: 1, stage: load, iteration: 5}]\n")),
                HasSubstr("never comes"));
}

TEST(ScenarioExpect, DescribesAFindingOfACheckThatRuns) {
    const Case one =
        only_case(with("expect: {outcome: finding, check: digest, tensor: '*.weight'}\n"));
    EXPECT_EQ(one.expect.outcome, "finding");
    EXPECT_EQ(one.expect.check, "digest");
    EXPECT_EQ(one.expect.tensor, "*.weight");
    EXPECT_THAT(error_of(with("expect: {check: digest}\n")), HasSubstr("outcome: finding"));
    EXPECT_THAT(error_of(with("expect: {outcome: failure}\n")), HasSubstr("finding"));
    EXPECT_THAT(error_of(with("checks: [version]\nexpect: {outcome: finding, check: digest}\n")),
                HasSubstr("runs"));
}

TEST(FaultCatalog, NamesAreUniqueAndTheirChecksExist) {
    std::set<std::string> seen;
    const std::vector<std::string> checks = checks::check_names();
    for (const FaultRow& row : fault_catalog()) {
        EXPECT_TRUE(seen.insert(row.name).second) << row.name;
        EXPECT_FALSE(row.what.empty()) << row.name;
        if (row.caught_by != "error") {
            EXPECT_THAT(checks, testing::Contains(row.caught_by)) << row.name;
        }
    }
    EXPECT_EQ(seen.size(), 22U);
}

}  // namespace
}  // namespace refit::harness
