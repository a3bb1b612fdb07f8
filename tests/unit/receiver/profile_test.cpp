// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The strict profile: what any engine refuses or gets wrong is an error, and nothing else is. The
// rules of the engines were seen in their own loaders; see the contracts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "receiver/contract_check.hpp"
#include "unit/receiver/refit_fixture.hpp"

namespace refit::receiver_test {
namespace {

using core::DType;
using model::Architecture;
using quant::Scheme;
using testing::HasSubstr;

model::ModelConfig small(Architecture architecture) {
    model::ModelConfig config = dense(256, 512, 2, 8, 4, 64, 512, false);
    config.architecture = architecture;
    config.qk_norm = architecture == Architecture::qwen3;
    return config;
}

std::string channel_config(const std::string& ignore) {
    return R"({"quant_method": "compressed-tensors", "format": "float-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 8,
            "type": "float", "symmetric": true, "dynamic": false, "strategy": "channel"}}},
        "ignore": [)" +
           ignore + "]}";
}

std::string block_config(const std::string& skip) {
    return R"({"quant_method": "fp8", "activation_scheme": "dynamic",
        "weight_block_size": [128, 128], "modules_to_not_convert": [)" +
           skip + "]}";
}

/// Of the checkpoint that `engine` itself would want under this config.
core::Findings errors_of_strict(const std::string& config, const std::string& engine,
                                Architecture architecture = Architecture::qwen3) {
    const model::ModelConfig model = small(architecture);
    const auto strict = instance_with("strict", config, model, 1);
    core::Findings findings =
        receiver::check_manifest(list_of(instance_with(engine, config, model, 1)), strict);
    std::erase_if(findings, [](const auto& f) { return f.severity != core::Severity::error; });
    return findings;
}

/// The three parts of a fused layer by their paths.
const char* const kQkv =
    R"("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj",
       "model.layers.0.self_attn.v_proj")";

TEST(StrictProfile, PassesWhatEveryEnginePasses) {
    for (const char* ignore : {R"("lm_head")", R"("lm_head", "re:.*self_attn.*")",
                               R"("lm_head", "model.layers.0.mlp.down_proj")"}) {
        EXPECT_TRUE(errors_of_strict(channel_config(ignore), "vllm-compressed-tensors").empty())
            << ignore;
    }
    for (const char* skip : {"", R"("lm_head", "model.layers.0.mlp.down_proj")", kQkv}) {
        EXPECT_TRUE(errors_of_strict(block_config(skip), "vllm-fp8").empty()) << skip;
    }
}

TEST(StrictProfile, AsksEveryEngineForItsReadingOfTheSkipList) {
    // SGLang does not look for the parts of its fused layers on the list of compressed-tensors.
    const core::Findings ignored =
        errors_of_strict(channel_config(kQkv), "vllm-compressed-tensors");
    ASSERT_FALSE(ignored.empty());
    EXPECT_EQ(ignored[0].tensor, "model.layers.0.self_attn.q_proj.weight");
    EXPECT_THAT(ignored[0].message, HasSubstr("sglang-compressed-tensors"));
    EXPECT_EQ(ignored[0].engine_behaviour, "silently_wrong");
    // SGLang skips by components of the path, vLLM by the whole of it.
    const core::Findings component = errors_of_strict(block_config(R"("mlp")"), "sglang-fp8");
    ASSERT_FALSE(component.empty());
    // transformers takes an entry for the beginning of a path.
    const core::Findings beginning =
        errors_of_strict(block_config(R"("model.layers.0.mlp.d")"), "vllm-fp8");
    ASSERT_FALSE(beginning.empty());
    EXPECT_EQ(beginning[0].tensor, "model.layers.0.mlp.down_proj.weight");
    EXPECT_THAT(beginning[0].message, HasSubstr("transformers-fp8"));
}

TEST(StrictProfile, RefusesAConfigThatOneEngineReadsAsAnotherScheme) {
    // Without a block size transformers takes blocks of 128, the others one scale a tensor.
    const std::string config = R"({"quant_method": "fp8", "activation_scheme": "dynamic"})";
    const core::Findings findings = errors_of_strict(config, "vllm-fp8");
    ASSERT_EQ(findings.size(), 1U);
    EXPECT_EQ(findings[0].tensor, "quantization_config");
    EXPECT_THAT(findings[0].message, HasSubstr("transformers-fp8"));
    // The default config of the scheme is one that all read alike.
    const auto model = small(Architecture::llama);
    const auto strict = instance_of("strict", Scheme::fp8_tensorwise, model, 1);
    EXPECT_TRUE(strict.refusals.empty());
    EXPECT_EQ(strict.members.size(), 2U);
    EXPECT_TRUE(receiver::check_manifest(list_of(strict), strict).empty());
}

TEST(StrictProfile, RefusesAnEntryThatIsNoPatternWhereOneEngineWantsPatterns) {
    // transformers compiles every entry as a regular expression.
    const core::Findings findings = errors_of_strict(block_config(R"("*lm_head")"), "vllm-fp8");
    ASSERT_EQ(findings.size(), 1U);
    EXPECT_THAT(findings[0].message, HasSubstr("*lm_head"));
    EXPECT_EQ(findings[0].engine_behaviour, "raises");
}

TEST(StrictProfile, LeavesOutEnginesThatCannotHoldTheModel) {
    const auto model = small(Architecture::qwen3);
    // transformers has no tensor parallelism for these weights.
    EXPECT_EQ(instance_of("strict", Scheme::fp8_blockwise, model, 1).members.size(), 3U);
    EXPECT_EQ(instance_of("strict", Scheme::fp8_blockwise, model, 2).members.size(), 2U);
    EXPECT_EQ(instance_of("strict", Scheme::fp8_channelwise, model, 1).members.size(), 3U);
}

TEST(StrictProfile, SaysThatHalfPrecisionScalesAreWidenedWithoutLoss) {
    const auto strict = instance_of("strict", Scheme::fp8_blockwise, small(Architecture::qwen3), 1);
    wire::RefitManifest manifest = list_of(strict);
    const std::string name = "model.layers.0.mlp.down_proj.weight_scale_inv";
    for (const DType dtype : {DType::bf16, DType::f16}) {
        manifest.parameters[static_cast<std::size_t>(manifest.find(name))].dtype = dtype;
        const auto found = findings_of(receiver::check_manifest(manifest, strict), "dtype", name);
        ASSERT_EQ(found.size(), 1U);
        EXPECT_THAT(found[0].message, HasSubstr("widen it without loss"));
        EXPECT_THAT(found[0].message, testing::Not(HasSubstr("casts it")));
        EXPECT_THAT(found[0].remedy, HasSubstr("F32"));
    }
    manifest.parameters[static_cast<std::size_t>(manifest.find(name))].dtype = DType::i32;
    const auto found = findings_of(receiver::check_manifest(manifest, strict), "dtype", name);
    ASSERT_EQ(found.size(), 1U);
    EXPECT_THAT(found[0].message, testing::Not(HasSubstr("without loss")));
}

TEST(DTypesOfNoEngine, AreNamedWithWhatBecomesOfThem) {
    struct Row {
        DType dtype;
        const char* behaviour;
        const char* said;
    };
    const Row rows[] = {{DType::f8_e4m3fnuz, "silently_wrong", "MI300"},
                        {DType::f8_e5m2fnuz, "silently_wrong", "MI300"},
                        {DType::f8_e5m2, "silently_wrong", "without a scale"},
                        {DType::f4, "raises", "no conversion"},
                        {DType::f6_e3m2, "raises", "no conversion"},
                        {DType::c64, "silently_wrong", "imaginary"}};
    const auto instance =
        instance_of("vllm-fp8", Scheme::fp8_blockwise, small(Architecture::qwen3), 1);
    const std::string name = "model.layers.0.mlp.down_proj.weight";
    for (const Row& row : rows) {
        wire::RefitManifest manifest = list_of(instance);
        manifest.parameters[static_cast<std::size_t>(manifest.find(name))].dtype = row.dtype;
        const auto found = findings_of(receiver::check_manifest(manifest, instance), "dtype", name);
        ASSERT_EQ(found.size(), 1U);
        EXPECT_EQ(found[0].engine_behaviour, row.behaviour);
        EXPECT_THAT(found[0].message, HasSubstr(row.said));
        EXPECT_EQ(found[0].severity, core::Severity::error);
    }
}

}  // namespace
}  // namespace refit::receiver_test
