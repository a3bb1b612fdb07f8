// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Skip lists and targets, by each engine's own rule. What fused layers make of a list that names
// only some of their parts was seen in the engines' own loaders.
#include "receiver/skip_rules.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "unit/receiver/refit_fixture.hpp"

namespace refit::receiver_test {
namespace {

using receiver::SkipAnswer;
using receiver::SkipQuestion;
using receiver::SkipRules;

const SkipQuestion kQkv = {"model.layers.1.self_attn.qkv_proj",
                           {"model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.k_proj",
                            "model.layers.1.self_attn.v_proj"},
                           "QKVParallelLinear"};
const SkipQuestion kDown = {
    "model.layers.1.mlp.down_proj", {"model.layers.1.mlp.down_proj"}, "RowParallelLinear"};
const SkipQuestion kGateUp = {"model.layers.1.mlp.gate_up_proj",
                              {"model.layers.1.mlp.gate_proj", "model.layers.1.mlp.up_proj"},
                              "MergedColumnParallelLinear"};

SkipRules rules(const std::string& engine, const std::vector<std::string>& list,
                const std::vector<std::string>& targets = {}) {
    receiver::QuantizationConfig config;
    config.skip_list = list;
    config.targets = targets;
    if (engine.find("compressed") != std::string::npos) config.quant_method = "compressed-tensors";
    return {receiver::find_engine(engine), config};
}

/// "skipped", "quantized", or what the engine does with a list that it cannot follow.
std::string answer(const std::string& engine, const std::vector<std::string>& list,
                   const SkipQuestion& question, const std::vector<std::string>& targets = {}) {
    const SkipAnswer result = rules(engine, list, targets).ask(question);
    if (!result.behaviour.empty()) return result.behaviour;
    return result.skipped ? "skipped" : "quantized";
}

TEST(SkipRules, VllmComparesWholePaths) {
    EXPECT_EQ(answer("vllm-fp8", {"model.layers.1.mlp.down_proj"}, kDown), "skipped");
    EXPECT_EQ(answer("vllm-fp8", {"down_proj", "layers.1", "model.layers.1"}, kDown), "quantized");
    EXPECT_EQ(answer("vllm-fp8", kQkv.parts, kQkv), "skipped");
    EXPECT_EQ(answer("vllm-fp8", {kQkv.module}, kQkv), "skipped");
    EXPECT_EQ(answer("vllm-fp8", {kQkv.parts[1]}, kQkv), "raises");
    EXPECT_THAT(rules("vllm-fp8", {kQkv.parts[1]}).ask(kQkv).engine_message,
                testing::HasSubstr("Detected some but not all shards of model.layers.1"));
}

TEST(SkipRules, SglangFindsWholeComponentsAnywhere) {
    for (const char* entry : {"model.layers.1.mlp.down_proj", "layers.1.mlp.down_proj", "mlp",
                              "model.layers.1", "down_proj", "mlp.down_proj"}) {
        EXPECT_EQ(answer("sglang-fp8", {entry}, kDown), "skipped") << entry;
    }
    for (const char* entry : {"own_proj", "layers.11", "model.layers.1.mlp.down", "mlp.gate", ""}) {
        EXPECT_EQ(answer("sglang-fp8", {entry}, kDown), "quantized") << entry;
    }
    EXPECT_EQ(answer("sglang-fp8", {"q_proj"}, kQkv), "raises");
    EXPECT_EQ(answer("sglang-fp8", {"self_attn"}, kQkv), "skipped");
    EXPECT_EQ(answer("sglang-fp8", kQkv.parts, kQkv), "skipped");
}

TEST(SkipRules, TransformersMatchesAPatternFromTheStartOrASuffix) {
    const auto of = [](const std::string& entry) {
        return answer("transformers-fp8", {entry}, kDown);
    };
    EXPECT_EQ(of("model.layers.1.mlp.down_proj"), "skipped");
    EXPECT_EQ(of("down_proj"), "skipped");
    EXPECT_EQ(of("model.layers.1"), "skipped");
    // A prefix is no path: layer 1 is the start of layers 10 to 19.
    EXPECT_EQ(answer("transformers-fp8", {"model.layers.1"},
                     {"model.layers.17.mlp.up_proj", {"model.layers.17.mlp.up_proj"}, ""}),
              "skipped");
    EXPECT_EQ(of("model.layers.[01].*down"), "skipped");
    EXPECT_EQ(of("layers.1"), "quantized");
    EXPECT_EQ(of("mlp.gate"), "quantized");
    EXPECT_THROW((void)rules("transformers-fp8", {"model.(layers"}), core::ScenarioError);
}

TEST(SkipRules, CompressedTensorsExpandsAFusedLayerInVllm) {
    const std::string engine = "vllm-compressed-tensors";
    EXPECT_EQ(answer(engine, kQkv.parts, kQkv), "skipped");
    EXPECT_EQ(answer(engine, {"re:.*self_attn\\.[qkv]_proj"}, kQkv), "skipped");
    EXPECT_EQ(answer(engine, {"re:.*q_proj"}, kQkv), "raises");
    EXPECT_THAT(rules(engine, {"re:.*q_proj"}).ask(kQkv).engine_message,
                testing::HasSubstr("different quantization schemes for ['q_proj', 'k_proj', "
                                   "'v_proj'] in model.layers.1.self_attn.qkv_proj"));
    EXPECT_EQ(answer(engine, {"down_proj"}, kDown), "quantized");
    EXPECT_EQ(answer(engine, {"re:down_proj"}, kDown), "quantized");
    EXPECT_EQ(answer(engine, {"re:(?i).*DOWN_proj"}, kDown), "skipped");
    EXPECT_EQ(answer(engine, {"re:.*DOWN_proj"}, kDown), "quantized");
    EXPECT_EQ(answer(engine, {"re:.*mlp\\.gate$", "lm_head"}, kGateUp), "quantized");
}

TEST(SkipRules, CompressedTensorsLooksAtTheFusedLayerAloneInSglang) {
    const std::string engine = "sglang-compressed-tensors";
    EXPECT_EQ(answer(engine, {kQkv.parts[0]}, kQkv), "silently_wrong");
    EXPECT_EQ(answer(engine, kQkv.parts, kQkv), "silently_wrong");
    EXPECT_EQ(answer(engine, {kQkv.module}, kQkv), "skipped");
    EXPECT_EQ(answer(engine, {"re:.*self_attn"}, kQkv), "skipped");
    // An entry may be the end of the path, but neither its beginning nor a part of a name.
    EXPECT_EQ(answer(engine, {"self_attn.qkv_proj"}, kQkv), "skipped");
    EXPECT_EQ(answer(engine, {"attn.qkv_proj"}, kQkv), "quantized");
    EXPECT_EQ(answer(engine, {"model.layers.1"}, kQkv), "quantized");
    EXPECT_EQ(answer(engine, {"model.layers.1.mlp.gate"}, kGateUp), "quantized");
    EXPECT_EQ(answer(engine, {"model.layers.1.mlp.down_proj"}, kDown), "skipped");
    EXPECT_EQ(answer(engine, {"lm_head"}, kDown), "quantized");
}

TEST(SkipRules, SglangKnowsThePartsThatItsModelClassNames) {
    const std::string engine = "sglang-compressed-tensors";
    SkipQuestion known = kQkv;
    known.parts_known = true;
    EXPECT_EQ(answer(engine, kQkv.parts, known), "skipped");
    EXPECT_EQ(answer(engine, {"re:.*[qkv]_proj"}, known), "skipped");
    EXPECT_EQ(answer(engine, {"q_proj", "k_proj", "v_proj"}, known), "skipped");
    EXPECT_EQ(answer(engine, {kQkv.module}, known), "skipped");
    EXPECT_EQ(answer(engine, {kQkv.parts[0]}, known), "raises");
    EXPECT_THAT(rules(engine, {kQkv.parts[0]}).ask(known).engine_message,
                testing::HasSubstr("SGLang requires all to use the same scheme"));
    // The class comes before the parts.
    EXPECT_EQ(answer(engine, {}, known, kQkv.parts), "quantized");
    EXPECT_EQ(answer(engine, {}, known, {kQkv.parts[0]}), "raises");
}

TEST(SkipRules, ModelOptTakesShellPatternsAndPartsOfThePath) {
    const std::string engine = "vllm-modelopt";
    EXPECT_EQ(answer(engine, {"model.layers.1.self_attn*"}, kQkv), "skipped");
    EXPECT_EQ(answer(engine, {"*.mlp.*"}, kDown), "skipped");
    EXPECT_EQ(answer(engine, {"*.mlp.?own_proj"}, kDown), "skipped");
    EXPECT_EQ(answer(engine, {"mlp.down_proj"}, kDown), "skipped");
    EXPECT_EQ(answer(engine, {"lm_head", "*router*"}, kDown), "quantized");
    EXPECT_EQ(answer(engine, {kQkv.parts[0]}, kQkv), "raises");
}

TEST(SkipRules, TargetsAreClassesPathsOrPatterns) {
    const std::string engine = "vllm-compressed-tensors";
    EXPECT_EQ(answer(engine, {}, kQkv, {"re:.*self_attn.*"}), "quantized");
    EXPECT_EQ(answer(engine, {}, kDown, {"re:.*self_attn.*"}), "skipped");
    EXPECT_EQ(answer(engine, {}, kDown, {"RowParallelLinear"}), "quantized");
    EXPECT_EQ(answer(engine, {}, kQkv, {"RowParallelLinear"}), "skipped");
    EXPECT_EQ(answer(engine, {}, kQkv, kQkv.parts), "quantized");
    EXPECT_EQ(answer(engine, {}, kQkv, {kQkv.parts[0]}), "skipped");
    // SGLang knows no parts, and builds no layer that none of the targets names.
    EXPECT_EQ(answer("sglang-compressed-tensors", {}, kQkv, kQkv.parts), "raises");
    EXPECT_THAT(
        rules("sglang-compressed-tensors", {}, kQkv.parts).ask(kQkv).engine_message,
        testing::HasSubstr("Unable to find matching target for model.layers.1.self_attn.qkv"));
    EXPECT_EQ(answer("sglang-compressed-tensors", {kQkv.module}, kQkv, kQkv.parts), "skipped");
    EXPECT_EQ(answer("sglang-compressed-tensors", {}, kQkv, {kQkv.module}), "quantized");
}

TEST(SkipRules, ExpertsFollowTheirStack) {
    const std::string stack = "model.layers.0.mlp.experts";
    const auto of = [&](const std::string& engine, const std::vector<std::string>& list) {
        const SkipAnswer result = rules(engine, list).ask_experts(stack);
        return !result.behaviour.empty() ? result.behaviour
                                         : std::string(result.skipped ? "skipped" : "quantized");
    };
    EXPECT_EQ(of("vllm-fp8", {stack + ".1.up_proj"}), "skipped");
    EXPECT_EQ(of("vllm-fp8", {"model.layers.0.mlp"}), "quantized");
    // modal-projects/sglang 504eed5f, quantization/utils.py: the stack's own name is looked for in
    // the entries too, after "model." was put before those that have none.
    EXPECT_EQ(of("sglang-fp8", {stack + ".1.up_proj"}), "skipped");
    EXPECT_EQ(of("sglang-fp8", {"layers.0.mlp.experts.1.up_proj"}), "skipped");
    EXPECT_EQ(of("sglang-fp8", {"model.layers.10.mlp.experts.1.up_proj"}), "quantized");
    EXPECT_EQ(of("sglang-fp8", {"model.layers.0.mlp.gate"}), "quantized");
    EXPECT_EQ(of("sglang-fp8", {"model.layers.0.mlp"}), "skipped");
    EXPECT_EQ(of("transformers-fp8", {"model.layers.0.mlp"}), "skipped");
    EXPECT_EQ(of("vllm-compressed-tensors", {"re:.*experts.*"}), "skipped");
    // The first expert answers for all.
    EXPECT_EQ(of("vllm-compressed-tensors", {"re:.*experts\\.1\\."}), "quantized");
    EXPECT_EQ(of("vllm-compressed-tensors", {"re:.*experts\\.0\\."}), "skipped");
    EXPECT_EQ(of("vllm-compressed-tensors", {"re:.*experts\\.0\\.up"}), "raises");
    EXPECT_EQ(of("vllm-modelopt", {stack + ".1.up_proj"}), "skipped");
    EXPECT_EQ(of("vllm-modelopt", {"*.mlp.experts*"}), "skipped");
    EXPECT_EQ(of("vllm-modelopt", {"*.mlp.gate"}), "quantized");
    EXPECT_EQ(of("sglang-compressed-tensors", {"re:.*experts"}), "skipped");
    EXPECT_EQ(of("vllm-compressed-tensors", {}), "quantized");
}

/// The scheme that a layer gets from targets of a scheme each, or what else becomes of it.
std::string scheme_for(const std::string& engine, const SkipQuestion& question,
                       const std::vector<std::pair<std::string, quant::Scheme>>& targets) {
    receiver::QuantizationConfig config;
    config.quant_method = "compressed-tensors";
    config.scheme = quant::Scheme::fp8_tensorwise;
    for (const auto& [target, scheme] : targets) {
        config.mixed.push_back({target, {.scheme = scheme}});
    }
    const SkipAnswer result = SkipRules(receiver::find_engine(engine), config).ask(question);
    if (!result.behaviour.empty()) return result.behaviour;
    return result.skipped ? "skipped" : std::string(quant::scheme_name(result.format.scheme));
}

// compressed_tensors/utils.py, find_matched_target, of both engines.
TEST(SkipRules, FormatsAreThoseOfTheTargetThatTheEngineFindsFirst) {
    const auto block = quant::Scheme::fp8_blockwise;
    const auto channel = quant::Scheme::fp8_channelwise;
    const std::string vllm = "vllm-compressed-tensors";
    const std::string sglang = "sglang-compressed-tensors";
    for (const std::string& engine : {vllm, sglang}) {
        // A path or pattern of the layer comes before the class, wherever it stands.
        EXPECT_EQ(scheme_for(engine, kDown, {{"Linear", block}, {"re:.*mlp.*", channel}}),
                  "fp8_channelwise");
        EXPECT_EQ(scheme_for(engine, kQkv, {{"Linear", block}, {"re:.*mlp.*", channel}}),
                  "fp8_blockwise");
        EXPECT_EQ(scheme_for(engine, kDown, {{"re:.*down.*", block}, {"re:.*mlp.*", channel}}),
                  "fp8_blockwise");
        EXPECT_EQ(scheme_for(engine, kQkv, {{"QKVParallel", block}, {"linear", channel}}),
                  "fp8_blockwise");
    }
    // Parts of a fused layer come before its class where the engine knows them; of parts in two
    // groups the first counts.
    const std::vector<std::pair<std::string, quant::Scheme>> parts = {
        {"Linear", block}, {R"(re:.*\.[kv]_proj)", block}, {R"(re:.*\.q_proj)", channel}};
    EXPECT_EQ(scheme_for(vllm, kQkv, parts), "fp8_channelwise");
    EXPECT_EQ(scheme_for(sglang, kQkv, parts), "fp8_blockwise");
    // The path of the fused layer is a match of its own.
    EXPECT_EQ(scheme_for(vllm, kQkv, {{R"(re:.*\.q_proj)", channel}, {"re:.*[kv]_proj", block}}),
              "fp8_blockwise");
    EXPECT_EQ(scheme_for(vllm, kQkv, {{"Linear", block}, {"re:.*q_proj", channel}}),
              "fp8_blockwise");
    EXPECT_EQ(scheme_for(vllm, kDown, {{"re:.*q_proj", channel}}), "skipped");
    EXPECT_EQ(scheme_for(sglang, kDown, {{"re:.*q_proj", channel}}), "raises");
}

}  // namespace
}  // namespace refit::receiver_test
