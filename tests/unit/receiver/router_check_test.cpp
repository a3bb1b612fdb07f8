// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Routers and heads on the skip list and not, as the engines' own loaders took them.
#include "receiver/router_check.hpp"

#include <gtest/gtest.h>

#include "receiver/quantization_config.hpp"

namespace refit::receiver_test {
namespace {

model::ModelConfig two_layers(model::Architecture architecture) {
    model::ModelConfig model;
    model.architecture = architecture;
    model.hidden = 256;
    model.intermediate = 512;
    model.layers = 2;
    model.heads = 4;
    model.kv_heads = 2;
    model.head_dim = 64;
    model.vocabulary = 512;
    if (architecture == model::Architecture::qwen3_moe) {
        model.experts = 4;
        model.moe_intermediate = 256;
    }
    return model;
}

/// The routers that the engine would quantize.
std::vector<std::string> found(const std::string& engine, const std::vector<std::string>& list,
                               model::Architecture architecture = model::Architecture::qwen3_moe,
                               quant::Scheme scheme = quant::Scheme::fp8_blockwise) {
    receiver::QuantizationConfig config;
    config.scheme = scheme;
    config.skip_list = list;
    std::vector<std::string> names;
    for (const core::Finding& finding : receiver::unlisted_routers(
             receiver::find_engine(engine), two_layers(architecture), config)) {
        EXPECT_EQ(finding.severity, core::Severity::error);
        names.push_back(finding.tensor);
    }
    return names;
}

const std::vector<std::string> kBoth = {"model.layers.0.mlp.gate.weight",
                                        "model.layers.1.mlp.gate.weight"};

TEST(RouterCheck, VllmQuantizesEachRouterThatTheListDoesNotName) {
    EXPECT_EQ(found("vllm-fp8", {}), kBoth);
    EXPECT_EQ(found("vllm-fp8", {"lm_head", "model.layers.0.mlp.gate"}),
              std::vector<std::string>{kBoth[1]});
    EXPECT_EQ(found("vllm-compressed-tensors", {"lm_head"}), kBoth);
}

TEST(RouterCheck, AListThatNamesEveryRouterByTheEnginesRuleIsEnough) {
    EXPECT_TRUE(found("vllm-fp8", {"model.layers.0.mlp.gate", "model.layers.1.mlp.gate"}).empty());
    EXPECT_TRUE(found("vllm-compressed-tensors", {"re:.*mlp.gate$"}).empty());
    EXPECT_EQ(found("vllm-fp8", {"re:.*mlp.gate$"}), kBoth);
}

TEST(RouterCheck, OtherEnginesAndFamiliesKeepTheirRoutersAsTheyAre) {
    EXPECT_TRUE(found("sglang-fp8", {}).empty());
    EXPECT_TRUE(found("transformers-fp8", {}).empty());
    EXPECT_TRUE(found("vllm-fp8", {}, model::Architecture::qwen3).empty());
    EXPECT_TRUE(found("vllm-fp8", {}, model::Architecture::qwen3_moe, quant::Scheme::bf16).empty());
}

/// What is said of the head with this skip list.
core::Findings head(const std::string& engine, const std::vector<std::string>& list,
                    bool stored = true) {
    receiver::QuantizationConfig config;
    config.scheme = quant::Scheme::fp8_channelwise;
    config.quant_method = "modelopt";
    config.skip_list = list;
    return receiver::unlisted_head(receiver::find_engine(engine), config, stored);
}

TEST(RouterCheck, ModeloptInVllmQuantizesAHeadThatTheListDoesNotName) {
    ASSERT_EQ(head("vllm-modelopt", {}).size(), 1U);
    EXPECT_EQ(head("vllm-modelopt", {})[0].severity, core::Severity::error);
    EXPECT_EQ(head("vllm-modelopt", {"model.layers.0*"})[0].tensor, "lm_head.weight");
    // A tied head is built and tied: what becomes of it was not run.
    EXPECT_EQ(head("vllm-modelopt", {}, false)[0].severity, core::Severity::warning);
}

TEST(RouterCheck, AListedHeadAndTheHeadsOfOtherEnginesStayAsTheyAre) {
    for (const char* entry : {"lm_head", "lm_head*", "*lm_head*"}) {
        EXPECT_TRUE(head("vllm-modelopt", {entry}).empty()) << entry;
    }
    for (const char* engine : {"vllm-fp8", "vllm-compressed-tensors", "sglang-fp8", "trtllm-fp8"}) {
        EXPECT_TRUE(head(engine, {}).empty()) << engine;
    }
}

}  // namespace
}  // namespace refit::receiver_test
