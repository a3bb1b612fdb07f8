// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Names in checkpoints of DeepSeek models, as SGLang 0.5.23's own loader took them: scales are
// looked for under both of their names but where layers are stacked.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "receiver/contract_check.hpp"
#include "unit/receiver/refit_fixture.hpp"

namespace refit::receiver_test {
namespace {

using core::Severity;
using quant::Scheme;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

const std::string kSecond = "model.layers.1.";

/// The findings after the block scales of these modules were called weight_scale.
core::Findings after_renaming(const std::string& engine, const std::vector<std::string>& modules) {
    const auto instance = instance_of(engine, Scheme::fp8_blockwise, named_model("tiny-mla"), 1);
    wire::RefitManifest manifest = list_of(instance);
    for (const std::string& module : modules) {
        const std::string scale = kSecond + module + ".weight_scale";
        manifest.parameters[static_cast<std::size_t>(manifest.find(scale + "_inv"))].name = scale;
    }
    core::Findings findings = receiver::check_manifest(manifest, instance);
    findings.erase(findings.begin(),
                   findings.begin() + static_cast<std::ptrdiff_t>(instance.refusals.size()));
    return findings;
}

bool fails(const core::Findings& findings) {
    return core::has_error(findings);
}

TEST(DeepseekNames, SglangReadsTheScaleOfALayerOnItsOwnUnderBothNames) {
    for (const char* module : {"mlp.shared_experts.down_proj", "self_attn.o_proj",
                               "self_attn.q_b_proj", "self_attn.kv_b_proj"}) {
        const core::Findings findings = after_renaming("sglang-fp8", {module});
        ASSERT_THAT(findings, SizeIs(1)) << module;
        EXPECT_EQ(findings[0].severity, Severity::warning) << module;
        EXPECT_THAT(findings[0].message, HasSubstr("is read by SGLang 0.5.23 as " + kSecond));
    }
}

TEST(DeepseekNames, SglangRefusesItInStackedLayers) {
    const core::Findings gate = after_renaming("sglang-fp8", {"mlp.shared_experts.gate_proj"});
    ASSERT_THAT(gate, SizeIs(1));
    EXPECT_EQ(gate[0].severity, Severity::error);
    EXPECT_EQ(gate[0].engine_message,
              "KeyError: 'model.layers.1.mlp.shared_experts.gate_up_proj.weight_scale'");

    const core::Findings expert = after_renaming("sglang-fp8", {"mlp.experts.1.down_proj"});
    ASSERT_THAT(expert, SizeIs(1));
    EXPECT_EQ(expert[0].severity, Severity::error);
    EXPECT_THAT(expert[0].engine_message, HasSubstr("TypeError: FusedMoE.weight_loader()"));
}

TEST(DeepseekNames, SglangLosesTheScalesOfAFusedLatentLayerThatHaveDifferentNames) {
    const std::string query = "self_attn.q_a_proj";
    const std::string latent = "self_attn.kv_a_proj_with_mqa";
    EXPECT_TRUE(fails(after_renaming("sglang-fp8", {query})));
    EXPECT_TRUE(fails(after_renaming("sglang-fp8", {latent})));
    const core::Findings both = after_renaming("sglang-fp8", {query, latent});
    EXPECT_THAT(both, SizeIs(2));
    EXPECT_FALSE(fails(both));
}

TEST(DeepseekNames, OtherEnginesTakeOneNameOnly) {
    EXPECT_TRUE(fails(after_renaming("vllm-fp8", {"self_attn.o_proj"})));
    EXPECT_TRUE(fails(after_renaming("strict", {"self_attn.o_proj"})));
    EXPECT_THAT(after_renaming("sglang-fp8", {}), IsEmpty());
}

TEST(DeepseekNames, SglangRefusesUnknownNamesInStackedLayersOnly) {
    const auto found = [](const std::string& name) {
        const auto instance =
            instance_of("sglang-fp8", Scheme::fp8_blockwise, named_model("tiny-mla"), 1);
        wire::RefitManifest manifest = list_of(instance);
        wire::ParameterMeta extra;
        extra.name = name;
        extra.shape = {1};
        manifest.parameters.push_back(extra);
        const core::Findings findings = receiver::check_manifest(manifest, instance);
        const auto of_name =
            std::find_if(findings.begin(), findings.end(),
                         [&](const core::Finding& finding) { return finding.tensor == name; });
        return of_name == findings.end() ? core::Finding{} : *of_name;
    };
    EXPECT_EQ(found("model.layers.0.mlp.gate_proj.rotation").engine_message,
              "KeyError: 'model.layers.0.mlp.gate_up_proj.rotation'");
    EXPECT_EQ(found("model.layers.0.mlp.gate_proj.rotation").severity, Severity::error);
    EXPECT_EQ(found("model.layers.1.mlp.experts.0.gate_proj.rotation").severity, Severity::warning);
    EXPECT_EQ(found("model.layers.0.self_attn.q_proj.rotation").severity, Severity::warning);
}

}  // namespace
}  // namespace refit::receiver_test
