// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Behaviours and texts that the engines' own loaders gave when they were run on a CPU with one
// wrong name in a small checkpoint, or with a model that they load wrong as a whole.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/error.hpp"
#include "unit/receiver/loader_models.hpp"

namespace refit::receiver_test {
namespace {

using core::DType;
using quant::Scheme;
using testing::HasSubstr;

// Names
// -------------------------------------------------------------------------------------------------

struct Named {
    std::string engine;
    Architecture architecture;
    std::string name;
    std::string behaviour;
    std::string text;
};

TEST(EngineLoaders, DoWithAnUnknownNameWhatTheModelClassDoes) {
    const std::vector<Named> rows = {
        {"vllm-fp8", Architecture::llama, "model.layers.0.mlp.down_proj.input_scale", "raises",
         "ValueError: There is no module or parameter named 'layers.0.mlp.down_proj.input_scale'"},
        {"vllm-fp8", Architecture::llama, "model.layers.0.self_attn.q_proj.bias", "ignored", ""},
        {"vllm-fp8", Architecture::qwen3_moe, "model.layers.0.self_attn.q_proj.input_scale",
         "raises", "AttributeError: 'QKVParallelLinear' object has no attribute 'data'"},
        {"vllm-fp8", Architecture::qwen3_moe, "model.layers.0.mlp.experts.0.down_proj.input_scale",
         "raises", "AttributeError: Layer ... has no parameter 'w2_input_scale'"},
        {"vllm-fp8", Architecture::deepseek_v3, "model.layers.0.self_attn.q_proj.weight", "raises",
         "KeyError: 'layers.0.self_attn.q_proj.weight'"},
        {"sglang-fp8", Architecture::qwen3, "model.layers.0.mlp.gate_proj.input_scale", "raises",
         "KeyError: 'model.layers.0.mlp.gate_up_proj.input_scale'"},
        {"sglang-fp8", Architecture::qwen3, "model.layers.0.mlp.down_proj.input_scale", "warns",
         "Parameter model.layers.0.mlp.down_proj.input_scale not found in params_dict"},
        {"sglang-fp8", Architecture::qwen2, "model.layers.0.mlp.gate_proj.input_scale", "warns",
         "Parameter model.layers.0.mlp.gate_up_proj.input_scale not found in params_dict"},
        {"sglang-fp8", Architecture::qwen3_moe, "model.layers.0.self_attn.o_proj.input_scale",
         "ignored", ""},
        {"sglang-fp8", Architecture::deepseek_v3, "model.layers.0.self_attn.q_proj.weight", "warns",
         "not found in params_dict"},
        {"sglang-fp8", Architecture::qwen3, "model.layers.2.mlp.gate_proj.weight", "ignored", ""},
        {"transformers-fp8", Architecture::llama, "model.layers.2.mlp.gate_proj.weight", "warns",
         "UNEXPECTED"},
    };
    for (const Named& row : rows) {
        const model::ModelConfig model =
            row.architecture == Architecture::deepseek_v3 ? latent() : small(row.architecture);
        const auto instance = instance_of(row.engine, Scheme::fp8_blockwise, model, 1);
        wire::RefitManifest manifest = list_of(instance);
        wire::ParameterMeta extra;
        extra.name = row.name;
        extra.shape = {1};
        manifest.parameters.push_back(extra);
        const core::Findings findings = findings_after(instance, manifest);
        ASSERT_EQ(findings.size(), 1U) << row.engine << " " << row.name;
        EXPECT_EQ(findings[0].tensor, row.name);
        EXPECT_EQ(findings[0].engine_behaviour, row.behaviour) << row.engine << " " << row.name;
        EXPECT_THAT(findings[0].engine_message, HasSubstr(row.text));
        EXPECT_EQ(findings[0].severity == core::Severity::error, row.behaviour == "raises");
    }
}

TEST(EngineLoaders, LoseAScaleUnderTheNameOfTheOtherFormat) {
    const auto after_renaming = [](const std::string& engine, Architecture architecture,
                                   const std::string& module) {
        const auto instance = instance_of(engine, Scheme::fp8_blockwise, small(architecture), 1);
        wire::RefitManifest manifest = list_of(instance);
        const std::string weight = "model.layers.0." + module + ".weight";
        auto& meta =
            manifest.parameters[static_cast<std::size_t>(manifest.find(weight + "_scale_inv"))];
        meta.name = weight + "_scale";
        const core::Findings findings = findings_after(instance, manifest);
        EXPECT_EQ(findings.size(), 1U);
        return findings.empty() ? core::Finding{} : findings[0];
    };
    const core::Finding stacked =
        after_renaming("sglang-fp8", Architecture::qwen3, "mlp.gate_proj");
    EXPECT_EQ(stacked.engine_message, "KeyError: 'model.layers.0.mlp.gate_up_proj.weight_scale'");
    const core::Finding single = after_renaming("sglang-fp8", Architecture::qwen3, "mlp.down_proj");
    EXPECT_EQ(single.engine_behaviour, "keeps_sentinel");
    EXPECT_EQ(single.severity, core::Severity::error);
    const core::Finding other =
        after_renaming("transformers-fp8", Architecture::llama, "self_attn.q_proj");
    EXPECT_EQ(other.engine_behaviour, "silently_wrong");
    const core::Finding expert =
        after_renaming("vllm-fp8", Architecture::qwen3_moe, "mlp.experts.1.down_proj");
    EXPECT_THAT(expert.engine_message, HasSubstr("has no parameter 'w2_weight_scale'"));
}

TEST(EngineLoaders, KnowTheScalesOfTheKvCacheByAllTheirNames) {
    const auto findings_of_scale = [](const std::string& engine, const std::string& name,
                                      const core::Shape& shape) {
        const auto instance =
            instance_of(engine, Scheme::fp8_blockwise, small(Architecture::qwen2), 1);
        wire::RefitManifest manifest = list_of(instance);
        wire::ParameterMeta extra;
        extra.name = "model.layers.0.self_attn." + name;
        extra.dtype = DType::f32;
        extra.shape = shape;
        manifest.parameters.push_back(extra);
        return findings_after(instance, manifest);
    };
    for (const char* name : {"k_scale", "k_proj.k_scale", "v_proj.v_scale", "attn.k_scale",
                             "kv_scale", "k_proj.output_scale", "qkv_proj.k_scale"}) {
        for (const core::Shape& shape : {core::Shape{}, core::Shape{1}, core::Shape{1, 1}})
            EXPECT_TRUE(findings_of_scale("vllm-fp8", name, shape).empty()) << name;
        // The model class of SGLang maps none of them: only the parameter's own name loads.
        const core::Findings other = findings_of_scale("sglang-fp8", name, {1});
        EXPECT_EQ(other.size(), std::string(name) == "attn.k_scale" ? 0U : 1U) << name;
        for (const core::Finding& finding : other) {
            EXPECT_EQ(finding.severity, core::Severity::warning);
            EXPECT_EQ(finding.engine_behaviour, "warns");
        }
    }
    for (const auto& [engine, name] :
         {std::pair("vllm-fp8", "k_proj.k_scale"), std::pair("sglang-fp8", "attn.k_scale")}) {
        const core::Findings wrong = findings_of_scale(engine, name, {4});
        ASSERT_EQ(wrong.size(), 1U);
        EXPECT_EQ(wrong[0].severity, core::Severity::error);
    }
    EXPECT_EQ(findings_of_scale("vllm-fp8", "k_proj.k_scale", {4})[0].engine_message,
              "ValueError: KV-cache scale expects a scalar weight, got shape [4]");
    const core::Findings dropped = findings_of_scale("transformers-fp8", "k_scale", {1});
    ASSERT_EQ(dropped.size(), 1U);
    EXPECT_EQ(dropped[0].severity, core::Severity::warning);
}

TEST(EngineLoaders, LoadTheMainModelWithoutItsDraftLayer) {
    for (const char* engine : {"vllm-fp8", "sglang-fp8"}) {
        const auto instance =
            instance_of(engine, Scheme::fp8_blockwise, named_model("tiny-mla"), 1);
        wire::RefitManifest whole = list_of(instance);
        wire::RefitManifest manifest;
        std::string one;
        for (const wire::ParameterMeta& meta : whole.parameters) {
            if (!meta.name.starts_with("model.layers.2.")) {
                manifest.parameters.push_back(meta);
            } else if (meta.name.ends_with("enorm.weight")) {
                one = meta.name;
            }
        }
        const core::Findings absent = findings_after(instance, manifest);
        ASSERT_EQ(absent.size(), 1U);
        EXPECT_EQ(absent[0].severity, core::Severity::warning);
        // A draft layer of which only a part came is one that a draft model loads wrong.
        manifest.parameters.push_back(whole.parameters[static_cast<std::size_t>(whole.find(one))]);
        EXPECT_TRUE(core::has_error(findings_after(instance, manifest)));
    }
}

// Whole models
// -------------------------------------------------------------------------------------------------

TEST(EngineLoaders, SglangLosesTheBlockScalesOfALlamaModelOnly) {
    for (const Architecture architecture :
         {Architecture::llama, Architecture::qwen2, Architecture::qwen3}) {
        const auto instance =
            instance_of("sglang-fp8", Scheme::fp8_blockwise, small(architecture), 1);
        ASSERT_EQ(instance.refusals.size(), architecture == Architecture::llama ? 1U : 0U);
        if (instance.refusals.empty()) continue;
        EXPECT_EQ(instance.refusals[0].engine_behaviour, "silently_wrong");
        EXPECT_THAT(instance.refusals[0].message, HasSubstr("weight_scale_inv"));
    }
    EXPECT_TRUE(instance_of("sglang-fp8", Scheme::fp8_tensorwise, small(Architecture::llama), 1)
                    .refusals.empty());
    EXPECT_TRUE(instance_of("sglang-compressed-tensors", Scheme::fp8_blockwise,
                            small(Architecture::llama), 1)
                    .refusals.empty());
    const auto strict = instance_of("strict", Scheme::fp8_blockwise, small(Architecture::llama), 1);
    ASSERT_EQ(strict.refusals.size(), 1U);
    EXPECT_EQ(strict.refusals[0].severity, core::Severity::warning);
}

TEST(EngineLoaders, SglangChecksEveryPartOfAFusedLayer) {
    model::ModelConfig ragged = dense(384, 512, 1, 3, 1, 64, 512, false);
    ragged.architecture = Architecture::qwen3;
    for (const char* engine : {"sglang-fp8", "sglang-compressed-tensors"}) {
        const auto instance = instance_of(engine, Scheme::fp8_blockwise, ragged, 1);
        ASSERT_EQ(instance.refusals.size(), 3U);
        EXPECT_EQ(instance.refusals[0].engine_message,
                  "ValueError: Weight output_partition_size = 192 is not divisible by weight "
                  "quantization block_n = 128.");
        // Input columns that end within a block are no obstacle at TP 1.
        model::ModelConfig narrow = dense(192, 256, 2, 4, 2, 64, 512, false);
        narrow.architecture = Architecture::qwen3;
        EXPECT_TRUE(instance_of(engine, Scheme::fp8_blockwise, narrow, 1).refusals.empty());
    }
    // The last part too, which vLLM exempts.
    model::ModelConfig last = latent();
    last.q_lora_rank = 192;
    const auto joined = instance_of("sglang-fp8", Scheme::fp8_blockwise, last, 1);
    ASSERT_FALSE(joined.refusals.empty());
    EXPECT_THAT(joined.refusals[0].tensor, HasSubstr("q_a_proj"));
}

TEST(EngineLoaders, TransformersRecomputesItsBlocksFromTheGrid) {
    const auto refusal = [](std::int64_t rows) {
        model::ModelConfig model = dense(256, rows, 1, 4, 4, 64, 512, false);
        const auto instance = instance_of("transformers-fp8", Scheme::fp8_blockwise, model, 1);
        return instance.refusals.empty() ? std::string("none")
                                         : instance.refusals[0].engine_behaviour;
    };
    EXPECT_EQ(refusal(512), "none");
    EXPECT_EQ(refusal(64), "none");             // one block is the whole of it
    EXPECT_EQ(refusal(192), "silently_wrong");  // two blocks of 96
    EXPECT_EQ(refusal(320), "raises");          // no three blocks
    EXPECT_EQ(refusal(576), "raises");          // no five blocks
}

TEST(EngineLoaders, TransformersHasOneRank) {
    EXPECT_THROW(
        (void)instance_of("transformers-fp8", Scheme::fp8_blockwise, small(Architecture::llama), 2),
        core::ScenarioError);
    EXPECT_TRUE(instance_of("transformers-fp8", Scheme::fp8_blockwise, named_model("tiny-mla"), 1)
                    .refusals.empty());
}

TEST(EngineLoaders, BlackwellScalesAreDocumentedAndNeverWanted) {
    const receiver::EngineContract& contract = receiver::find_engine("sglang-fp8");
    const auto row = std::find_if(contract.rows.begin(), contract.rows.end(),
                                  [](const receiver::ContractRow& one) { return one.after_load; });
    ASSERT_NE(row, contract.rows.end());
    EXPECT_EQ(row->parameter_dtype, "int32");
    const auto instance =
        instance_of("sglang-fp8", Scheme::fp8_blockwise, small(Architecture::qwen3), 1);
    for (const std::size_t used : instance.rows) {
        EXPECT_FALSE(contract.rows[used].after_load);
    }
}

}  // namespace
}  // namespace refit::receiver_test
