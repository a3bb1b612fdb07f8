// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Experts and latent attention: what is refused, in whose words, and how published sizes come out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "core/error.hpp"
#include "model/model_catalog.hpp"
#include "receiver/contract_check.hpp"
#include "unit/receiver/refit_fixture.hpp"

namespace refit::receiver_test {
namespace {

using quant::Scheme;
using testing::HasSubstr;

model::ModelConfig published(const std::string& name, std::int64_t layers) {
    return model::slice_layers(model::find_model(name).config, layers);
}

const receiver::DestinationParameter* destination(const receiver::ContractInstance& instance,
                                                  const std::string& name) {
    for (const auto& dest : instance.destinations) {
        if (dest.name == name) return &dest;
    }
    return nullptr;
}

std::string refused(const std::function<void()>& call) {
    try {
        call();
    } catch (const core::ScenarioError& error) {
        return error.what();
    }
    return {};
}

TEST(ExpertContract, StacksThePublishedSizesAsTheEngineDoes) {
    const auto instance =
        instance_of("vllm-fp8", Scheme::fp8_blockwise, published("qwen3-30b-a3b", 1), 2);
    EXPECT_TRUE(instance.refusals.empty());
    const std::string stack = "model.layers.0.mlp.experts.routed_experts.";
    // 768 rows of an expert, 384 a rank, hidden size 2048.
    const std::map<std::string, core::Shape> shapes = {{"w13_weight", {128, 768, 2048}},
                                                       {"w13_weight_scale_inv", {128, 6, 16}},
                                                       {"w2_weight", {128, 2048, 384}},
                                                       {"w2_weight_scale_inv", {128, 16, 3}}};
    for (const auto& [name, shape] : shapes) {
        const auto* dest = destination(instance, stack + name);
        ASSERT_NE(dest, nullptr) << name;
        EXPECT_EQ(dest->shape, shape) << name;
    }
}

TEST(ExpertContract, WantsAsManyTensorsAsPublishedCheckpointsHold) {
    // BF16 tensors and quantized ones, counted from the published figures apart from this code.
    const std::map<std::string, std::size_t> counts = {{"qwen3-30b-a3b", 18867 + 18624},
                                                       {"qwen3-235b-a22b", 36945 + 36472},
                                                       {"deepseek-v3", 46183 + 45808},
                                                       {"kimi-k2", 69975 + 69608}};
    for (const auto& [name, count] : counts) {
        const auto instance =
            instance_of("vllm-fp8", Scheme::fp8_blockwise, model::find_model(name).config, 2, 2);
        EXPECT_EQ(instance.wanted.size(), count) << name;
        EXPECT_TRUE(instance.refusals.empty()) << name;
    }
}

TEST(ExpertContract, IsOneMatrixBelowTheOther) {
    receiver::DestinationParameter stack;
    stack.shape = {8, 192, 256};
    EXPECT_EQ(stack.rows(), 8 * 192);
    EXPECT_EQ(stack.cols(), 256);
    // 192 rows are two rows of blocks; the second expert's begin anew.
    EXPECT_EQ(stack.block_row(127), 0);
    EXPECT_EQ(stack.block_row(191), 1);
    EXPECT_EQ(stack.block_row(192), 2);
    EXPECT_EQ(stack.block_row(192 + 128), 3);
    stack.shape = {3, 1, 5, 1};
    EXPECT_EQ(stack.rows(), 3);
    EXPECT_EQ(stack.cols(), 5);
}

TEST(ExpertContract, GateAndUpOfOneExpertShareAGroupAndNoOtherDoes) {
    const auto instance =
        instance_of("vllm-fp8", Scheme::fp8_blockwise, named_model("tiny-moe"), 2);
    std::map<std::string, std::set<std::string>> groups;
    for (const wire::WantedParameter& wanted : instance.wanted) {
        if (wanted.name.find(".mlp.experts.") == std::string::npos) continue;
        const bool down = wanted.name.find(".down_proj.") != std::string::npos;
        EXPECT_EQ(wanted.fuse_group.empty(), down) << wanted.name;
        if (!down) groups[wanted.fuse_group].insert(wanted.name);
    }
    EXPECT_EQ(groups.size(), 16U);  // 8 experts of 2 layers
    for (const auto& [group, names] : groups) {
        const std::string expert = group.substr(0, group.rfind('.'));
        EXPECT_EQ(names, (std::set<std::string>{
                             expert + ".gate_proj.weight", expert + ".gate_proj.weight_scale_inv",
                             expert + ".up_proj.weight", expert + ".up_proj.weight_scale_inv"}));
    }
}

TEST(ExpertContract, LatentPartsOfOneFusedLayerShareAGroup) {
    const auto instance =
        instance_of("vllm-fp8", Scheme::fp8_blockwise, named_model("tiny-mla"), 2);
    std::set<std::string> names;
    for (const wire::WantedParameter& wanted : instance.wanted) {
        if (wanted.fuse_group == "model.layers.2.self_attn.fused_qkv_a_proj") {
            names.insert(wanted.name);
        }
    }
    EXPECT_EQ(names.size(), 4U);
    EXPECT_EQ(names.count("model.layers.2.self_attn.kv_a_proj_with_mqa.weight_scale_inv"), 1U);
}

TEST(ExpertContract, RouterBiasIsF32AndComesInEveryModelType) {
    const auto instance =
        instance_of("vllm-fp8", Scheme::fp8_blockwise, named_model("tiny-mla"), 1);
    const std::string name = "model.layers.1.mlp.gate.e_score_correction_bias";
    const auto* dest = destination(instance, name);
    ASSERT_NE(dest, nullptr);
    EXPECT_EQ(dest->dtype, core::DType::f32);
    EXPECT_FALSE(dest->is_scale);
    const auto wanted =
        std::find_if(instance.wanted.begin(), instance.wanted.end(),
                     [&](const wire::WantedParameter& one) { return one.name == name; });
    ASSERT_NE(wanted, instance.wanted.end());
    EXPECT_THAT(wanted->dtypes, testing::UnorderedElementsAre(core::DType::bf16, core::DType::f32,
                                                              core::DType::f16));
    EXPECT_EQ(destination(instance, "model.layers.1.mlp.gate.weight")->dtype, core::DType::bf16);
}

TEST(LatentContract, RaggedLastPartHasItsOwnScaleRows) {
    const auto instance =
        instance_of("vllm-fp8", Scheme::fp8_blockwise, published("deepseek-v3", 1), 16);
    EXPECT_TRUE(instance.refusals.empty());
    const std::string fused = "model.layers.0.self_attn.fused_qkv_a_proj.";
    // 1536 + 576 rows: 12 rows of blocks and 5, the last of them half full.
    EXPECT_EQ(destination(instance, fused + "weight")->shape, (core::Shape{2112, 7168}));
    EXPECT_EQ(destination(instance, fused + "weight_scale_inv")->shape, (core::Shape{17, 56}));
    for (const auto& spans : instance.spans) {
        const auto span = std::find_if(spans.begin(), spans.end(), [&](const auto& one) {
            return instance.wanted[one.wanted].name ==
                   "model.layers.0.self_attn.kv_a_proj_with_mqa.weight_scale_inv";
        });
        ASSERT_NE(span, spans.end());
        EXPECT_EQ(span->dest_row, 12);
        EXPECT_EQ(span->source, (core::Region{0, 0, 5, 56}));
    }
}

TEST(LatentContract, ARaggedPartThatIsNotTheLastIsWrong) {
    model::ModelConfig model = named_model("tiny-mla");
    model.q_lora_rank = 192;
    const auto instance = instance_of("vllm-fp8", Scheme::fp8_blockwise, model, 1);
    ASSERT_FALSE(instance.refusals.empty());
    // Two rows of scales each, three in the fused layer of 384 rows.
    EXPECT_THAT(instance.refusals[0].tensor, HasSubstr("self_attn.kv_a_proj_with_mqa"));
    EXPECT_THAT(instance.refusals[0].engine_message,
                HasSubstr("start (2) + length (2) exceeds dimension size (3)."));
}

TEST(LatentContract, WithoutALowRankQueryThereIsNoFusedLayer) {
    model::ModelConfig model = named_model("tiny-mla");
    model.q_lora_rank = 0;
    const auto instance = instance_of("vllm-fp8", Scheme::fp8_blockwise, model, 2);
    EXPECT_TRUE(instance.refusals.empty());
    const std::string attention = "model.layers.0.self_attn.";
    // 8 heads of 128 + 64, half of them on each rank; kv_a_proj whole, its 192 rows ragged.
    EXPECT_EQ(destination(instance, attention + "q_proj.weight")->shape, (core::Shape{768, 256}));
    EXPECT_EQ(destination(instance, attention + "kv_a_proj_with_mqa.weight")->shape,
              (core::Shape{192, 256}));
    EXPECT_EQ(destination(instance, attention + "kv_a_proj_with_mqa.weight_scale_inv")->shape,
              (core::Shape{2, 2}));
    EXPECT_EQ(destination(instance, attention + "fused_qkv_a_proj.weight"), nullptr);
}

TEST(LatentContract, KnowsTheMtpLayer) {
    const auto instance =
        instance_of("vllm-fp8", Scheme::fp8_blockwise, named_model("tiny-mla"), 2);
    const std::string mtp = "model.layers.2.";
    EXPECT_EQ(destination(instance, mtp + "eh_proj.weight")->dtype, core::DType::bf16);
    EXPECT_EQ(destination(instance, mtp + "eh_proj.weight")->shape, (core::Shape{256, 512}));
    EXPECT_EQ(destination(instance, mtp + "eh_proj.weight_scale_inv"), nullptr);
    EXPECT_EQ(destination(instance, mtp + "shared_head.head.weight")->shape,
              (core::Shape{256, 256}));
    EXPECT_NE(destination(instance, mtp + "enorm.weight"), nullptr);
    EXPECT_NE(destination(instance, mtp + "mlp.experts.routed_experts.w13_weight"), nullptr);
}

// Expert parallel
// -------------------------------------------------------------------------------------------------

TEST(ExpertParallel, KeepsWholeExpertsInOrderWhereTpCutsABlock) {
    const model::ModelConfig model = published("qwen3-30b-a3b", 1);
    EXPECT_FALSE(instance_of("vllm-fp8", Scheme::fp8_blockwise, model, 4).refusals.empty());
    const auto instance = instance_of("vllm-fp8", Scheme::fp8_blockwise, model, 4, 4);
    EXPECT_TRUE(instance.refusals.empty());
    EXPECT_EQ(destination(instance, "model.layers.0.mlp.experts.routed_experts.w13_weight")->shape,
              (core::Shape{32, 1536, 2048}));
    for (std::size_t rank = 0; rank < 4; ++rank) {
        std::set<int> experts;
        for (const receiver::LoadSpan& span : instance.spans[rank]) {
            const std::string& name = instance.wanted[span.wanted].name;
            const std::size_t at = name.find(".experts.");
            if (at != std::string::npos) experts.insert(std::stoi(name.substr(at + 9)));
        }
        ASSERT_EQ(experts.size(), 32U);
        EXPECT_EQ(*experts.begin(), static_cast<int>(rank) * 32);
        EXPECT_EQ(*experts.rbegin(), static_cast<int>(rank) * 32 + 31);
    }
}

TEST(ExpertParallel, RefusesWhatHasNoPlacement) {
    const auto apply = [](const model::ModelConfig& model, int tp, int ep) {
        return refused(
            [&] { (void)instance_of("vllm-fp8", Scheme::fp8_blockwise, model, tp, ep); });
    };
    EXPECT_THAT(apply(named_model("tiny-moe"), 4, 2), HasSubstr("write ep: 1 or ep: 4"));
    EXPECT_THAT(apply(named_model("tiny-llama"), 2, 2), HasSubstr("has no experts"));
    model::ModelConfig seven = named_model("tiny-moe");
    seven.experts = 7;
    EXPECT_THAT(apply(seven, 2, 2), HasSubstr("7 experts"));
    EXPECT_EQ(apply(seven, 2, 1), "");
    EXPECT_EQ(apply(named_model("tiny-moe"), 4, 4), "");
}

// Refusals
// -------------------------------------------------------------------------------------------------

TEST(ExpertRefusal, NamesGateAndUpFirstInTheWordsOfTheEngine) {
    for (const auto& [name, tp] :
         {std::pair{"qwen3-30b-a3b", 4}, std::pair{"qwen3-235b-a22b", 8}}) {
        const auto instance =
            instance_of("vllm-fp8", Scheme::fp8_blockwise, published(name, 1), tp);
        ASSERT_EQ(instance.refusals.size(), 2U) << name;
        EXPECT_EQ(instance.refusals[0].tensor, "model.layers.0.mlp.experts.0.gate_proj.weight");
        EXPECT_EQ(instance.refusals[0].engine_message,
                  "ValueError: The output_size of gate's and up's weight = 192 is not divisible by "
                  "weight quantization block_n = 128.");
        EXPECT_EQ(instance.refusals[1].engine_message,
                  "ValueError: The input_size of down's weight = 192 is not divisible by weight "
                  "quantization block_k = 128.");
        EXPECT_THAT(instance.refusals[0].remedy, HasSubstr("ep = tp"));
    }
}

TEST(ExpertRefusal, ThirtyBillionAtEightRanksAndOtherGranularities) {
    const model::ModelConfig model = published("qwen3-30b-a3b", 1);
    const auto eight = instance_of("vllm-fp8", Scheme::fp8_blockwise, model, 8);
    ASSERT_FALSE(eight.refusals.empty());
    EXPECT_THAT(eight.refusals[0].engine_message, HasSubstr("weight = 96 is not divisible"));
    EXPECT_TRUE(
        instance_of("vllm-compressed-tensors", Scheme::fp8_channelwise, model, 8).refusals.empty());
    EXPECT_TRUE(instance_of("vllm-fp8", Scheme::fp8_tensorwise, model, 8).refusals.empty());
    const auto compressed = instance_of("vllm-compressed-tensors", Scheme::fp8_blockwise, model, 4);
    ASSERT_FALSE(compressed.refusals.empty());
    EXPECT_THAT(compressed.refusals[0].engine_message, HasSubstr("gate's and up's weight = 192"));
}

TEST(ExpertRefusal, HeadsAndExpertRowsMustDivide) {
    const model::ModelConfig latent = published("kimi-k2", 2);
    const auto three = instance_of("vllm-fp8", Scheme::fp8_blockwise, latent, 3);
    ASSERT_GE(three.refusals.size(), 2U);
    EXPECT_EQ(three.refusals[0].tensor, "model.layers.0.self_attn.q_b_proj.weight");
    EXPECT_EQ(three.refusals[1].tensor, "model.layers.1.mlp.experts.0.gate_proj.weight");
    EXPECT_TRUE(three.destinations.empty());
    // The list stays whole: every tensor, and a scale for each quantized one.
    EXPECT_EQ(three.wanted.size(),
              instance_of("vllm-fp8", Scheme::fp8_blockwise, latent, 2).wanted.size());
}

TEST(ExpertRefusal, ModeloptHoldsOneScaleAProjectionWhateverTheAlgorithm) {
    const auto instance =
        instance_of("vllm-modelopt", Scheme::fp8_channelwise, named_model("tiny-moe"), 2);
    EXPECT_THAT(instance.not_for_scenarios, HasSubstr("input_scale"));
    const std::string expert = "model.layers.0.mlp.experts.3.";
    for (const char* leaf : {"up_proj.weight_scale", "up_proj.input_scale"}) {
        const auto wanted =
            std::find_if(instance.wanted.begin(), instance.wanted.end(),
                         [&](const auto& parameter) { return parameter.name == expert + leaf; });
        ASSERT_NE(wanted, instance.wanted.end()) << leaf;
        EXPECT_EQ(wanted->shape, (core::Shape{1}));
    }
    const std::string stack = "model.layers.0.mlp.experts.routed_experts.";
    EXPECT_EQ(destination(instance, stack + "w13_weight_scale")->shape, (core::Shape{8, 2}));
    EXPECT_EQ(destination(instance, stack + "w2_weight_scale")->shape, (core::Shape{8}));
    EXPECT_EQ(destination(instance, stack + "w13_input_scale")->shape, (core::Shape{8}));
    // Other layers keep the scales of the algorithm.
    EXPECT_EQ(destination(instance, "model.layers.0.self_attn.o_proj.weight_scale")->shape,
              (core::Shape{256}));
}

TEST(ExpertRefusal, TensorrtLlmRefusesQuantizedExpertsAndStacksRawOnesUpFirst) {
    const model::ModelConfig model = named_model("tiny-moe");
    const auto quantized = instance_of("trtllm-fp8", Scheme::fp8_channelwise, model, 1);
    ASSERT_EQ(quantized.refusals.size(), 2U);  // one a layer
    EXPECT_THAT(quantized.refusals[0].engine_message, HasSubstr("Unsupported quantization mode"));
    const auto raw =
        instance_with("trtllm-fp8",
                      R"({"quant_method": "modelopt", "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN",
            "ignore": ["lm_head", "*.mlp.experts*"]})",
                      model, 1);
    EXPECT_TRUE(raw.refusals.empty());
    const std::string first = "model.layers.0.mlp.experts.0.";
    std::map<std::string, std::int64_t> rows;
    for (const receiver::LoadSpan& span : raw.spans[0]) {
        const std::string& name = raw.wanted[span.wanted].name;
        if (name.starts_with(first)) rows[name.substr(first.size())] = span.dest_row;
    }
    EXPECT_EQ(rows["up_proj.weight"], 0);
    EXPECT_EQ(rows["gate_proj.weight"], 512);
    const std::string text = refused([] {
        (void)instance_of("trtllm-fp8", Scheme::fp8_channelwise, named_model("tiny-mla"), 1);
    });
    EXPECT_THAT(text, HasSubstr("DeepseekV3ForCausalLM"));
}

TEST(ExpertSkipList, OneEntryBelowTheStackLeavesAllOfItInBf16) {
    const std::string json =
        R"({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128],
            "ignored_layers": ["model.layers.1.mlp.experts.0.gate_proj"]})";
    const auto instance = instance_with("vllm-fp8", json, named_model("tiny-moe"), 1);
    EXPECT_TRUE(instance.refusals.empty());
    const std::string stack = ".mlp.experts.routed_experts.w13_weight";
    EXPECT_EQ(destination(instance, "model.layers.0" + stack)->dtype, core::DType::f8_e4m3);
    EXPECT_EQ(destination(instance, "model.layers.1" + stack)->dtype, core::DType::bf16);
    EXPECT_EQ(destination(instance, "model.layers.1" + stack + "_scale_inv"), nullptr);
}

// The manifest against the contract. What the loaders did was seen by running them.
// -------------------------------------------------------------------------------------------------

core::Findings with_shape(const std::string& model, int tp, const std::string& tensor,
                          core::Shape shape) {
    const auto instance = instance_of("vllm-fp8", Scheme::fp8_blockwise, named_model(model), tp);
    wire::RefitManifest manifest = list_of(instance);
    EXPECT_TRUE(check_manifest(manifest, instance).empty());
    for (wire::ParameterMeta& meta : manifest.parameters) {
        if (meta.name == tensor) meta.shape = shape;
    }
    return check_manifest(manifest, instance);
}

TEST(ExpertManifest, ShortExpertsAreSilentlyWrongAndLongOnesRaise) {
    const std::string expert = "model.layers.0.mlp.experts.1.";
    const auto is_short = with_shape("tiny-moe", 2, expert + "gate_proj.weight", {448, 256});
    ASSERT_EQ(is_short.size(), 1U);
    EXPECT_EQ(is_short[0].engine_behaviour, "silently_wrong");
    const auto is_long = with_shape("tiny-moe", 1, expert + "gate_proj.weight", {512, 384});
    ASSERT_EQ(is_long.size(), 1U);
    EXPECT_EQ(is_long[0].engine_behaviour, "raises");
    EXPECT_EQ(is_long[0].engine_message,
              "RuntimeError: The size of tensor a (256) must match the size of tensor b (384) at "
              "non-singleton dimension 1");
    const auto scale = with_shape("tiny-moe", 1, expert + "up_proj.weight_scale_inv", {3, 2});
    ASSERT_EQ(scale.size(), 1U);
    EXPECT_EQ(scale[0].engine_behaviour, "silently_wrong");
}

TEST(ExpertManifest, UnknownNamesAreToldInTheWordsOfTheModelsLoader) {
    const auto message = [](const std::string& model, const std::string& unknown) {
        const auto instance = instance_of("vllm-fp8", Scheme::fp8_blockwise, named_model(model), 1);
        wire::RefitManifest manifest = list_of(instance);
        wire::ParameterMeta meta = manifest.parameters.front();
        meta.name = unknown;
        manifest.parameters.push_back(meta);
        const core::Findings findings = check_manifest(manifest, instance);
        return findings.size() == 1 ? findings[0].engine_message : "";
    };
    EXPECT_EQ(message("tiny-mla", "model.layers.0.self_attn.q_proj.weight"),
              "KeyError: 'layers.0.self_attn.q_proj.weight'");
    EXPECT_EQ(message("tiny-moe", "model.layers.0.mlp.experts.0.down_proj.weight_scale"),
              "AttributeError: Layer ... has no parameter 'w2_weight_scale'");
}

TEST(ExpertManifest, EveryMissingTensorIsOneFindingOnThatTensor) {
    for (const char* model : {"tiny-moe", "tiny-mla"}) {
        const auto instance = instance_of("vllm-fp8", Scheme::fp8_blockwise, named_model(model), 1);
        const wire::RefitManifest whole = list_of(instance);
        for (std::size_t i = 0; i < whole.parameters.size(); ++i) {
            wire::RefitManifest manifest = whole;
            manifest.parameters.erase(manifest.parameters.begin() + static_cast<std::ptrdiff_t>(i));
            const core::Findings findings = check_manifest(manifest, instance);
            ASSERT_EQ(findings.size(), 1U) << whole.parameters[i].name;
            EXPECT_EQ(findings[0].check, "names");
            EXPECT_EQ(findings[0].tensor, whole.parameters[i].name);
        }
    }
}

}  // namespace
}  // namespace refit::receiver_test
