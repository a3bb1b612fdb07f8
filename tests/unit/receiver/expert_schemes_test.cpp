// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Strategies of weights and activations in models with experts, as the engines' own classes took
// them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "unit/receiver/refit_fixture.hpp"

namespace refit::receiver_test {
namespace {

using testing::HasSubstr;

const std::string kToken =
    R"(, "input_activations": {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": true})";
const std::string kTensor =
    R"(, "input_activations": {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": true})";
const std::string kSilent =
    R"(, "input_activations": {"num_bits": 8, "type": "float", "dynamic": true})";

/// What the engine says of the experts of tiny-mla; "" where it takes them.
std::string said(const std::string& engine, const std::string& weights, const std::string& inputs,
                 const std::string& ignore = "", const std::string& model = "tiny-mla") {
    const std::string blocks =
        weights == "block" ? R"(, "block_structure": [128, 128])" : std::string();
    const std::string json =
        R"({"quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head")" +
        ignore +
        R"(], "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 8, )"
        R"("type": "float", "symmetric": true, "strategy": ")" +
        weights + "\"" + blocks + "}" + inputs + "}}}";
    const auto reading = receiver::read_quantization_config(engine, json);
    EXPECT_TRUE(reading.usable) << json;
    const auto& contract = receiver::find_engine(engine);
    const auto instance = receiver::apply_contract(contract, named_model(model), reading.config, 1);
    for (const core::Finding& finding : instance.refusals) {
        if (finding.tensor.find(".mlp.experts.") == std::string::npos) continue;
        EXPECT_EQ(finding.severity, core::Severity::error);
        EXPECT_EQ(finding.engine_behaviour, "raises");
        return finding.engine_message;
    }
    return "";
}

TEST(ExpertSchemes, WeightsAndActivationsHaveToGoTogether) {
    for (const char* engine : {"vllm-compressed-tensors", "sglang-compressed-tensors"}) {
        EXPECT_EQ(said(engine, "tensor", kTensor), "") << engine;
        EXPECT_EQ(said(engine, "tensor", kSilent), "") << engine;
        EXPECT_EQ(said(engine, "channel", kToken), "") << engine;
        EXPECT_EQ(said(engine, "block", kToken), "") << engine;
        EXPECT_EQ(said(engine, "block", kTensor), "") << engine;
        EXPECT_EQ(said(engine, "tensor", kToken), "AssertionError") << engine;
        EXPECT_EQ(said(engine, "channel", kTensor), "AssertionError") << engine;
        EXPECT_EQ(said(engine, "channel", kSilent), "AssertionError") << engine;
    }
}

TEST(ExpertSchemes, WeightsAloneAreRefused) {
    EXPECT_THAT(said("vllm-compressed-tensors", "channel", ""),
                HasSubstr("ValueError: For Fused MoE layers, only format: pack-quantized"));
    EXPECT_THAT(said("sglang-compressed-tensors", "channel", ""), HasSubstr("AttributeError"));
}

TEST(ExpertSchemes, EveryDefaultConfigFitsWhereAnEngineHoldsExpertsAsTheConfigSays) {
    for (const auto& contract : receiver::engine_catalog()) {
        if (contract.layout.expert_format != receiver::ExpertFormat::as_config) continue;
        for (const quant::Scheme scheme : contract.schemes) {
            const auto instance = instance_of(contract.name, scheme, named_model("tiny-mla"), 1);
            EXPECT_FALSE(core::has_error(instance.refusals))
                << contract.name << " " << quant::scheme_name(scheme);
        }
    }
}

TEST(ExpertSchemes, DenseModelsAndExpertsOnTheIgnoreListAreFine) {
    EXPECT_EQ(said("vllm-compressed-tensors", "tensor", kToken, "", "tiny-llama"), "");
    EXPECT_EQ(said("vllm-compressed-tensors", "tensor", kToken, R"(, "re:.*mlp.experts.*")"), "");
}

TEST(ExpertSchemes, OnlyTheGroupOfTheExpertsCounts) {
    const auto with = [](const std::string& dense, const std::string& experts) {
        const std::string weights =
            R"({"num_bits": 8, "type": "float", "symmetric": true, "strategy": "channel"})";
        const std::string json =
            R"({"quant_method": "compressed-tensors", "format": "float-quantized", "ignore": [],)"
            R"("config_groups": {"a": {"targets": ["Linear"], "weights": )" +
            weights + dense + R"(}, "b": {"targets": ["re:.*mlp.experts.*"], "weights": )" +
            weights + experts + "}}}";
        return instance_with("vllm-compressed-tensors", json, named_model("tiny-moe"), 1).refusals;
    };
    EXPECT_FALSE(core::has_error(with(kTensor, kToken)));
    const core::Findings refused = with(kToken, kTensor);
    ASSERT_EQ(refused.size(), 2U);  // one a layer
    EXPECT_EQ(refused[0].tensor, "model.layers.0.mlp.experts.0.gate_proj.weight");
    EXPECT_EQ(refused[0].engine_message, "AssertionError");
}

}  // namespace
}  // namespace refit::receiver_test
