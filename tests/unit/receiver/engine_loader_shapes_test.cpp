// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Behaviours and texts that the engines' own loaders gave when they were run on a CPU with one
// tensor of a wrong shape or dtype in a small checkpoint.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "unit/receiver/loader_models.hpp"

namespace refit::receiver_test {
namespace {

using core::DType;
using quant::Scheme;
using testing::HasSubstr;

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

}  // namespace
}  // namespace refit::receiver_test
