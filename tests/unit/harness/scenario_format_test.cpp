// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Expected values are those that the interface states for the keys; none comes from the parser.
#include "harness/scenario.hpp"

#include "core/error.hpp"
#include "quant/recipe.hpp"
#include "receiver/engine_contract.hpp"
#include "unit/harness/scenario_texts.hpp"

namespace refit::harness {
namespace {

using testing::AllOf;
using testing::HasSubstr;

TEST(ScenarioFormat, DefaultRecipesFollowSchemeAndContract) {
    EXPECT_EQ(only_case(with("payload: {scheme: fp8_blockwise}\n")).recipe, "prime-rl-blockwise");
    const std::string scheme = "payload: {scheme: fp8_channelwise}\n";
    EXPECT_EQ(only_case(with(scheme), {{"receiver.engine", "vllm-compressed-tensors"}}).recipe,
              "prime-rl-channelwise");
    const Case one_d = only_case(with(scheme), {{"receiver.engine", "vllm-modelopt"}});
    EXPECT_EQ(one_d.recipe, "modelopt-pc-pt");
    EXPECT_EQ(one_d.algo, "FP8_PER_CHANNEL_PER_TOKEN");
    const Case plain = only_case(kLeast, {{"receiver.engine", "vllm-bf16"}});
    EXPECT_EQ(plain.scheme, "bf16");
    EXPECT_EQ(plain.recipe, "");
}

TEST(ScenarioFormat, AutoFollowsConfigAlgoRecipeOrEngine) {
    const Case by_config = only_case(
        "purpose: a?\nmodel: tiny-llama\nreceiver:\n  engine: vllm-fp8\n  quantization_config:\n"
        "    {quant_method: fp8, activation_scheme: dynamic, weight_block_size: [128, 128]}\n");
    EXPECT_EQ(by_config.scheme, "fp8_blockwise");
    ASSERT_TRUE(by_config.quantization_config);
    EXPECT_THAT(*by_config.quantization_config, HasSubstr("[128,128]"));
    const Case by_algo = only_case(
        kLeast, {{"receiver", "{engine: vllm-modelopt, algo: FP8_PER_CHANNEL_PER_TOKEN}"}});
    EXPECT_EQ(by_algo.scheme, "fp8_channelwise");
    EXPECT_EQ(only_case(with("payload: {recipe: nemo-rl-linear}\n")).scheme, "fp8_blockwise");
    EXPECT_NE(only_case(kLeast).scheme, "auto");
}

TEST(ScenarioFormat, ContradictionsListWhatWouldFit) {
    const std::string blockwise =
        "payload: {scheme: fp8_blockwise, recipe: prime-rl-channelwise}\n";
    EXPECT_THAT(error_of(with(blockwise)),
                AllOf(HasSubstr("recipe of fp8_channelwise"), HasSubstr("prime-rl-blockwise"),
                      HasSubstr("nemo-rl-linear")));
    EXPECT_THAT(error_of(with("payload: {scheme: bf16, recipe: tensorwise}\n"),
                         {{"receiver.engine", "vllm-bf16"}}),
                HasSubstr("takes no recipe"));
    EXPECT_THAT(
        error_of(with("payload: {scheme: fp8_channelwise}\n")),
        AllOf(HasSubstr("has no scheme 'fp8_channelwise'"), HasSubstr("vllm-compressed-tensors")));
    EXPECT_THAT(error_of(with("payload: {recipe: nemo-linear}\n")), HasSubstr("nemo-rl-linear"));
    EXPECT_THAT(error_of(with("payload: {scheme: fp8_blokwise}\n")), HasSubstr("fp8_blockwise"));
    EXPECT_THAT(error_of(kLeast, {{"receiver.engine", "vllm-fp9"}}), HasSubstr("vllm-fp8"));
    EXPECT_THAT(error_of(kLeast, {{"receiver.algo", "FP8_PB_WO"}}), HasSubstr("receiver.algo"));
    EXPECT_THAT(
        error_of(with("payload: {scheme: fp8_blockwise}\n"),
                 {{"receiver", "{engine: vllm-modelopt, algo: FP8_PER_CHANNEL_PER_TOKEN}"}}),
        testing::AnyOf(HasSubstr("algo"), HasSubstr("FP8_PER_CHANNEL_PER_TOKEN")));
}

TEST(ScenarioFormat, AQuantizationConfigOfAnotherSchemeIsRefusedWhetherInlineOrInAFile) {
    const std::string inline_config =
        "{engine: vllm-compressed-tensors, quantization_config: {quant_method: fp8, "
        "activation_scheme: dynamic}}";
    EXPECT_THAT(error_of(kLeast, {{"receiver", inline_config}}), HasSubstr("--set 'receiver="));
    const TemporaryFolder folder;
    const std::string config =
        R"({"quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}})";
    folder.write("config.json", config);
    folder.write("broken.json", "[1]");
    const std::string text =
        "purpose: a?\nmodel: tiny-llama\nreceiver: {engine: vllm-fp8, quantization_config: "
        "config.json}\n"
        "payload: {scheme: fp8_tensorwise}\n";
    const auto file = folder.write("a.yaml", text);
    try {
        (void)parse_scenario(file, text, {}, {});
        ADD_FAILURE() << "a contradiction was taken";
    } catch (const core::ScenarioError& error) {
        EXPECT_THAT(error.what(), AllOf(HasSubstr("a.yaml:3"), HasSubstr("fp8_blockwise"),
                                        HasSubstr("fp8_tensorwise")));
    }
    const Scenario agreed = parse_scenario(file, text, {{"payload.scheme", "fp8_blockwise"}}, {});
    EXPECT_EQ(agreed.cases.at(0).scheme, "fp8_blockwise");
    EXPECT_THROW(
        (void)parse_scenario(file, text, {{"receiver.quantization_config", "absent.json"}}, {}),
        core::FileError);
    EXPECT_THROW(
        (void)parse_scenario(
            file, text,
            {{"receiver.quantization_config", (folder.path() / "broken.json").string()}}, {}),
        core::FileError);
}

}  // namespace
}  // namespace refit::harness
