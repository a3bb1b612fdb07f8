// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "record/json_report.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "record/build_info.hpp"
#include "unit/record/sample_record.hpp"

namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

json sample() {
    return json::parse(refit::record::to_json(refit::test::sample_record(), "/some/run.h5"));
}

TEST(JsonReport, HasEveryKeyThatUsersScriptAgainst) {
    const json run = sample();
    for (const char* key :
         {"schema", "tool", "argv", "verdict", "exit_code", "record", "world", "cases"}) {
        EXPECT_TRUE(run.contains(key)) << key;
    }
    EXPECT_EQ(run["schema"], "refitbench.run/1");
    EXPECT_EQ(run["tool"]["name"], "refitbench");
    EXPECT_EQ(run["tool"]["version"], refit::record::tool_version());
    EXPECT_EQ(run["tool"]["commit"], refit::record::tool_commit());
    EXPECT_EQ(run["argv"][4], "seed=ü");
    EXPECT_EQ(run["verdict"], "fail");
    EXPECT_EQ(run["exit_code"], 1);
    EXPECT_EQ(run["record"], "/some/run.h5");
    EXPECT_EQ(run["world"], (json{{"size", 4}, {"trainers", 2}, {"receivers", 2}}));
    ASSERT_EQ(run["cases"].size(), 4U);
    for (const json& entry : run["cases"]) {
        for (const char* key : {"scenario",
                                "purpose",
                                "case",
                                "model",
                                "scheme",
                                "recipe",
                                "engine",
                                "tp",
                                "engines",
                                "transport",
                                "backend",
                                "outcome",
                                "skip_reason",
                                "tensors",
                                "bytes_bf16",
                                "bytes_wire",
                                "byte_ratio",
                                "iterations",
                                "wall_s",
                                "stages",
                                "audit_s",
                                "cpu_s",
                                "cores",
                                "link",
                                "floor",
                                "peak_rss_bytes",
                                "accuracy",
                                "findings",
                                "algbw_bytes_per_s"}) {
            EXPECT_TRUE(entry.contains(key)) << key;
        }
        std::set<std::string> stages;
        for (const auto& [name, value] : entry["stages"].items()) stages.insert(name);
        EXPECT_EQ(stages, (std::set<std::string>{"gather", "quantize", "pack", "broadcast", "check",
                                                 "load", "commit"}));
    }
}

TEST(JsonReport, CarriesTheNumbersOfTheRecord) {
    const json entry = sample()["cases"][1];
    EXPECT_EQ(entry["bytes_wire"], 2'100'000);
    EXPECT_EQ(entry["byte_ratio"].get<double>(), 0.525);
    EXPECT_EQ(entry["wall_s"]["samples"].size(), 6U);
    EXPECT_EQ(entry["stages"]["gather"]["slowest_rank"], 1);
    EXPECT_EQ(entry["stages"]["load"]["slowest_rank"], 2);
    EXPECT_EQ(entry["cpu_s"]["waiting_excluded"], true);
    EXPECT_TRUE(entry["link"]["bytes_per_s"].is_null());
    EXPECT_EQ(entry["accuracy"]["sqnr_db"].get<double>(), 31.7);
    EXPECT_DOUBLE_EQ(entry["floor"]["wall_over_floor"].get<double>(),
                     entry["wall_s"]["median"].get<double>() / (0.03 * 0.7));
    EXPECT_EQ(entry["notes"]["remark"], "the weights were once 4-bit");
}

TEST(JsonReport, HasTheStageSourceOnlyWhereItWasMeasured) {
    refit::record::RunRecord run = refit::test::sample_record();
    run.cases.resize(2);
    run.cases[1].samples["source"] = {{0.5, 0.25, refit::test::kNan, refit::test::kNan},
                                      {0.5, 1.0, refit::test::kNan, refit::test::kNan},
                                      {0.5, 0.75, refit::test::kNan, refit::test::kNan}};
    const json cases = json::parse(refit::record::to_json(run, ""))["cases"];
    EXPECT_FALSE(cases[0]["stages"].contains("source"));
    EXPECT_EQ(cases[1]["stages"]["source"], (json{{"median_s", 0.75}, {"slowest_rank", 1}}));
    EXPECT_EQ(cases[1]["source_s"], 0.75);
}

TEST(JsonReport, HasTheStageStagingOnlyWhereItWasMeasured) {
    refit::record::RunRecord run = refit::test::sample_record();
    run.cases.resize(2);
    run.cases[1].samples["staging"] = {{0.25, 0.5, refit::test::kNan, refit::test::kNan}};
    const json cases = json::parse(refit::record::to_json(run, ""))["cases"];
    EXPECT_FALSE(cases[0]["stages"].contains("staging"));
    EXPECT_EQ(cases[1]["stages"]["staging"], (json{{"median_s", 0.5}, {"slowest_rank", 1}}));
}

TEST(JsonReport, HasWhatLayerOutputFoundOrNull) {
    refit::record::RunRecord run = refit::test::sample_record();
    run.cases[1].output_snr_db = 28.5;
    run.cases[1].expected_output_snr_db = 28.25;
    const json cases = json::parse(refit::record::to_json(run, ""))["cases"];
    EXPECT_TRUE(cases[0]["accuracy"]["output_snr_db"].is_null());
    EXPECT_EQ(cases[1]["accuracy"]["output_snr_db"], 28.5);
    EXPECT_EQ(cases[1]["accuracy"]["expected_output_snr_db"], 28.25);
    EXPECT_EQ(cases[1]["accuracy"]["exact"], 1400);
    EXPECT_EQ(cases[1]["accuracy"]["subnormal"], 42);
}

TEST(JsonReport, LeavesAccuracyOfBf16AndUnmeasuredStagesEmpty) {
    const json entry = sample()["cases"][0];
    EXPECT_TRUE(entry["accuracy"]["sqnr_db"].is_null());
    EXPECT_EQ(entry["stages"]["quantize"], json::object());
    EXPECT_FALSE(entry["stages"]["gather"].empty());
}

TEST(JsonReport, KeepsFindingsWhole) {
    const json findings = sample()["cases"][2]["findings"];
    ASSERT_EQ(findings.size(), 2U);
    EXPECT_EQ(findings[0]["check"], "nonfinite");
    EXPECT_EQ(findings[0]["severity"], "error");
    EXPECT_EQ(findings[0]["index"], (json{3, 7}));
    EXPECT_EQ(findings[0]["measured"], "NaN");
    EXPECT_EQ(findings[0]["rank"], 1);
    EXPECT_EQ(findings[1]["severity"], "warning");
    EXPECT_EQ(findings[1]["index"], json::array());
}

TEST(JsonReport, WritesNullForNumbersThatAreNotFinite) {
    refit::record::RunRecord run = refit::test::sample_record();
    run.cases.resize(1);
    run.cases[0].samples.clear();
    run.cases[0].sqnr_db = std::numeric_limits<double>::infinity();
    run.cases[0].max_error_over_bound = std::numeric_limits<double>::quiet_NaN();
    run.cases[0].floor_wall_s = 0.0;
    const json entry = json::parse(refit::record::to_json(run, ""))["cases"][0];
    EXPECT_TRUE(entry["wall_s"]["median"].is_null());
    EXPECT_TRUE(entry["algbw_bytes_per_s"].is_null());
    EXPECT_TRUE(entry["accuracy"]["sqnr_db"].is_null());
    EXPECT_TRUE(entry["accuracy"]["max_error_over_bound"].is_null());
    EXPECT_TRUE(entry["floor"]["wall_over_floor"].is_null());
}

TEST(JsonReport, SurvivesBytesThatAreNoUtf8) {
    refit::record::RunRecord run = refit::test::sample_record();
    run.argv.push_back("\xff\xfe.yaml");
    EXPECT_NO_THROW({ json::parse(refit::record::to_json(run, "")).size(); });
}

TEST(JsonReport, NamesRankAndStageOfAnError) {
    const json run = json::parse(refit::record::to_json(refit::test::sample_lost_run(), ""));
    EXPECT_EQ(run["error"]["rank"], 2);
    EXPECT_EQ(run["error"]["stage"], "broadcast");
    EXPECT_FALSE(sample().contains("error"));
}

TEST(JunitReport, CountsOneTestCaseACaseAndCheck) {
    const std::string xml = refit::record::to_junit(refit::test::sample_record());
    // Outcome and four checks of the first two cases, one check more of the third, the skipped
    // case.
    EXPECT_THAT(xml, HasSubstr("<testsuites name=\"refitbench\" tests=\"17\" failures=\"1\" "
                               "errors=\"0\" skipped=\"4\">"));
    EXPECT_THAT(xml,
                HasSubstr("<failure message=\"an element of the source is NaN &lt;here&gt;\"/>"));
    EXPECT_THAT(xml, HasSubstr("<skipped message=\"no CUDA device\"/>"));
    EXPECT_THAT(xml, Not(HasSubstr("<here>")));
}

TEST(JunitReport, DoesNotFailAFindingThatTheScenarioExpects) {
    refit::record::RunRecord run = refit::test::sample_record();
    run.cases[2].outcome = "expected_finding";
    const std::string xml = refit::record::to_junit(run);
    EXPECT_THAT(xml, HasSubstr("failures=\"0\""));
    EXPECT_THAT(xml, HasSubstr("<system-out>"));
}

TEST(JunitReport, FailsAnUnexpectedPassAndAFailureWithoutFindings) {
    refit::record::RunRecord run = refit::test::sample_record();
    run.cases[0].outcome = "unexpected_pass";
    run.cases[1].outcome = "fail";
    EXPECT_THAT(refit::record::to_junit(run), HasSubstr("tests=\"17\" failures=\"3\""));
}

TEST(JunitReport, ShowsALostRankAsAnErrorAndNoCheckAsPassed) {
    const std::string xml = refit::record::to_junit(refit::test::sample_lost_run());
    EXPECT_THAT(xml, HasSubstr("tests=\"2\" failures=\"0\" errors=\"2\""));
    EXPECT_THAT(xml, HasSubstr("<error message=\"rank 2 ended by signal 9\"/>"));
    EXPECT_THAT(xml, HasSubstr("rank 2, stage broadcast: rank 2 ended by signal 9"));
}

}  // namespace
