// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Scales of the KV cache: which names load into which parameter, and what an engine ends with when
// they do not come. The tables follow from running the engines' own mapping functions by hand.
#include "receiver/cache_scales.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "receiver/contract_check.hpp"
#include "receiver/host_scales.hpp"
#include "receiver/kernel_format.hpp"
#include "receiver/layerwise_reload.hpp"
#include "refit_fixture.hpp"

namespace refit::receiver_test {
namespace {

using model::Architecture;
using quant::Scheme;
using receiver::CacheScales;
using ::testing::HasSubstr;

const std::string kLayer = "model.layers.1.self_attn.";

model::ModelConfig model_of(Architecture architecture) {
    model::ModelConfig config = dense(512, 512, 2, 4, 2, 128, 512, false);
    config.architecture = architecture;
    return config;
}

receiver::ContractInstance instance_with_scales(const std::string& engine, Scheme scheme,
                                                Architecture architecture, CacheScales which,
                                                int tp = 2) {
    const auto config = receiver::parse_quantization_config(
        engine, receiver::default_quantization_config(engine, scheme, ""));
    return receiver::apply_contract(receiver::find_engine(engine), model_of(architecture), config,
                                    tp, 1, which);
}

receiver::ContractInstance vllm(CacheScales which = CacheScales::kv, int tp = 2) {
    return instance_with_scales("vllm-fp8", Scheme::fp8_blockwise, Architecture::llama, which, tp);
}

/// The parameter that a name is loaded into, without the layer; "" where it is dropped.
std::string target(const std::string& engine, Scheme scheme, Architecture architecture,
                   const std::string& end) {
    const auto config = receiver::parse_quantization_config(
        engine, receiver::default_quantization_config(engine, scheme, ""));
    const std::string found = receiver::cache_scale_target(receiver::find_engine(engine), config,
                                                           architecture, kLayer + end);
    return found.empty() ? found : found.substr(kLayer.size());
}

TEST(CacheScaleNames, LoadInVllmAsItsMapperSays) {
    const auto vllm_target = [](const std::string& end) {
        return target("vllm-fp8", Scheme::fp8_blockwise, Architecture::qwen3, end);
    };
    for (const char* end : {"k_scale", "attn.k_scale", "k_proj.k_scale", "qkv_proj.k_scale",
                            "kv_scale", "k_proj.output_scale", "k_cache.scale"})
        EXPECT_EQ(vllm_target(end), "attn.k_scale") << end;
    EXPECT_EQ(vllm_target("v_proj.v_scale"), "attn.v_scale");
    EXPECT_EQ(vllm_target("attn.q_scale"), "attn.q_scale");
    // ".attn" goes in front of the last part of any other name that ends so.
    for (const char* end : {"q_proj.q_scale", "k_scale_inv", "attn.kv_scale", "k_proj.weight"})
        EXPECT_EQ(vllm_target(end), "") << end;
    // Names of output scales are those of quant_method fp8.
    EXPECT_EQ(target("vllm-compressed-tensors", Scheme::fp8_channelwise, Architecture::llama,
                     "k_proj.output_scale"),
              "");
    EXPECT_EQ(target("vllm-bf16", Scheme::bf16, Architecture::llama, "k_scale"), "");
    EXPECT_EQ(target("vllm-fp8", Scheme::fp8_blockwise, Architecture::deepseek_v3, "k_scale"), "");
}

TEST(CacheScaleNames, LoadInSglangByTheModelClass) {
    const auto sglang_target = [](Architecture architecture, const std::string& end) {
        return target("sglang-fp8", Scheme::fp8_blockwise, architecture, end);
    };
    EXPECT_EQ(sglang_target(Architecture::llama, "k_scale"), "attn.k_scale");
    EXPECT_EQ(sglang_target(Architecture::llama, "v_proj.v_scale"), "attn.v_scale");
    // Its own parameter's name gets a second ".attn" and is dropped.
    EXPECT_EQ(sglang_target(Architecture::llama, "attn.k_scale"), "");
    EXPECT_EQ(sglang_target(Architecture::llama, "qkv_proj.k_scale"), "");
    EXPECT_EQ(sglang_target(Architecture::qwen2, "attn.k_scale"), "attn.k_scale");
    EXPECT_EQ(sglang_target(Architecture::qwen2, "k_scale"), "");
    EXPECT_EQ(sglang_target(Architecture::qwen3, "k_scale"), "");
    EXPECT_EQ(target("sglang-compressed-tensors", Scheme::fp8_channelwise, Architecture::llama,
                     "k_scale"),
              "");
}

TEST(CacheScales, AreWantedOnceALayerAndHeldWholeOnEveryRank) {
    const receiver::ContractInstance instance = vllm(CacheScales::qkv);
    std::vector<std::string> names;
    for (std::size_t i = 0; i < instance.wanted.size(); ++i) {
        const wire::WantedParameter& wanted = instance.wanted[i];
        if (wanted.calibration.empty()) continue;
        names.push_back(wanted.name);
        EXPECT_EQ(wanted.shape, core::Shape{1});
        EXPECT_EQ(wanted.dtypes.front(), core::DType::f32);
        for (const auto& spans : instance.spans) {
            int held = 0;
            for (const receiver::LoadSpan& span : spans) {
                if (span.wanted != i) continue;
                ++held;
                const auto& destination = instance.destinations[span.destination];
                EXPECT_TRUE(destination.is_scale && destination.is_cache_scale);
                EXPECT_EQ(destination.shape, core::Shape{});
            }
            EXPECT_EQ(held, 1) << wanted.name;
        }
    }
    EXPECT_EQ(names,
              (std::vector<std::string>{
                  "model.layers.0.self_attn.k_scale", "model.layers.0.self_attn.v_scale",
                  "model.layers.0.self_attn.attn.q_scale", "model.layers.1.self_attn.k_scale",
                  "model.layers.1.self_attn.v_scale", "model.layers.1.self_attn.attn.q_scale"}));
    const auto first_wanted = [](const receiver::ContractInstance& one) {
        for (const wire::WantedParameter& wanted : one.wanted)
            if (!wanted.calibration.empty()) return wanted.name;
        return std::string();
    };
    EXPECT_EQ(first_wanted(instance_with_scales("vllm-modelopt", Scheme::fp8_channelwise,
                                                Architecture::llama, CacheScales::kv)),
              "model.layers.0.self_attn.k_proj.k_scale");
    EXPECT_EQ(first_wanted(instance_with_scales("sglang-fp8", Scheme::fp8_blockwise,
                                                Architecture::qwen2, CacheScales::kv)),
              "model.layers.0.self_attn.attn.k_scale");
    EXPECT_EQ(first_wanted(vllm(CacheScales::none)), "");
}

TEST(CacheScales, AreRefusedByNameWhereAnEngineHasNoPlaceForThem) {
    const auto refusal = [](const std::string& engine, Scheme scheme, Architecture architecture,
                            CacheScales which) {
        try {
            (void)instance_with_scales(engine, scheme, architecture, which, 1);
        } catch (const core::ScenarioError& error) {
            return std::string(error.what());
        }
        return std::string();
    };
    EXPECT_THAT(
        refusal("vllm-bf16", Scheme::bf16, Architecture::llama, CacheScales::kv),
        HasSubstr("payload.kv_cache_scales: vllm-bf16 makes no scales of the KV cache without"));
    EXPECT_THAT(
        refusal("transformers-fp8", Scheme::fp8_blockwise, Architecture::llama, CacheScales::kv),
        HasSubstr("transformers-fp8 has no FP8 KV cache"));
    EXPECT_THAT(
        refusal("trtllm-fp8", Scheme::fp8_channelwise, Architecture::llama, CacheScales::kv),
        HasSubstr("trtllm-fp8 has no scales"));
    EXPECT_THAT(refusal("sglang-compressed-tensors", Scheme::fp8_channelwise, Architecture::llama,
                        CacheScales::kv),
                HasSubstr("with quant_method compressed-tensors"));
    EXPECT_THAT(refusal("sglang-fp8", Scheme::fp8_blockwise, Architecture::qwen3, CacheScales::kv),
                HasSubstr("holds none for Qwen3ForCausalLM"));
    EXPECT_THAT(refusal("sglang-fp8", Scheme::fp8_blockwise, Architecture::qwen2, CacheScales::qkv),
                HasSubstr("none of queries"));
    EXPECT_EQ(refusal("sglang-fp8", Scheme::fp8_blockwise, Architecture::qwen2, CacheScales::kv),
              "");
}

TEST(CacheScales, UnderAnotherNameThatTheEngineMapsAreTheSame) {
    const receiver::ContractInstance instance = vllm();
    wire::RefitManifest manifest = list_of(instance);
    for (wire::ParameterMeta& meta : manifest.parameters) {
        if (meta.name == kLayer + "k_scale") meta.name = kLayer + "k_proj.k_scale";
    }
    EXPECT_TRUE(receiver::check_manifest(manifest, instance).empty());
    wire::ParameterMeta again = manifest.parameters.back();
    again.name = kLayer + "attn.k_scale";
    manifest.parameters.push_back(again);
    const core::Findings twice = receiver::check_manifest(manifest, instance);
    ASSERT_EQ(twice.size(), 1U);
    EXPECT_EQ(twice[0].tensor, kLayer + "k_scale");
    EXPECT_EQ(twice[0].measured, "2 times");
}

/// The finding about `missing` after everything but `without` came.
core::Finding after_dropping(const receiver::ContractInstance& instance,
                             const std::vector<std::string>& without, const std::string& missing) {
    wire::RefitManifest manifest = list_of(instance);
    std::erase_if(manifest.parameters, [&](const wire::ParameterMeta& meta) {
        return std::find(without.begin(), without.end(), meta.name) != without.end();
    });
    const core::Findings found = receiver::check_manifest(manifest, instance);
    EXPECT_EQ(found.size(), without.size());
    const auto of_tensor = findings_of(found, "names", missing);
    EXPECT_EQ(of_tensor.size(), 1U);
    return of_tensor.empty() ? core::Finding{} : of_tensor[0];
}

TEST(CacheScales, ThatAreMissingAreReportedWithWhatTheEngineTakesInstead) {
    const std::string k = kLayer + "k_scale";
    const std::string v = kLayer + "v_scale";
    const core::Finding both = after_dropping(vllm(), {k, v}, k);
    EXPECT_EQ(both.engine_behaviour, "warns");
    EXPECT_THAT(both.engine_message, HasSubstr("scaling factor 1.0"));
    const core::Finding value = after_dropping(vllm(), {v}, v);
    EXPECT_EQ(value.engine_behaviour, "silently_wrong");
    EXPECT_THAT(value.message, HasSubstr("the scale of the keys for the values"));
    EXPECT_EQ(after_dropping(vllm(), {k}, k).engine_behaviour, "raises");
    const core::Finding one =
        after_dropping(instance_with_scales("vllm-compressed-tensors", Scheme::fp8_channelwise,
                                            Architecture::llama, CacheScales::kv),
                       {k}, k);
    EXPECT_EQ(one.engine_behaviour, "silently_wrong");
    EXPECT_THAT(one.message, HasSubstr("stays at 1.0"));
    const std::string own = kLayer + "attn.v_scale";
    EXPECT_EQ(after_dropping(instance_with_scales("sglang-fp8", Scheme::fp8_blockwise,
                                                  Architecture::qwen2, CacheScales::kv),
                             {kLayer + "attn.k_scale", own}, own)
                  .engine_behaviour,
              "silently_wrong");
    const std::string q = kLayer + "attn.q_scale";
    EXPECT_EQ(after_dropping(vllm(CacheScales::qkv), {q}, q).engine_behaviour, "warns");
}

TEST(CacheScales, OfOneElementLoadWithAnyNumberOfDimensions) {
    const receiver::ContractInstance instance = vllm();
    const auto findings_with = [&](const core::Shape& shape) {
        wire::RefitManifest manifest = list_of(instance);
        manifest.parameters[static_cast<std::size_t>(manifest.find(kLayer + "v_scale"))].shape =
            shape;
        return receiver::check_manifest(manifest, instance);
    };
    for (const core::Shape& shape : {core::Shape{}, core::Shape{1}, core::Shape{1, 1}})
        EXPECT_TRUE(findings_with(shape).empty()) << core::to_string(shape);
    const core::Findings wrong = findings_with({2});
    ASSERT_FALSE(wrong.empty());
    EXPECT_EQ(wrong[0].check, "shape_contract");
    EXPECT_EQ(wrong[0].engine_message,
              "ValueError: KV-cache scale expects a scalar weight, got shape [2]");
}

TEST(CacheScales, InALayerwiseReloadAreMadeAnewTogetherOrKept) {
    const receiver::ContractInstance instance = vllm();
    const auto after = [&](const std::vector<std::string>& without) {
        receiver::LayerwiseReload reload(instance, 1);
        for (const wire::WantedParameter& wanted : instance.wanted) {
            if (std::find(without.begin(), without.end(), wanted.name) == without.end())
                reload.load(wanted.name);
        }
        return reload.finalize(true);
    };
    EXPECT_TRUE(after({}).empty());
    const core::Findings value = after({kLayer + "v_scale"});
    ASSERT_EQ(value.size(), 1U);
    EXPECT_EQ(value[0].check, "completeness");
    EXPECT_THAT(value[0].message, HasSubstr("the scale of the keys for the values"));
    const core::Findings none = after({kLayer + "k_scale", kLayer + "v_scale"});
    ASSERT_EQ(none.size(), 2U);
    EXPECT_THAT(none[0].message, HasSubstr("keeps those of the refit before"));
    EXPECT_EQ(none[0].engine_behaviour, "silently_wrong");
}

TEST(CacheScales, SentToALiveEngineThatDoesNotTakeThemUpGetAWarning) {
    EXPECT_TRUE(receiver::check_cache_scale_update(vllm(), true).empty());
    const core::Findings plain = receiver::check_cache_scale_update(vllm(), false);
    ASSERT_EQ(plain.size(), 1U);
    EXPECT_EQ(plain[0].severity, core::Severity::warning);
    EXPECT_EQ(plain[0].engine_behaviour, "ignored");
    const auto sglang = instance_with_scales("sglang-fp8", Scheme::fp8_blockwise,
                                             Architecture::qwen2, CacheScales::kv);
    ASSERT_EQ(receiver::check_cache_scale_update(sglang, false).size(), 1U);
    EXPECT_TRUE(receiver::check_cache_scale_update(vllm(CacheScales::none), false).empty());
}

/// Scales with values of their own in a refit that is loaded by one rank.
void set_scale(Refit& refit, const std::string& name, float value) {
    std::memcpy(refit.tensor(name).data(), &value, sizeof value);
}

TEST(HostScales, FollowEveryCommitAndAreFoundWhereTheyDoNot) {
    const receiver::ContractInstance instance = vllm(CacheScales::kv, 1);
    for (const bool stale : {false, true}) {
        Refit refit(instance, 1, 3);
        receiver::LoadFaults faults;
        faults.stale_derived = stale;
        receiver::WeightLoader loader(instance, refit.manifest(), 0, receiver::CommitMode::staged,
                                      faults);
        for (const std::uint64_t version : {1U, 2U}) {
            for (const char* end : {"k_scale", "v_scale"}) {
                set_scale(refit, "model.layers.0.self_attn." + std::string(end), 0.5F);
                set_scale(refit, kLayer + end, 0.125F * static_cast<float>(version));
            }
            loader.begin(version);
            refit.stream(loader, version);
            ASSERT_TRUE(loader.commit(true)) << loader.findings().size();
            const core::Findings found = receiver::check_host_scales(instance, loader.loaded(),
                                                                     loader.host_scales(), version);
            // Only layer 1 has other values in the second refit.
            EXPECT_EQ(found.size(), stale && version == 2 ? 2U : 0U);
            for (const core::Finding& finding : found) {
                const std::string name = finding.tensor.substr(kLayer.size());
                EXPECT_EQ(finding.tensor, kLayer + name);
                EXPECT_TRUE(name == "k_scale" || name == "v_scale") << name;
                EXPECT_NE(finding.message.find(kLayer + "attn." + name + "_float"),
                          std::string::npos)
                    << finding.message;
            }
        }
    }
}

TEST(HostScales, OfAKernelFormatAreThoseOfTheParametersThatCame) {
    const auto instance = instance_with_scales("sglang-fp8", Scheme::fp8_blockwise,
                                               Architecture::qwen2, CacheScales::kv);
    const receiver::ContractInstance kernel = receiver::kernel_instance(instance);
    const wire::KernelLayout layout = receiver::kernel_layout(instance);
    int scales = 0;
    for (const wire::KernelParameter& parameter : layout.parameters) {
        if (!parameter.name.ends_with("attn.k_scale")) continue;
        ++scales;
        ASSERT_EQ(parameter.parts.size(), 1U);
        EXPECT_EQ(parameter.parts[0].source, parameter.name);
        EXPECT_TRUE(parameter.is_scale);
    }
    EXPECT_EQ(scales, 4);  // two layers on two ranks
    EXPECT_EQ(receiver::HostScales(kernel).copies().size(), 4U);
}

}  // namespace
}  // namespace refit::receiver_test
