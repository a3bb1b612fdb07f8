// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Behaviours and texts that the engines' own loaders gave when they were run on a CPU with one
// wrong tensor in a small checkpoint.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/error.hpp"
#include "receiver/contract_check.hpp"
#include "unit/receiver/refit_fixture.hpp"

namespace refit::receiver_test {
namespace {

using core::DType;
using model::Architecture;
using quant::Scheme;
using testing::HasSubstr;

/// Two layers, hidden size 256, intermediate 512, 8 and 4 heads of 64, vocabulary 512.
model::ModelConfig small(Architecture architecture) {
    model::ModelConfig config = dense(256, 512, 2, 8, 4, 64, 512, false);
    config.architecture = architecture;
    config.qk_norm = architecture == Architecture::qwen3;
    if (architecture == Architecture::qwen3_moe) {
        config.qk_norm = true;
        config.intermediate = 0;
        config.experts = 4;
        config.moe_intermediate = 256;
    }
    return config;
}

/// Latent attention: q_lora 128, kv_lora 128, rope 64.
model::ModelConfig latent() {
    model::ModelConfig config = named_model("tiny-mla");
    config.q_lora_rank = 128;
    config.experts = 4;
    config.moe_intermediate = 256;
    config.mtp_layers = 0;
    return config;
}

core::Findings findings_after(const receiver::ContractInstance& instance,
                              const wire::RefitManifest& manifest) {
    core::Findings findings = receiver::check_manifest(manifest, instance);
    findings.erase(findings.begin(),
                   findings.begin() + static_cast<std::ptrdiff_t>(instance.refusals.size()));
    return findings;
}

struct Shaped {
    std::string engine;
    Scheme scheme;
    Architecture architecture;
    int tp;
    std::string tensor;  ///< below "model.layers.0.", or a whole name
    core::Shape came;
    std::string behaviour;
    std::string text;
};

std::vector<Shaped> shaped() {
    const Architecture llama = Architecture::llama;
    const Architecture qwen3 = Architecture::qwen3;
    const Architecture moe = Architecture::qwen3_moe;
    const Scheme block = Scheme::fp8_blockwise;
    const Scheme channel = Scheme::fp8_channelwise;
    const std::string ct = "vllm-compressed-tensors";
    const std::string sct = "sglang-compressed-tensors";
    const std::string q = "self_attn.q_proj.weight";
    const std::string o = "self_attn.o_proj.weight";
    const std::string down = "mlp.down_proj.weight";
    const std::string gate = "mlp.gate_proj.weight";
    const std::string up_scale = "mlp.experts.1.up_proj.weight_scale_inv";
    return {
        {"vllm-fp8",
         block,
         llama,
         1,
         o + "_scale_inv",
         {},
         "raises",
         "IndexError: Dimension out of range (expected to be in range of [-1, 0], but got 1)"},
        {"vllm-fp8", block, llama, 1, q, {576, 256}, "silently_wrong", ""},
        {"vllm-fp8",
         block,
         llama,
         2,
         gate,
         {448, 256},
         "raises",
         "RuntimeError: start (256) + length (256) exceeds dimension size (448)."},
        {"vllm-fp8",
         block,
         llama,
         2,
         down + "_scale_inv",
         {2, 3},
         "raises",
         "RuntimeError: start (2) + length (2) exceeds dimension size (3)."},
        {"vllm-fp8", block, moe, 1, up_scale, {1, 2}, "silently_wrong", ""},
        {"vllm-fp8",
         block,
         moe,
         2,
         "mlp.experts.0.gate_proj.weight",
         {192, 256},
         "silently_wrong",
         ""},
        {"vllm-fp8",
         block,
         moe,
         1,
         "mlp.experts.0.gate_proj.weight",
         {256, 384},
         "raises",
         "RuntimeError: The size of tensor a (256) must match the size of tensor b (384) at "
         "non-singleton dimension 1"},
        {"vllm-fp8",
         Scheme::fp8_tensorwise,
         llama,
         1,
         o + "_scale",
         {2},
         "raises",
         "AssertionError"},
        {ct,
         channel,
         llama,
         2,
         "mlp.up_proj.weight",
         {448, 256},
         "raises",
         "RuntimeError: start (256) + length (256) exceeds dimension size (448)."},
        {ct, channel, llama, 1, q + "_scale", {512}, "raises", "AssertionError"},
        {ct,
         channel,
         llama,
         1,
         q + "_scale",
         {1, 512},
         "raises",
         "RuntimeError: start (0) + length (512) exceeds dimension size (1)."},
        {ct, channel, llama, 1, q + "_scale", {576, 1}, "silently_wrong", ""},
        {ct, channel, llama, 1, down + "_scale", {320, 1}, "raises", "AssertionError"},
        {"vllm-modelopt", channel, llama, 1, o + "_scale", {1}, "raises", "AssertionError"},
        {"vllm-modelopt",
         channel,
         llama,
         2,
         q + "_scale",
         {448},
         "raises",
         "RuntimeError: start (256) + length (256) exceeds dimension size (448)."},
        {"vllm-modelopt",
         block,
         llama,
         1,
         down + "_scale",
         {2, 4},
         "raises",
         "IndexError: Dimension out of range (expected to be in range of [-2, 1], but got 2)"},
        {"sglang-fp8", block, qwen3, 1, o + "_scale_inv", {1, 2, 4}, "raises", "AssertionError"},
        {"sglang-fp8", block, qwen3, 2, down + "_scale_inv", {4, 2}, "raises", "AssertionError"},
        {"sglang-fp8",
         block,
         qwen3,
         1,
         q,
         {256, 512},
         "raises",
         "RuntimeError: start (0) + length (512) exceeds dimension size (256)."},
        {"sglang-fp8",
         block,
         qwen3,
         2,
         q + "_scale_inv",
         {3, 2},
         "raises",
         "RuntimeError: start (2) + length (2) exceeds dimension size (3)."},
        {"sglang-fp8",
         block,
         qwen3,
         1,
         "input_layernorm.weight",
         {255},
         "raises",
         "AssertionError: Attempted to load weight (torch.Size([255])) into parameter "
         "(torch.Size([256]))"},
        {"sglang-fp8",
         block,
         qwen3,
         1,
         "model.embed_tokens.weight",
         {576, 256},
         "raises",
         "AssertionError: self.org_vocab_size=512 self.use_presharded_weights=False "
         "loaded_weight.shape[output_dim]=576"},
        // Merged and row-parallel layers fill what is missing with zeros.
        {"sglang-fp8", block, qwen3, 2, gate, {448, 256}, "silently_wrong", ""},
        {"sglang-fp8", block, qwen3, 2, gate + "_scale_inv", {3, 2}, "silently_wrong", ""},
        {"sglang-fp8", block, qwen3, 2, down, {256, 448}, "silently_wrong", ""},
        {"sglang-fp8", block, qwen3, 2, down + "_scale_inv", {2, 3}, "silently_wrong", ""},
        {"sglang-fp8",
         block,
         moe,
         1,
         up_scale,
         {1, 2},
         "raises",
         "RuntimeError: start (0) + length (2) exceeds dimension size (1)."},
        {"sglang-fp8",
         block,
         moe,
         2,
         "mlp.experts.0.gate_proj.weight",
         {192, 256},
         "raises",
         "RuntimeError: start (128) + length (128) exceeds dimension size (192)."},
        {sct, channel, qwen3, 1, q + "_scale", {576, 1}, "silently_wrong", ""},
        {sct,
         channel,
         qwen3,
         2,
         q + "_scale",
         {448, 1},
         "raises",
         "RuntimeError: start (256) + length (256) exceeds dimension size (448)."},
        {sct,
         channel,
         moe,
         1,
         "mlp.experts.1.down_proj.weight_scale",
         {256},
         "raises",
         "RuntimeError"},
        {sct, Scheme::fp8_tensorwise, qwen3, 1, q + "_scale", {512, 1}, "raises", "AssertionError"},
        {"transformers-fp8",
         block,
         llama,
         1,
         q + "_scale_inv",
         {8},
         "raises",
         "RuntimeError: We encountered some issues during automatic conversion"},
        {"transformers-fp8",
         block,
         llama,
         1,
         q,
         {256, 512},
         "raises",
         "RuntimeError: You set `ignore_mismatched_sizes` to `False`"},
        {"transformers-fp8",
         block,
         llama,
         1,
         "input_layernorm.weight",
         {255},
         "raises",
         "RuntimeError: You set `ignore_mismatched_sizes` to `False`"},
        // 512 rows in 2 blocks become blocks of 256.
        {"transformers-fp8", block, llama, 1, q + "_scale_inv", {2, 2}, "silently_wrong", ""},
        {"transformers-fp8",
         block,
         llama,
         1,
         q + "_scale_inv",
         {3, 2},
         "raises",
         "Weight shape (512, 256) not divisible by scale grid (3, 2)"},
        {"transformers-fp8", block, llama, 1, q + "_scale_inv", {1, 4, 2}, "ignored", ""},
        {"transformers-fp8", block, moe, 1, up_scale, {1, 1}, "silently_wrong", ""},
    };
}

TEST(EngineLoaders, DoWithAWrongShapeWhatTheyDidWhenRun) {
    for (const Shaped& row : shaped()) {
        const auto instance = instance_of(row.engine, row.scheme, small(row.architecture), row.tp);
        wire::RefitManifest manifest = list_of(instance);
        const std::string name =
            row.tensor.starts_with("model.") ? row.tensor : "model.layers.0." + row.tensor;
        const std::int64_t index = manifest.find(name);
        ASSERT_GE(index, 0) << row.engine << " " << name;
        manifest.parameters[static_cast<std::size_t>(index)].shape = row.came;
        const core::Findings findings = findings_after(instance, manifest);
        const std::string what = row.engine + " " + name + " " + core::to_string(row.came);
        ASSERT_EQ(findings.size(), 1U) << what;
        EXPECT_EQ(findings[0].tensor, name);
        EXPECT_EQ(findings[0].engine_behaviour, row.behaviour) << what;
        EXPECT_THAT(findings[0].engine_message, HasSubstr(row.text)) << what;
        EXPECT_EQ(findings[0].severity == core::Severity::error, row.behaviour != "ignored")
            << what;
        if (row.behaviour != "raises") {
            EXPECT_EQ(findings[0].engine_message, "") << what;
        }
    }
}

TEST(EngineLoaders, TakeTheVariantsOfAShapeThatTheyTake) {
    const auto accepts = [](const std::string& engine, Scheme scheme, const std::string& name,
                            const core::Shape& shape) {
        const auto instance = instance_of(engine, scheme, small(Architecture::qwen3), 1);
        wire::RefitManifest manifest = list_of(instance);
        manifest.parameters[static_cast<std::size_t>(manifest.find(name))].shape = shape;
        return findings_after(instance, manifest).empty();
    };
    const std::string scale = "model.layers.0.mlp.down_proj.weight_scale";
    const Scheme tensor = Scheme::fp8_tensorwise;
    for (const char* engine :
         {"vllm-fp8", "vllm-compressed-tensors", "sglang-fp8", "sglang-compressed-tensors"}) {
        EXPECT_TRUE(accepts(engine, tensor, scale, {})) << engine;
        EXPECT_FALSE(accepts(engine, tensor, scale, {1, 1})) << engine;
    }
    EXPECT_TRUE(accepts("transformers-fp8", tensor, scale + "_inv", {}));
    EXPECT_TRUE(accepts("trtllm-fp8", Scheme::fp8_channelwise, scale, {256, 1}));
    EXPECT_FALSE(accepts("trtllm-fp8", Scheme::fp8_channelwise, scale, {1, 256}));
    EXPECT_FALSE(accepts("vllm-modelopt", Scheme::fp8_channelwise, scale, {256, 1}));
    EXPECT_FALSE(accepts("vllm-compressed-tensors", Scheme::fp8_channelwise, scale, {256}));
}

TEST(EngineLoaders, JoinTheLatentScalesBeforeTheyCompare) {
    const std::string name = "model.layers.0.self_attn.kv_a_proj_with_mqa.weight_scale_inv";
    for (const auto& [engine, text] :
         {std::pair{"vllm-fp8", "RuntimeError: start (0) + length (2) exceeds dimension size (1)."},
          std::pair{"sglang-fp8", "AssertionError: param.shape="}}) {
        const auto instance = instance_of(engine, Scheme::fp8_blockwise, latent(), 1);
        EXPECT_TRUE(instance.refusals.empty());
        wire::RefitManifest manifest = list_of(instance);
        manifest.parameters[static_cast<std::size_t>(manifest.find(name))].shape = {1, 2};
        const core::Findings findings = findings_after(instance, manifest);
        ASSERT_EQ(findings.size(), 1U);
        EXPECT_THAT(findings[0].engine_message, HasSubstr(text));
    }
}

TEST(EngineLoaders, OnlySglangComparesDtypesAndOnlyInUnfusedLayers) {
    const auto outcome = [](const std::string& engine, const std::string& tensor, DType dtype) {
        const auto instance = instance_of(engine, Scheme::fp8_blockwise, latent(), 2);
        wire::RefitManifest manifest = list_of(instance);
        const std::string name = "model.layers.0." + tensor;
        manifest.parameters[static_cast<std::size_t>(manifest.find(name))].dtype = dtype;
        const core::Findings findings = findings_after(instance, manifest);
        EXPECT_EQ(findings.size(), 1U);
        return findings.empty() ? std::string()
                                : findings[0].engine_behaviour + " " + findings[0].engine_message;
    };
    const std::string q_b = "self_attn.q_b_proj.weight";
    EXPECT_THAT(outcome("sglang-fp8", q_b, DType::bf16),
                HasSubstr("raises ValueError: Downcasting"));
    EXPECT_THAT(outcome("sglang-fp8", q_b, DType::u8),
                HasSubstr("raises ValueError: Unsupported copy between dtypes"));
    EXPECT_EQ(outcome("sglang-fp8", "mlp.gate_proj.weight", DType::bf16), "silently_wrong ");
    EXPECT_EQ(outcome("sglang-fp8", "self_attn.o_proj.weight", DType::bf16), "silently_wrong ");
    EXPECT_EQ(outcome("vllm-fp8", q_b, DType::bf16), "silently_wrong ");
}

TEST(EngineLoaders, ReadBytesAsNumbersOrAsExponents) {
    const std::string name = "model.layers.0.mlp.down_proj.weight_scale_inv";
    const auto severity = [&](const std::string& engine, const std::string& extra, DType dtype) {
        const auto instance = instance_with(
            engine,
            R"({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128])" +
                extra + "}",
            small(Architecture::qwen3), 1);
        wire::RefitManifest manifest = list_of(instance);
        manifest.parameters[static_cast<std::size_t>(manifest.find(name))].dtype = dtype;
        const core::Findings findings = findings_after(instance, manifest);
        if (findings.empty()) return std::string("none");
        return std::string(core::has_error(findings) ? "error" : "warning");
    };
    const std::string ue8m0 = R"(, "scale_fmt": "ue8m0")";
    EXPECT_EQ(severity("transformers-fp8", ue8m0, DType::u8), "none");
    EXPECT_EQ(severity("transformers-fp8", "", DType::u8), "warning");
    EXPECT_EQ(severity("vllm-fp8", ue8m0, DType::u8), "error");
    EXPECT_EQ(severity("sglang-fp8", ue8m0, DType::u8), "error");
    EXPECT_EQ(severity("vllm-fp8", ue8m0, DType::f8_e8m0), "none");
    EXPECT_EQ(severity("strict", "", DType::bf16), "error");
    EXPECT_EQ(severity("sglang-fp8", "", DType::bf16), "none");
}

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
