// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Which files a path stands for, and the scenarios that are shipped.
#include "harness/scenario_folders.hpp"

#include <filesystem>
#include <set>

#include "core/error.hpp"
#include "unit/harness/scenario_texts.hpp"

namespace refit::harness {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(ScenarioFiles, AFolderStandsForItsScenariosWithoutReferences) {
    const TemporaryFolder folder;
    const auto b = folder.write("b/two.yaml", "");
    const auto a = folder.write("a/one.yaml", "");
    folder.write("references/machine.yaml", "");
    folder.write("a/README.md", "");
    EXPECT_THAT(scenario_files({folder.path()}), ElementsAre(a, b));
    EXPECT_THAT(scenario_files({b, a}), ElementsAre(b, a));
    std::filesystem::create_directory(folder.path() / "empty");
    EXPECT_THROW((void)scenario_files({folder.path() / "empty"}), core::FileError);
    try {
        (void)scenario_files({folder.path() / "quickstat.yaml"});
        ADD_FAILURE() << "a file that does not exist was taken";
    } catch (const core::FileError& error) {
        EXPECT_THAT(error.what(), AllOf(HasSubstr("quickstat.yaml"), HasSubstr("quickstart.yaml")));
    }
}

TEST(ShippedScenarios, ParseAndAskOneQuestionEach) {
    const std::filesystem::path folder = std::filesystem::path(REFIT_SOURCE_DIR) / "scenarios";
    const TemporaryFolder checkpoint;
    // Figures of the published config.json of SmolLM2-135M.
    const auto config = checkpoint.write("config.json", R"({"architectures": ["LlamaForCausalLM"],
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": true})");
    std::set<std::string> planted;
    std::set<std::string> purposes;
    const auto files = scenarios_below(folder);
    EXPECT_GE(files.size(), 20U);
    for (const auto& file : files) {
        SCOPED_TRACE(file.string());
        std::ifstream in(file);
        const std::string text{std::istreambuf_iterator<char>(in),
                               std::istreambuf_iterator<char>()};
        EXPECT_EQ(text.rfind("# SPDX-FileCopyrightText", 0), 0U);
        Overrides overrides;
        if (file.stem() == "smollm2-135m") {
            overrides = {{"model.config", config.string()},
                         {"weights.path", checkpoint.path().string()}};
        }
        const Scenario scenario = parse_scenario(file, text, overrides, {});
        EXPECT_FALSE(scenario.cases.empty());
        EXPECT_EQ(scenario.purpose.back(), '?');
        EXPECT_TRUE(purposes.insert(scenario.purpose).second);
        for (const Case& one : scenario.cases) {
            for (const FaultSpec& fault : one.faults) planted.insert(fault.name);
            if (file.parent_path().filename() != "faults") continue;
            ASSERT_EQ(one.faults.size(), 1U);
            EXPECT_EQ(one.world_size(), 4);
            EXPECT_EQ(one.faults[0].name, scenario.stem);
            for (const FaultRow& row : fault_catalog()) {
                if (row.name != scenario.stem) continue;
                EXPECT_EQ(one.expect.outcome, row.caught_by == "error" ? "error" : "finding");
                EXPECT_EQ(one.expect.check, row.caught_by == "error" ? "" : row.caught_by);
            }
        }
    }
    EXPECT_EQ(planted.size(), fault_catalog().size()) << "every fault has a scenario";
}

TEST(ShippedScenarios, TheQuickStartHasThreeCasesOnFourRanks) {
    const std::filesystem::path file =
        std::filesystem::path(REFIT_SOURCE_DIR) / "scenarios/smoke/quickstart.yaml";
    std::ifstream in(file);
    const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    const Scenario scenario = parse_scenario(file, text, {}, {});
    ASSERT_EQ(scenario.cases.size(), 3U);
    for (const Case& one : scenario.cases) EXPECT_EQ(one.world_size(), 4);
    EXPECT_EQ(scenario.cases[0].scheme, "bf16");
    EXPECT_EQ(scenario.cases[1].recipe, "prime-rl-blockwise");
    EXPECT_EQ(scenario.cases[2].recipe, "modelopt-pc-pt");
    EXPECT_EQ(scenario.cases[2].algo, "FP8_PER_CHANNEL_PER_TOKEN");
    EXPECT_EQ(scenario.text, text);
}

}  // namespace
}  // namespace refit::harness
