// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What engines refuse or get silently wrong. The texts were given by the engines' own loaders, run
// on a CPU.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "core/error.hpp"
#include "unit/receiver/refit_fixture.hpp"

namespace refit::receiver_test {
namespace {

using quant::Scheme;
using testing::HasSubstr;

const core::Finding* find(const core::Findings& findings, const std::string& tensor) {
    const auto it =
        std::find_if(findings.begin(), findings.end(),
                     [&](const core::Finding& finding) { return finding.tensor == tensor; });
    return it == findings.end() ? nullptr : &*it;
}

TEST(EngineCatalog, NamesEveryEngineOnceWithItsSource) {
    std::set<std::string> names;
    const std::set<std::string> words = {"raises", "silently_wrong", "ignored", "warns",
                                         "keeps_sentinel"};
    for (const receiver::EngineContract& contract : receiver::engine_catalog()) {
        EXPECT_TRUE(names.insert(contract.name).second);
        EXPECT_FALSE(contract.version.empty());
        EXPECT_FALSE(contract.snapshot.empty());
        EXPECT_EQ(contract.source.find(contract.snapshot), 0U) << contract.name;
        EXPECT_FALSE(contract.schemes.empty());
        for (const receiver::ContractRow& row : contract.rows) {
            for (const std::string& word : {row.on_wrong_rank, row.on_too_long, row.on_too_short,
                                            row.on_wrong_dtype, row.on_missing}) {
                EXPECT_TRUE(words.count(word))
                    << contract.name << " " << row.suffix << ": " << word;
            }
        }
    }
    EXPECT_EQ(names,
              (std::set<std::string>{"vllm-fp8", "vllm-compressed-tensors", "vllm-modelopt",
                                     "vllm-bf16", "sglang-fp8", "sglang-compressed-tensors",
                                     "sglang-bf16", "transformers-fp8", "trtllm-fp8", "strict"}));
}

TEST(EngineCatalog, UnknownEngineListsTheNearest) {
    try {
        (void)receiver::find_engine("vllm-fp9");
        FAIL();
    } catch (const core::UsageError& error) {
        EXPECT_THAT(error.what(), HasSubstr("vllm-fp8"));
    }
}

TEST(EngineContract, RefusesASchemeThatTheEngineLacks) {
    receiver::QuantizationConfig config;
    config.scheme = Scheme::fp8_channelwise;
    EXPECT_THROW((void)receiver::apply_contract(receiver::find_engine("vllm-fp8"),
                                                named_model("tiny-llama"), config, 1),
                 core::ScenarioError);
}

TEST(EngineContract, FusedPartsTravelInOneGroupWithTheirScales) {
    const auto instance =
        instance_of("vllm-fp8", Scheme::fp8_blockwise, named_model("tiny-llama"), 2);
    for (const wire::WantedParameter& wanted : instance.wanted) {
        const bool qkv = wanted.name.find("layers.0.self_attn.q_proj") != std::string::npos ||
                         wanted.name.find("layers.0.self_attn.k_proj") != std::string::npos ||
                         wanted.name.find("layers.0.self_attn.v_proj") != std::string::npos;
        EXPECT_EQ(wanted.fuse_group == "model.layers.0.self_attn.qkv_proj", qkv) << wanted.name;
        if (!wanted.scale_of.empty()) {
            EXPECT_EQ(wanted.name, wanted.scale_of + "_scale_inv");
        }
    }
}

TEST(EngineContract, QuantizedWeightPointsAtItsScale) {
    const auto instance = instance_of("vllm-compressed-tensors", Scheme::fp8_channelwise,
                                      named_model("tiny-llama"), 2);
    std::size_t quantized = 0;
    for (const auto& dest : instance.destinations) {
        if (dest.dtype != core::DType::f8_e4m3) {
            EXPECT_EQ(dest.scale, -1) << dest.name;
            continue;
        }
        ++quantized;
        ASSERT_GE(dest.scale, 0);
        const auto& scale = instance.destinations[static_cast<std::size_t>(dest.scale)];
        EXPECT_EQ(scale.name, dest.name + "_scale");
        EXPECT_TRUE(scale.is_scale);
        EXPECT_EQ(dest.granularity, receiver::Granularity::channel);
    }
    EXPECT_EQ(quantized, 8U);
}

// Block divisibility
// ---------------------------------------------------------------------------------------------------

TEST(BlockRefusal, KvRowsBelowABlockLeaveTheScale) {
    // Two key heads of 64 over two ranks; the loader said "start (3) + length (1) exceeds dimension
    // size (3)."
    const auto instance =
        instance_of("vllm-fp8", Scheme::fp8_blockwise, dense(256, 512, 2, 8, 2, 64, 512, false), 2);
    const auto* finding = find(instance.refusals, "model.layers.0.self_attn.v_proj.weight");
    ASSERT_NE(finding, nullptr);
    EXPECT_THAT(finding->engine_message,
                HasSubstr("start (3) + length (1) exceeds dimension size (3)."));
    EXPECT_EQ(finding->engine_behaviour, "raises");
    EXPECT_EQ(finding->check, "shape_contract");
    EXPECT_NE(find(instance.refusals, "model.layers.1.self_attn.v_proj.weight"), nullptr);
}

TEST(BlockRefusal, RowParallelColumnsOfARankMustBeWholeBlocks) {
    const auto instance =
        instance_of("vllm-fp8", Scheme::fp8_blockwise, dense(384, 512, 1, 6, 2, 64, 512, false), 2);
    const auto* finding = find(instance.refusals, "model.layers.0.self_attn.o_proj.weight");
    ASSERT_NE(finding, nullptr);
    EXPECT_EQ(finding->engine_message,
              "ValueError: Weight input_size_per_partition = 192 is not divisible by weight "
              "quantization block_k = 128.");
}

TEST(BlockRefusal, RaggedFusedQkvAtTp1IsAcceptedAndWrong) {
    // The sizes of SmolLM2-135M: 576 + 192 + 192 rows.
    const auto instance = instance_of("vllm-fp8", Scheme::fp8_blockwise,
                                      dense(576, 1536, 2, 9, 3, 64, 49152, true), 1);
    for (const char* layer : {"model.layers.0.", "model.layers.1."}) {
        for (const char* part : {"q_proj", "k_proj", "v_proj"}) {
            const auto* finding =
                find(instance.refusals, std::string(layer) + "self_attn." + part + ".weight");
            ASSERT_NE(finding, nullptr) << part;
            EXPECT_EQ(finding->engine_behaviour, "silently_wrong");
            EXPECT_EQ(finding->severity, core::Severity::error);
        }
    }
    EXPECT_EQ(instance.refusals.size(), 6U);
}

TEST(BlockRefusal, RaggedUnfusedLayerAtTp1IsFine) {
    // Hidden size 192: ragged K everywhere, ragged rows in o_proj and down_proj only; the loader
    // ended with right values.
    const auto instance =
        instance_of("vllm-fp8", Scheme::fp8_blockwise, dense(192, 256, 2, 4, 2, 64, 512, false), 1);
    EXPECT_TRUE(instance.refusals.empty());
}

TEST(BlockRefusal, Qwen25HalfBillionPassesAtTp1Only) {
    const model::ModelConfig model = named_model("qwen2.5-0.5b");
    EXPECT_TRUE(instance_of("vllm-fp8", Scheme::fp8_blockwise, model, 1).refusals.empty());
    const auto two = instance_of("vllm-fp8", Scheme::fp8_blockwise, model, 2);
    const auto* output = find(two.refusals, "model.layers.0.self_attn.o_proj.weight");
    ASSERT_NE(output, nullptr);
    EXPECT_THAT(output->engine_message, HasSubstr("input_size_per_partition = 448"));
    const auto* query = find(two.refusals, "model.layers.0.self_attn.q_proj.weight");
    ASSERT_NE(query, nullptr);
    EXPECT_THAT(query->engine_message,
                HasSubstr("start (4) + length (4) exceeds dimension size (7)."));
}

TEST(BlockRefusal, PublishedModelsPassAtTheTpSizesThatAnEmulationGave) {
    struct Row {
        model::ModelConfig model;
        std::set<int> passes;
    };
    const std::vector<Row> rows = {
        {dense(2048, 8192, 1, 32, 8, 64, 128256, true), {1, 2, 4}},            // Llama-3.2-1B
        {dense(3072, 8192, 1, 24, 8, 128, 128256, true), {1, 2, 4, 8}},        // Llama-3.2-3B
        {dense(4096, 14336, 1, 32, 8, 128, 128256, false), {1, 2, 4, 8, 16}},  // Llama-3.1-8B
        {dense(896, 4864, 1, 14, 2, 64, 151936, true), {1}},                   // Qwen2.5-0.5B
        {dense(3584, 18944, 1, 28, 4, 128, 152064, false), {1, 2, 4}},         // Qwen2.5-7B
        {dense(1024, 3072, 1, 16, 8, 128, 151936, true), {1, 2, 4, 8}},        // Qwen3-0.6B
        {dense(2560, 9728, 1, 32, 8, 128, 151936, true), {1, 2, 4}},           // Qwen3-4B
        {dense(5120, 25600, 1, 64, 8, 128, 151936, false), {1, 2, 4, 8}},      // Qwen3-32B
        {dense(2048, 6144, 1, 16, 8, 128, 151936, true), {1, 2, 4, 8, 16}},    // Qwen3-1.7B
    };
    for (const Row& row : rows) {
        for (const int tp : {1, 2, 4, 8, 16}) {
            const auto instance = instance_of("vllm-fp8", Scheme::fp8_blockwise, row.model, tp);
            EXPECT_EQ(instance.refusals.empty(), row.passes.count(tp) == 1)
                << row.model.hidden << " at TP " << tp
                << (instance.refusals.empty() ? "" : ": " + instance.refusals[0].message);
        }
    }
}

TEST(BlockRefusal, CompressedTensorsRefusesRaggedQkvWhenItIsBuilt) {
    const auto instance = instance_of("vllm-compressed-tensors", Scheme::fp8_blockwise,
                                      dense(384, 512, 1, 3, 1, 64, 512, false), 1);
    const auto* finding = find(instance.refusals, "model.layers.0.self_attn.q_proj.weight");
    ASSERT_NE(finding, nullptr);
    EXPECT_EQ(finding->engine_message,
              "ValueError: Weight output_partition_size = 192 is not divisible by weight "
              "quantization block_n = 128.");
}

TEST(BlockRefusal, OtherGranularitiesHaveNoBlockRule) {
    const model::ModelConfig ragged = dense(576, 1536, 1, 9, 3, 64, 49152, true);
    EXPECT_TRUE(instance_of("vllm-fp8", Scheme::fp8_tensorwise, ragged, 3).refusals.empty());
    EXPECT_TRUE(instance_of("vllm-compressed-tensors", Scheme::fp8_channelwise, ragged, 3)
                    .refusals.empty());
    EXPECT_TRUE(instance_of("vllm-modelopt", Scheme::fp8_channelwise, ragged, 3).refusals.empty());
}

TEST(HeadRefusal, NamesTheProjectionAndKeepsTheList) {
    const auto instance =
        instance_of("vllm-bf16", Scheme::bf16, dense(896, 4864, 1, 14, 2, 64, 151936, true), 4);
    EXPECT_NE(find(instance.refusals, "model.layers.0.self_attn.q_proj.weight"), nullptr);
    EXPECT_EQ(instance.wanted.size(), 11U);
    EXPECT_TRUE(instance.destinations.empty());
}

TEST(HeadRefusal, KvHeadsMustDivideOrBeDivided) {
    const auto instance =
        instance_of("vllm-bf16", Scheme::bf16, dense(768, 1536, 1, 12, 3, 64, 6144, true), 2);
    EXPECT_NE(find(instance.refusals, "model.layers.0.self_attn.k_proj.weight"), nullptr);
}

// Skip lists
// -----------------------------------------------------------------------------------------------------------

std::string fp8_with(const std::string& key, const std::string& list) {
    return R"({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128], ")" +
           key + "\": " + list + "}";
}

TEST(SkipList, LeavesAnExactModuleInBf16) {
    const auto instance = instance_with(
        "vllm-fp8", fp8_with("modules_to_not_convert", R"(["model.layers.0.mlp.down_proj"])"),
        named_model("tiny-llama"), 1);
    EXPECT_TRUE(instance.refusals.empty());
    for (const auto& wanted : instance.wanted) {
        if (wanted.name == "model.layers.0.mlp.down_proj.weight") {
            EXPECT_EQ(wanted.dtypes.front(), core::DType::bf16);
            EXPECT_TRUE(wanted.scale.empty());
        }
        EXPECT_NE(wanted.name, "model.layers.0.mlp.down_proj.weight_scale_inv");
    }
}

TEST(SkipList, SuffixesAndBareNamesMatchNothing) {
    const auto plain = instance_of("vllm-fp8", Scheme::fp8_blockwise, named_model("tiny-llama"), 1);
    const auto listed = instance_with(
        "vllm-fp8", fp8_with("ignored_layers", R"(["down_proj", "lm_head", "layers.0"])"),
        named_model("tiny-llama"), 1);
    EXPECT_EQ(listed.wanted.size(), plain.wanted.size());
}

TEST(SkipList, RefusesOnePartOfAFusedLayerWithTheEnginesText) {
    const auto instance = instance_with(
        "vllm-fp8", fp8_with("ignored_layers", R"(["model.layers.0.self_attn.k_proj"])"),
        named_model("tiny-llama"), 1);
    ASSERT_EQ(instance.refusals.size(), 1U);
    EXPECT_EQ(instance.refusals[0].engine_message,
              "ValueError: Detected some but not all shards of model.layers.0.self_attn.qkv_proj "
              "are quantized. All "
              "shards of fused layers to have the same precision.");
    EXPECT_THAT(instance.refusals[0].tensor, HasSubstr("model.layers.0.self_attn."));
}

TEST(SkipList, WholeOrFusedNameLeavesTheFusedLayerInBf16) {
    for (const char* list : {R"(["model.layers.1.mlp.gate_proj", "model.layers.1.mlp.up_proj"])",
                             R"(["model.layers.1.mlp.gate_up_proj"])"}) {
        const auto instance = instance_with("vllm-fp8", fp8_with("ignored_layers", list),
                                            named_model("tiny-llama"), 2);
        EXPECT_TRUE(instance.refusals.empty());
        const auto it = std::find_if(
            instance.destinations.begin(), instance.destinations.end(),
            [](const auto& d) { return d.name == "model.layers.1.mlp.gate_up_proj.weight"; });
        ASSERT_NE(it, instance.destinations.end());
        EXPECT_EQ(it->dtype, core::DType::bf16);
        EXPECT_EQ(it->scale, -1);
    }
}

TEST(SkipList, PatternsOfCompressedTensorsMatchFromTheStart) {
    const auto with = [](const std::string& ignore) {
        return instance_with(
                   "vllm-compressed-tensors",
                   R"({"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"g":
                             {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}},
                             "ignore": [")" +
                       ignore + "\"]}",
                   named_model("tiny-llama"), 1)
            .wanted.size();
    };
    const std::size_t all = with("lm_head");
    // Python: re.match(r'model.layers.0', ...) matches the 7 linear modules of the layer,
    // re.match(r'layers.0', ...) none.
    EXPECT_EQ(with("re:model\\\\.layers\\\\.0"), all - 7);
    EXPECT_EQ(with("re:layers\\\\.0"), all);
    EXPECT_EQ(with("re:.*down_proj"), all - 2);
}

}  // namespace
}  // namespace refit::receiver_test
