// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/command_line.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

namespace refit::harness {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

CommandLine parse(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "refitbench");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    return parse_command_line(static_cast<int>(arguments.size()), argv.data());
}

/// The text of a call that must be refused as wrong use.
std::string refused(const std::vector<std::string>& arguments) {
    const CommandLine line = parse(arguments);
    EXPECT_TRUE(line.finished);
    EXPECT_TRUE(line.text_is_error);
    EXPECT_EQ(line.exit_code, 2);
    return line.text;
}

TEST(CommandLine, RunTakesFilesAndEveryOption) {
    const CommandLine line = parse({"run",       "a.yaml",   "--set",    "receiver.tp=1",
                                    "b.yaml",    "--set",    "sweep={}", "-n",
                                    "3",         "-w",       "0",        "--timeout",
                                    "2.5",       "--filter", "a/*",      "--filter",
                                    "b/*",       "--output", "out",      "--json",
                                    "-",         "--junit",  "j.xml",    "--summary",
                                    "--explain", "--dry-run"});
    ASSERT_FALSE(line.finished) << line.text;
    EXPECT_EQ(line.subcommand, "run");
    EXPECT_THAT(line.run.files, ElementsAre("a.yaml", "b.yaml"));
    EXPECT_THAT(line.run.overrides, ElementsAre(Pair("receiver.tp", "1"), Pair("sweep", "{}")));
    EXPECT_EQ(line.run.filter.iterations, 3);
    EXPECT_EQ(line.run.filter.warmup, 0);
    EXPECT_EQ(line.run.filter.timeout_s, 2.5);
    EXPECT_THAT(line.run.filter.globs, ElementsAre("a/*", "b/*"));
    EXPECT_EQ(line.run.output, "out");
    EXPECT_EQ(line.run.json, "-");
    EXPECT_EQ(line.run.junit, "j.xml");
    EXPECT_TRUE(line.run.summary && line.run.explain && line.run.dry_run);
    EXPECT_EQ(line.argv.front(), "refitbench");
    EXPECT_EQ(line.argv.size(), 27U);
}

TEST(CommandLine, DefaultsLeaveTheScenarioAlone) {
    const CommandLine line = parse({"run", "scenarios"});
    ASSERT_FALSE(line.finished) << line.text;
    EXPECT_EQ(line.run.output, ".");
    EXPECT_FALSE(line.run.filter.iterations || line.run.filter.warmup || line.run.filter.timeout_s);
    EXPECT_FALSE(line.run.summary || line.run.explain || line.run.dry_run);
    EXPECT_EQ(line.run.json, "");
}

TEST(CommandLine, SetValuesStayAsWritten) {
    const CommandLine line = parse({"run", "a.yaml", "--set", "sweep.payload.recipe=[a, b]",
                                    "--set=weights.path=a=b", "--set", "payload.recipe="});
    ASSERT_FALSE(line.finished) << line.text;
    EXPECT_THAT(line.run.overrides,
                ElementsAre(Pair("sweep.payload.recipe", "[a, b]"), Pair("weights.path", "a=b"),
                            Pair("payload.recipe", "")));
}

TEST(CommandLine, WrongUseIsAlwaysExitCodeTwoAndNamesTheNearest) {
    EXPECT_THAT(refused({"run", "a.yaml", "--dryrun"}),
                AllOf(HasSubstr("'--dryrun'"), HasSubstr("--dry-run")));
    EXPECT_THAT(refused({"run", "a.yaml", "--outptu=x"}), HasSubstr("--output"));
    EXPECT_THAT(refused({"run", "a.yaml", "-q"}), HasSubstr("'-q'"));
    EXPECT_THAT(refused({"rnu", "a.yaml"}), AllOf(HasSubstr("'rnu'"), HasSubstr("run")));
    EXPECT_THAT(refused({"--sumary"}), HasSubstr("'--sumary'"));
    EXPECT_THAT(refused({}), HasSubstr("no command given"));
    EXPECT_THAT(refused({"run"}), HasSubstr("no scenario given"));
    EXPECT_THAT(refused({"run", "a.yaml", "--set"}), HasSubstr("--set"));
    EXPECT_THAT(refused({"run", "a.yaml", "--set", "receiver.tp"}), HasSubstr("KEY=VALUE"));
    EXPECT_THAT(refused({"run", "a.yaml", "--set", "=2"}), HasSubstr("KEY=VALUE"));
    EXPECT_THAT(refused({"run", "a.yaml", "--output"}), HasSubstr("--output"));
    EXPECT_THAT(refused({"list", "recipe"}), HasSubstr("recipes"));
    EXPECT_THAT(refused({"list", "recipes", "models"}), HasSubstr("'models'"));
    EXPECT_THAT(refused({"list", "recipes", "--tp"}), HasSubstr("list models --tp"));
    EXPECT_THAT(refused({"quantize", "--recipe", "mxfp8"}), HasSubstr("--input is missing"));
    EXPECT_THAT(
        refused({"quantize", "--recipe", "r", "--input", "i", "--output", "o", "--backend", "avx"}),
        HasSubstr("avx2"));
    EXPECT_THAT(refused({"quantize", "--recipe", "r", "--input", "i", "--output", "o",
                         "--nonfinite", "keep"}),
                HasSubstr("propagate"));
}

TEST(CommandLine, CountsAreStrictDecimals) {
    for (const char* text : {"0", "-1", "010", "0x10", "1e1", "two", "3.5", "99999999999"}) {
        EXPECT_THAT(refused({"run", "a.yaml", "-n", text}), HasSubstr("-n")) << text;
    }
    EXPECT_THAT(refused({"run", "a.yaml", "-w", "-1"}), HasSubstr("-w"));
    for (const char* text : {"0", "-2", "nan", "inf", "soon"}) {
        EXPECT_THAT(refused({"run", "a.yaml", "--timeout", text}), HasSubstr("--timeout")) << text;
    }
    EXPECT_THAT(
        refused({"quantize", "--recipe", "r", "--input", "i", "--output", "o", "--threads", "0"}),
        HasSubstr("--threads"));
}

TEST(CommandLine, HelpHasAnExampleEverywhereAndEndsWithZero) {
    for (const std::vector<std::string>& arguments :
         std::vector<std::vector<std::string>>{{"--help"},
                                               {"run", "--help"},
                                               {"list", "-h"},
                                               {"quantize", "--help"},
                                               {"export", "--help"},
                                               {"verify", "--help"}}) {
        const CommandLine line = parse(arguments);
        EXPECT_TRUE(line.finished);
        EXPECT_FALSE(line.text_is_error);
        EXPECT_EQ(line.exit_code, 0);
        EXPECT_THAT(line.text, HasSubstr("Example")) << arguments.front();
    }
    EXPECT_THAT(parse({"run", "--help"}).text,
                HasSubstr("mpirun --oversubscribe --allow-run-as-root -np 4"));
}

TEST(CommandLine, VersionNamesTheCommit) {
    for (const std::vector<std::string>& arguments :
         std::vector<std::vector<std::string>>{{"--version"}, {"run", "--version"}}) {
        const CommandLine line = parse(arguments);
        EXPECT_TRUE(line.finished);
        EXPECT_EQ(line.exit_code, 0);
        EXPECT_THAT(line.text, testing::MatchesRegex("refitbench 0\\.1\\.0 \\(.+\\)\n"));
    }
}

TEST(CommandLine, PlannedCommandsSayThatTheyAreNotAvailableYet) {
    for (const char* name : {"plan"}) {
        EXPECT_THAT(refused({name, "--whatever", "x"}),
                    AllOf(HasSubstr(name), HasSubstr("not available yet")));
    }
}

TEST(CommandLine, ExportReadsItsOptions) {
    const CommandLine line = parse({"export", "--model", "m", "--recipe", "r", "--engine", "e",
                                    "--output", "o", "--max-shard-size", "2GiB", "--tp", "2"});
    ASSERT_FALSE(line.finished) << line.text;
    EXPECT_EQ(line.exporting.model, "m");
    EXPECT_EQ(line.exporting.max_shard_bytes, std::uint64_t{2} << 30);
    EXPECT_EQ(line.exporting.tp, 2);
    EXPECT_EQ(line.exporting.unloadable, "refuse");
    EXPECT_TRUE(line.exporting.config_override.empty());
}

TEST(CommandLine, ShardSizesHaveBinaryAndDecimalSuffixes) {
    const auto size = [](const std::string& text) {
        return parse({"export", "--model", "m", "--recipe", "r", "--engine", "e", "--output", "o",
                      "--max-shard-size", text});
    };
    EXPECT_EQ(size("5GB").exporting.max_shard_bytes, 5'000'000'000U);
    EXPECT_EQ(size("300KB").exporting.max_shard_bytes, 300'000U);
    EXPECT_EQ(size("4096").exporting.max_shard_bytes, 4096U);
    for (const char* wrong : {"", "GB", "0GB", "-1GB", "1.5GB", "5 GB", "5gb", "9999999999GB"}) {
        EXPECT_EQ(size(wrong).exit_code, wrong[0] == '\0' ? 0 : 2) << wrong;
    }
}

TEST(CommandLine, QuantizeHasTheDefaultsOfTheInterface) {
    const CommandLine line = parse(
        {"quantize", "--recipe", "mxfp8", "--input", "a.safetensors", "--output", "b.safetensors"});
    ASSERT_FALSE(line.finished) << line.text;
    EXPECT_EQ(line.subcommand, "quantize");
    EXPECT_EQ(line.quantize.recipe, "mxfp8");
    EXPECT_EQ(line.quantize.input, "a.safetensors");
    EXPECT_EQ(line.quantize.output, "b.safetensors");
    EXPECT_EQ(line.quantize.backend, "auto");
    EXPECT_EQ(line.quantize.nonfinite, "recipe");
    EXPECT_EQ(line.quantize.threads, 1);
}

TEST(CommandLine, VerifyTakesADirectoryAndKnowsItsEngines) {
    const CommandLine line = parse({"verify", "fp8", "--engine", "vllm-fp8", "--tp", "4",
                                    "--reference", "bf16", "--json", "-"});
    ASSERT_FALSE(line.finished) << line.text;
    EXPECT_EQ(line.subcommand, "verify");
    EXPECT_EQ(line.verify.directory, "fp8");
    EXPECT_EQ(line.verify.engine, "vllm-fp8");
    EXPECT_EQ(line.verify.tp, 4);
    EXPECT_EQ(line.verify.reference, "bf16");
    EXPECT_EQ(line.verify.json, "-");
    EXPECT_EQ(parse({"verify", "fp8"}).verify.tp, 1);
    EXPECT_THAT(refused({"verify"}), HasSubstr("DIR"));
    EXPECT_THAT(refused({"verify", "fp8", "--tp", "0"}), HasSubstr("--tp"));
    EXPECT_THAT(refused({"verify", "fp8", "--engine", "vlm-fp8"}), HasSubstr("vllm-fp8"));
    EXPECT_THAT(refused({"verify", "fp8", "bf16"}), HasSubstr("one too many"));
}

TEST(CommandLine, DequantizeAndIdentifyTakeTheFilesOfTheInterface) {
    const CommandLine back =
        parse({"dequantize", "--input", "b.safetensors", "--output", "a.safetensors"});
    ASSERT_FALSE(back.finished) << back.text;
    EXPECT_EQ(back.subcommand, "dequantize");
    EXPECT_EQ(back.dequantize.input, "b.safetensors");
    EXPECT_EQ(back.dequantize.output, "a.safetensors");
    EXPECT_EQ(back.dequantize.dtype, "bf16");
    const CommandLine which =
        parse({"identify", "b.safetensors", "--reference", "a.safetensors", "--json", "-"});
    ASSERT_FALSE(which.finished) << which.text;
    EXPECT_EQ(which.subcommand, "identify");
    EXPECT_EQ(which.identify.file, "b.safetensors");
    EXPECT_EQ(which.identify.reference, "a.safetensors");
    EXPECT_EQ(which.identify.json, "-");
    EXPECT_THAT(refused({"dequantize", "--input", "b"}), HasSubstr("--output is missing"));
    EXPECT_THAT(refused({"dequantize", "--input", "b", "--output", "a", "--dtype", "f16"}),
                AllOf(HasSubstr("--dtype"), HasSubstr("f32")));
    EXPECT_THAT(refused({"identify", "b"}), HasSubstr("--reference is missing"));
    EXPECT_THAT(refused({"identify", "--reference", "a"}), HasSubstr("FILE is missing"));
}

TEST(ListCommand, JsonIsOneObjectOfTheSchemaForEveryKind) {
    for (const char* kind : {"", "scenarios", "models", "recipes", "schemes", "engines",
                             "transports", "backends", "checks", "faults", "framings"}) {
        SCOPED_TRACE(kind);
        testing::internal::CaptureStdout();
        const int code = run_list({kind, false, "-"}, {"refitbench", "list"});
        const std::string text = testing::internal::GetCapturedStdout();
        EXPECT_EQ(code, 0);
        const auto json = nlohmann::json::parse(text, nullptr, false);
        ASSERT_TRUE(json.is_object()) << text;
        EXPECT_EQ(json.at("schema"), "refitbench.list/1");
        EXPECT_EQ(json.at("tool").at("name"), "refitbench");
        EXPECT_EQ(json.at("argv").size(), 2U);
        EXPECT_FALSE(json.at("rows").empty());
        for (const auto& row : json.at("rows")) {
            EXPECT_TRUE(row.at("name").is_string());
            EXPECT_TRUE(row.at("source").is_string());
            const bool has_state = std::set<std::string>{"transports", "backends"}.count(kind) != 0;
            EXPECT_EQ(row.contains("compiled") && row.contains("viable") && row.contains("reason"),
                      has_state);
        }
    }
}

TEST(ListCommand, TextMarksWhatIsNoDataAndStartsRowsWithTheName) {
    testing::internal::CaptureStdout();
    EXPECT_EQ(run_list({"faults", false, ""}, {}), 0);
    const std::string text = testing::internal::GetCapturedStdout();
    EXPECT_EQ(text.rfind("# 22 faults\n", 0), 0U) << text;
    EXPECT_THAT(text, HasSubstr("\nkill "));
    EXPECT_THAT(text, HasSubstr("caught_by=digest"));
}

TEST(ListCommand, WrongKindsAndUnwritableFilesHaveTheirExitCodes) {
    testing::internal::CaptureStderr();
    EXPECT_EQ(run_list({"recipe", false, ""}, {}), 2);
    EXPECT_EQ(run_list({"models", false, "/no/such/folder/a.json"}, {}), 3);
    const std::string text = testing::internal::GetCapturedStderr();
    EXPECT_THAT(text, AllOf(HasSubstr("recipes"), HasSubstr("/no/such/folder")));
}

}  // namespace
}  // namespace refit::harness
