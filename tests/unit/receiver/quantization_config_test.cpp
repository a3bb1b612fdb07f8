// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "core/error.hpp"
#include "receiver/engine_contract.hpp"
#include "receiver/quantization_config.hpp"

namespace refit::receiver {
namespace {

using quant::Scheme;
using testing::ElementsAre;
using testing::HasSubstr;

std::string refusal(const std::string& engine, const std::string& json) {
    try {
        (void)parse_quantization_config(engine, json);
    } catch (const core::ScenarioError& error) {
        return error.what();
    }
    return "accepted";
}

std::string compressed(
    const std::string& weights, const std::string& extra = "",
    const std::string& inputs = R"({"num_bits": 8, "type": "float", "dynamic": true})") {
    return R"({"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"any name": {)"
           R"("input_activations": )" +
           inputs +
           R"(, "targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "symmetric": true, )" +
           weights + "}}}" + extra + "}";
}

TEST(QuantizationConfig, NoConfigIsBf16) {
    EXPECT_EQ(parse_quantization_config("vllm-bf16", std::nullopt).scheme, Scheme::bf16);
    EXPECT_EQ(parse_quantization_config("vllm-fp8", "null").scheme, Scheme::bf16);
}

TEST(QuantizationConfig, ThePublishedQwenConfigIsBlockwise) {
    // The object of Qwen/Qwen3-0.6B-FP8's config.json.
    const auto config = parse_quantization_config(
        "vllm-fp8",
        R"({"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]})");
    EXPECT_EQ(config.scheme, Scheme::fp8_blockwise);
    EXPECT_EQ(config.quant_method, "fp8");
}

TEST(QuantizationConfig, Fp8WithoutABlockSizeIsPerTensor) {
    EXPECT_EQ(parse_quantization_config(
                  "vllm-fp8", R"({"quant_method": "fp8", "activation_scheme": "dynamic"})")
                  .scheme,
              Scheme::fp8_tensorwise);
    EXPECT_EQ(
        parse_quantization_config(
            "vllm-fp8",
            R"({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": null})")
            .scheme,
        Scheme::fp8_tensorwise);
}

TEST(QuantizationConfig, Fp8NeedsADynamicActivationScheme) {
    EXPECT_THAT(refusal("vllm-fp8", R"({"quant_method": "fp8", "weight_block_size": [128, 128]})"),
                HasSubstr("'activation_scheme' is absent"));
    EXPECT_THAT(
        refusal(
            "vllm-fp8",
            R"({"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": [128, 128]})"),
        HasSubstr("block-wise quantization supports dynamic activation only"));
    EXPECT_THAT(refusal("vllm-fp8", R"({"quant_method": "fp8", "activation_scheme": "static"})"),
                HasSubstr("input_scale"));
    EXPECT_THAT(refusal("vllm-fp8", R"({"quant_method": "fp8", "activation_scheme": "fast"})"),
                HasSubstr("\"fast\""));
}

TEST(QuantizationConfig, BlockSizeIsTwoIntegersOf128) {
    for (const char* size : {"[128]", "128", "[128, 128, 1]", "[128, 1.5]", "[\"128\", \"128\"]"}) {
        EXPECT_THAT(
            refusal(
                "vllm-fp8",
                R"({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": )" +
                    std::string(size) + "}"),
            HasSubstr("exactly two integers"))
            << size;
    }
    EXPECT_THAT(
        refusal(
            "vllm-fp8",
            R"({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [64, 64]})"),
        HasSubstr("is [64,64], expected [128, 128]; every blockwise recipe"));
}

TEST(QuantizationConfig, IgnoredLayersComeBeforeModulesToNotConvert) {
    const std::string start =
        R"({"quant_method": "fp8", "activation_scheme": "dynamic", "modules_to_not_convert": ["b"])";
    EXPECT_THAT(
        parse_quantization_config("vllm-fp8", start + R"(, "ignored_layers": ["a"]})").skip_list,
        ElementsAre("a"));
    EXPECT_THAT(
        parse_quantization_config("vllm-fp8", start + R"(, "ignored_layers": []})").skip_list,
        ElementsAre("b"));
    EXPECT_THAT(refusal("vllm-fp8", start + R"(, "ignored_layers": "a"})"),
                HasSubstr("a list of module names"));
}

TEST(QuantizationConfig, AMethodOfAnotherEngineIsRefused) {
    EXPECT_THAT(refusal("vllm-fp8", compressed(R"("strategy": "channel")")),
                HasSubstr("compressed-tensors"));
    EXPECT_THAT(refusal("vllm-bf16", R"({"quant_method": "fp8"})"),
                HasSubstr("takes no quantization_config"));
    EXPECT_THAT(refusal("vllm-modelopt", R"({"quant_algo": "FP8_PB_WO"})"),
                HasSubstr("quant_method"));
    EXPECT_THAT(refusal("vllm-fp8", "[1]"), HasSubstr("not a JSON object"));
    EXPECT_THAT(refusal("vllm-fp8", "{"), HasSubstr("not a JSON object"));
}

TEST(QuantizationConfig, CompressedTensorsReadsTheStrategyOfAnyGroup) {
    const auto scheme = [](const std::string& weights) {
        return parse_quantization_config("vllm-compressed-tensors", compressed(weights)).scheme;
    };
    EXPECT_EQ(scheme(R"("strategy": "channel")"), Scheme::fp8_channelwise);
    EXPECT_EQ(scheme(R"("strategy": "tensor")"), Scheme::fp8_tensorwise);
    EXPECT_EQ(scheme(R"("strategy": "block", "block_structure": [128, 128])"),
              Scheme::fp8_blockwise);
    EXPECT_EQ(scheme(R"("block_structure": "128x128", "strategy": "block")"),
              Scheme::fp8_blockwise);
    EXPECT_THAT(parse_quantization_config(
                    "vllm-compressed-tensors",
                    compressed(R"("strategy": "channel")", R"(, "ignore": ["lm_head", "re:.*q"])"))
                    .skip_list,
                ElementsAre("lm_head", "re:.*q"));
}

TEST(QuantizationConfig, CompressedTensorsRefusesWhatTheEngineRefuses) {
    const std::string engine = "vllm-compressed-tensors";
    EXPECT_THAT(refusal(engine, compressed(R"("strategy": "group", "group_size": 128)")),
                HasSubstr("strategy"));
    EXPECT_THAT(refusal(engine, compressed(R"("strategy": "block", "block_structure": [64, 64])")),
                HasSubstr("[64,64]"));
    EXPECT_THAT(refusal(engine, compressed(R"("strategy": "channel", "dynamic": true)")),
                HasSubstr("dynamic"));
    EXPECT_THAT(
        refusal(engine, compressed(R"("strategy": "channel")", "", R"({"dynamic": false})")),
        HasSubstr("input_activations.dynamic"));
    EXPECT_THAT(
        refusal(engine, R"({"quant_method": "compressed-tensors", "format": "float-quantized"})"),
        HasSubstr("config_groups"));
    EXPECT_THAT(refusal(engine, R"({"quant_method": "compressed-tensors", "config_groups": {}})"),
                HasSubstr("at least one group"));
    std::string packed = compressed(R"("strategy": "channel")");
    packed.replace(packed.find("float-quantized"), 15, "pack-quantized");
    EXPECT_THAT(refusal(engine, packed),
                HasSubstr("No compressed-tensors compatible scheme was found."));
}

TEST(QuantizationConfig, ModelOptNeedsAnAlgorithm) {
    EXPECT_THAT(refusal("vllm-modelopt", R"({"quant_method": "modelopt"})"),
                HasSubstr("'quant_algo' is absent"));
    EXPECT_THAT(refusal("vllm-modelopt", R"({"quant_method": "modelopt", "quant_algo": "FP8"})"),
                HasSubstr("input_scale"));
    EXPECT_THAT(refusal("vllm-modelopt", R"({"quant_method": "modelopt", "quant_algo": "W4A8"})"),
                HasSubstr("W4A8"));
    EXPECT_EQ(parse_quantization_config(
                  "vllm-modelopt",
                  R"({"quant_method": "modelopt", "quantization": {"quant_algo": "FP8_PB_WO"}})")
                  .scheme,
              Scheme::fp8_blockwise);
    const auto config = parse_quantization_config(
        "vllm-modelopt",
        R"({"quant_method": "modelopt", "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN", "ignore": ["lm_head"]})");
    EXPECT_EQ(config.scheme, Scheme::fp8_channelwise);
    EXPECT_EQ(config.algo, "FP8_PER_CHANNEL_PER_TOKEN");
    EXPECT_THAT(config.skip_list, ElementsAre("lm_head"));
}

// What the engines' own loaders did with a wrong config
// -------------------------------------------------------------------------------------------------

struct Read {
    std::string engine;
    std::string json;
    bool usable;
    std::string severity;  ///< error | warning | none
    std::string text;      ///< within the engine's message
};

std::string fp8(const std::string& rest) {
    return R"({"quant_method": "fp8")" + rest + "}";
}

TEST(ConfigReading, SaysWhatTheEngineDoesAboutTheConfig) {
    const std::string block = R"(, "weight_block_size": [128, 128])";
    const std::string dynamic = R"(, "activation_scheme": "dynamic")";
    const std::string fixed = R"(, "activation_scheme": "static")";
    std::string packed = compressed(R"("strategy": "channel")");
    packed.replace(packed.find("float-quantized"), 15, "pack-quantized");
    const std::string groupless =
        R"({"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {}})";
    const std::string vllm_ct = "vllm-compressed-tensors";
    const std::string sglang_ct = "sglang-compressed-tensors";
    const std::vector<Read> rows = {
        {"vllm-fp8", fp8(block + dynamic), true, "none", ""},
        {"sglang-fp8", fp8(block + dynamic), true, "none", ""},
        {"transformers-fp8", fp8(block + dynamic), true, "none", ""},
        {"strict", fp8(block + dynamic), true, "none", ""},
        {"vllm-fp8", fp8(block), false, "error", "Cannot find any of ['activation_scheme']"},
        {"sglang-fp8", fp8(block), false, "error",
         "ValueError: Cannot find any of ['activation_scheme'] in the model's quantization "
         "config."},
        {"transformers-fp8", fp8(block), true, "none", ""},
        {"sglang-fp8", fp8(block + fixed), false, "error",
         "ValueError: The block-wise quantization only supports dynamic activation scheme for now, "
         "but got static activation scheme."},
        {"transformers-fp8", fp8(block + fixed), true, "warning", ""},
        {"vllm-fp8", fp8(fixed), true, "none", ""},
        {"vllm-modelopt", R"({"quant_method": "modelopt"})", false, "error", "ValidationError"},
        {"vllm-modelopt", R"({"quant_method": "modelopt", "quant_algo": "FP8"})", true, "none", ""},
        {vllm_ct, packed, false, "error", "NotImplementedError"},
        {sglang_ct, packed, true, "warning", ""},
        {vllm_ct, groupless, false, "error", "There is no module or parameter named"},
        {sglang_ct, groupless, false, "error", "KeyError"},
        {vllm_ct, fp8(block + dynamic), false, "error", ""},
        {"sglang-bf16", fp8(block + dynamic), false, "error", ""},
    };
    for (const Read& row : rows) {
        const ConfigReading reading = read_quantization_config(row.engine, row.json);
        EXPECT_EQ(reading.usable, row.usable) << row.engine << " " << row.json;
        std::string severity = "none";
        if (!reading.findings.empty()) {
            severity = core::has_error(reading.findings) ? "error" : "warning";
            EXPECT_THAT(reading.findings.back().engine_message, HasSubstr(row.text));
            EXPECT_EQ(reading.findings.back().tensor, "quantization_config");
            EXPECT_THAT(reading.findings.back().message,
                        HasSubstr(find_engine(row.engine).snapshot));
        }
        EXPECT_EQ(severity, row.severity) << row.engine << " " << row.json;
        // Whatever a checkpoint may hold, a scenario takes nothing that anyone would stumble over.
        const bool fine = severity == "none" && reading.not_for_scenarios.empty();
        EXPECT_EQ(refusal(row.engine, row.json) == "accepted", fine) << row.engine << row.json;
    }
    for (const std::string& engine : {vllm_ct, sglang_ct}) {
        const ConfigReading reading = read_quantization_config(
            engine,
            R"({"quant_method": "compressed-tensors", "config_groups": {"g": {"targets": ["Linear"],
                "weights": {"num_bits": 4, "type": "float", "strategy": "channel"}}}})");
        EXPECT_TRUE(reading.usable);
        ASSERT_EQ(reading.findings.size(), 1U);
        EXPECT_EQ(reading.findings[0].severity, core::Severity::warning);
    }
}

TEST(ConfigReading, OnlySglangRefusesFourBitsAndOnlyWithQuantizedActivations) {
    const auto read = [](const std::string& engine, const char* bits, const std::string& inputs) {
        return read_quantization_config(
            engine,
            R"({"quant_method": "compressed-tensors", "config_groups": {"g": {"targets": ["Linear"],
                "weights": {"type": "float", "strategy": "channel", "num_bits": )" +
                std::string(bits) + "}" + inputs + "}}}");
    };
    const std::string inputs =
        R"(, "input_activations": {"num_bits": 8, "type": "float", "dynamic": true})";
    const ConfigReading four = read("sglang-compressed-tensors", "4", inputs);
    EXPECT_FALSE(four.usable);
    ASSERT_EQ(four.findings.size(), 1U);
    EXPECT_THAT(four.findings[0].engine_message,
                HasSubstr("NotImplementedError: Activation-quantized float4"));
    EXPECT_TRUE(read("sglang-compressed-tensors", "4", "").usable);
    EXPECT_TRUE(read("sglang-compressed-tensors", "6", inputs).usable);
    EXPECT_TRUE(read("vllm-compressed-tensors", "4", inputs).usable);
    EXPECT_TRUE(read("sglang-compressed-tensors", "8", inputs).findings.empty());
}

TEST(ConfigReading, ABlockSizeThatIsLeftOutIsTheDefaultOfTransformersOnly) {
    const auto scheme = [](const std::string& engine, const std::string& rest) {
        return read_quantization_config(engine, fp8(R"(, "activation_scheme": "dynamic")" + rest))
            .config.scheme;
    };
    const std::string null = R"(, "weight_block_size": null)";
    EXPECT_EQ(scheme("transformers-fp8", ""), Scheme::fp8_blockwise);
    EXPECT_EQ(scheme("transformers-fp8", null), Scheme::fp8_tensorwise);
    for (const char* engine : {"vllm-fp8", "sglang-fp8"}) {
        EXPECT_EQ(scheme(engine, ""), Scheme::fp8_tensorwise);
        EXPECT_EQ(scheme(engine, null), Scheme::fp8_tensorwise);
    }
}

TEST(ConfigReading, StaticActivationsAreReadFromCheckpointsOnly) {
    for (const auto& [engine, json] :
         {std::pair{"vllm-fp8", fp8(R"(, "activation_scheme": "static")")},
          std::pair{
              "sglang-compressed-tensors",
              compressed(
                  R"("strategy": "tensor")", "",
                  R"({"num_bits": 8, "type": "float", "dynamic": false, "strategy": "tensor"})")},
          std::pair{
              "vllm-modelopt",
              std::string(
                  R"({"quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head"]}})")}}) {
        const ConfigReading reading = read_quantization_config(engine, json);
        EXPECT_TRUE(reading.usable) << engine;
        EXPECT_TRUE(reading.config.static_activations) << engine;
        EXPECT_EQ(reading.config.scheme, Scheme::fp8_tensorwise) << engine;
        EXPECT_THAT(refusal(engine, json), HasSubstr("input_scale")) << engine;
    }
}

TEST(ConfigReading, GroupsMayComeInAnyOrderAndNumber) {
    const std::string weights =
        R"("weights": {"num_bits": 8, "type": "float", "strategy": "channel"})";
    const auto read = [](const std::string& groups) {
        return read_quantization_config(
            "vllm-compressed-tensors",
            R"({"quant_method": "compressed-tensors", "config_groups": {)" + groups +
                R"(}, "kv_cache_scheme": null, "sparsity_config": {}})");
    };
    const std::string attention =
        R"("a": {"targets": ["re:.*self_attn$"], "weights": null, "output_activations": {}})";
    const ConfigReading one =
        read(attention + R"(, "z": {"targets": ["Linear"], )" + weights + "}");
    EXPECT_TRUE(one.findings.empty());
    EXPECT_EQ(one.config.scheme, Scheme::fp8_channelwise);
    EXPECT_TRUE(one.config.targets.empty());
    const ConfigReading two = read(R"("b": {"targets": ["re:.*q_proj"], )" + weights +
                                   R"(}, "a": {"targets": ["re:.*o_proj"], )" + weights + "}");
    EXPECT_TRUE(two.findings.empty());
    EXPECT_THAT(two.config.targets, testing::UnorderedElementsAre("re:.*q_proj", "re:.*o_proj"));
    const ConfigReading mixed = read(
        R"("b": {"targets": ["re:.*q_proj"], )" + weights +
        R"(}, "a": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "tensor"}})");
    EXPECT_TRUE(mixed.usable);
    EXPECT_TRUE(mixed.findings.empty());
    EXPECT_EQ(mixed.config.scheme, Scheme::fp8_tensorwise);
    EXPECT_EQ(mixed.config.scheme_text(), "fp8_tensorwise+fp8_channelwise");
    ASSERT_EQ(mixed.config.mixed.size(), 2U);
    EXPECT_EQ(mixed.config.mixed[0].target, "re:.*q_proj");
    EXPECT_EQ(mixed.config.mixed[0].format.scheme, Scheme::fp8_channelwise);
    EXPECT_THAT(mixed.not_for_scenarios, HasSubstr("one recipe"));
}

TEST(DefaultQuantizationConfig, IsReadAsTheSchemeItWasMadeFor) {
    for (const EngineContract& contract : engine_catalog()) {
        for (const Scheme scheme : contract.schemes) {
            const std::string json = default_quantization_config(contract.name, scheme, "");
            EXPECT_EQ(parse_quantization_config(contract.name, json).scheme, scheme)
                << contract.name;
            EXPECT_EQ(json.empty(), scheme == Scheme::bf16);
        }
    }
}

TEST(DefaultQuantizationConfig, LeavesOutOfAModelWhatTheEngineCannotHold) {
    model::ModelConfig dense;
    model::ModelConfig latent;
    latent.experts = 8;
    latent.kv_lora_rank = 512;
    const auto of = [](const char* engine, Scheme scheme, const model::ModelConfig& model) {
        const QuantizationConfig config = parse_quantization_config(
            engine, default_quantization_config(engine, scheme, "", model));
        return config.skip_list;
    };
    const std::string pair = "*.self_attn.";
    EXPECT_THAT(of("vllm-modelopt", Scheme::fp8_blockwise, dense), ElementsAre("lm_head"));
    EXPECT_THAT(of("vllm-modelopt", Scheme::fp8_channelwise, latent),
                ElementsAre("lm_head", "*.mlp.experts*"));
    EXPECT_THAT(of("vllm-modelopt", Scheme::fp8_blockwise, latent),
                ElementsAre("lm_head", "*.mlp.experts*", pair + "q_a_proj",
                            pair + "kv_a_proj_with_mqa", pair + "fused_qkv_a_proj"));
    EXPECT_THAT(of("trtllm-fp8", Scheme::fp8_channelwise, latent),
                ElementsAre("lm_head", "*.mlp.experts*"));
    // Engines that hold experts in the config's format leave out what they always do.
    for (const char* engine : {"vllm-fp8", "vllm-compressed-tensors", "transformers-fp8"}) {
        EXPECT_EQ(default_quantization_config(engine, Scheme::fp8_blockwise, "", latent),
                  default_quantization_config(engine, Scheme::fp8_blockwise, ""));
    }
}

TEST(DefaultQuantizationConfig, NamesTheEnginesThatHaveTheScheme) {
    try {
        (void)default_quantization_config("vllm-fp8", Scheme::fp8_channelwise, "");
        FAIL();
    } catch (const core::ScenarioError& error) {
        EXPECT_THAT(error.what(),
                    HasSubstr("vllm-compressed-tensors, vllm-modelopt, sglang-compressed-tensors, "
                              "trtllm-fp8, strict"));
    }
    EXPECT_THROW(
        (void)default_quantization_config("vllm-modelopt", Scheme::fp8_channelwise, "FP8_PB_WO"),
        core::ScenarioError);
    EXPECT_THROW((void)default_quantization_config("vllm-fp8", Scheme::fp8_blockwise, "FP8_PB_WO"),
                 core::ScenarioError);
}

TEST(ConfigReading, MethodsThatHoldFp8InTheirNamesAreOtherMethods) {
    for (const std::string method : {"fbgemm_fp8", "w8a8_fp8", "ptpc_fp8", "modelopt_fp8"}) {
        for (const char* engine : {"vllm-fp8", "sglang-fp8", "transformers-fp8", "strict"}) {
            const std::string json = R"({"activation_scheme": "dynamic", "quant_method": ")" +
                                     method + R"(", "weight_block_size": [128, 128]})";
            EXPECT_THAT(refusal(engine, json), HasSubstr("'quant_method' is \"" + method + '"'));
            EXPECT_FALSE(reads_method(find_engine(engine), method)) << engine;
        }
    }
    EXPECT_THAT(refusal("vllm-fp8", R"({"quant_method": "mxfp8"})"), HasSubstr("MXFP8"));
    EXPECT_FALSE(reads_method(find_engine("vllm-fp8"), "mxfp8"));
}

TEST(ConfigReading, VllmComparesMethodsAndAlgorithmsInAnyCase) {
    const auto read = [](const std::string& engine, const std::string& json) {
        return read_quantization_config(engine, json);
    };
    const std::string fp8 = R"({"activation_scheme": "dynamic", "quant_method": "FP8"})";
    EXPECT_EQ(read("vllm-fp8", fp8).config.quant_method, "fp8");
    EXPECT_FALSE(read("sglang-fp8", fp8).usable);
    std::string groups = compressed(R"("strategy": "channel")");
    groups.replace(groups.find("compressed-tensors"), 18, "Compressed_Tensors");
    EXPECT_EQ(read("vllm-compressed-tensors", groups).config.quant_method, "compressed-tensors");
    EXPECT_TRUE(reads_method(find_engine("vllm-compressed-tensors"), "Compressed_Tensors"));
    EXPECT_FALSE(reads_method(find_engine("sglang-compressed-tensors"), "Compressed_Tensors"));
    EXPECT_EQ(read("vllm-modelopt", R"({"quant_method": "modelopt", "quant_algo": "fp8_pb_wo"})")
                  .config.algo,
              "FP8_PB_WO");
}

TEST(ConfigReading, VllmReadsOneListOfModeloptByTheFormOfTheConfig) {
    const auto list = [](const std::string& engine, const std::string& json) {
        return read_quantization_config(engine, json);
    };
    const std::string flat = R"({"quant_method": "modelopt", "quant_algo": "FP8_PB_WO", )";
    const std::string nested = R"({"quantization": {"quant_algo": "FP8_PB_WO", )";
    EXPECT_THAT(list("vllm-modelopt", flat + R"("ignore": ["a"]})").config.skip_list,
                ElementsAre("a"));
    EXPECT_THAT(list("vllm-modelopt", nested + R"("exclude_modules": ["a"]}})").config.skip_list,
                ElementsAre("a"));
    for (const std::string& json :
         {flat + R"("exclude_modules": ["a"]})", nested + R"("ignore": ["a"]}})"}) {
        const ConfigReading reading = list("vllm-modelopt", json);
        EXPECT_TRUE(reading.config.skip_list.empty()) << json;
        ASSERT_EQ(reading.findings.size(), 1U) << json;
        EXPECT_EQ(reading.findings[0].severity, core::Severity::warning);
        EXPECT_THAT(reading.findings[0].remedy, HasSubstr("rename it"));
    }
    // Both keys with one list say nothing new.
    EXPECT_TRUE(list("vllm-modelopt", flat + R"("ignore": ["a"], "exclude_modules": ["a"]})")
                    .findings.empty());
    const std::string channel =
        R"({"quant_method": "modelopt", "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN", )";
    EXPECT_THAT(list("trtllm-fp8", channel + R"("exclude_modules": ["a"]})").config.skip_list,
                ElementsAre("a"));
}

TEST(ConfigReading, WeightsOfOtherFormatsAreRefusedWithoutWordsOfTheEngine) {
    for (const char* weights :
         {R"("num_bits": 8, "type": "int", "strategy": "channel")",
          R"("num_bits": 4, "type": "int", "strategy": "group", "group_size": 128)",
          R"("num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16)",
          R"("num_bits": 4, "type": "float", "strategy": "group", "group_size": 32)",
          R"("num_bits": 8, "type": "float", "strategy": "group", "group_size": 32)"}) {
        const std::string json =
            R"({"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups":)"
            R"( {"g": {"targets": ["Linear"], "weights": {)" +
            std::string(weights) + "}}}}";
        for (const char* engine : {"vllm-compressed-tensors", "sglang-compressed-tensors"}) {
            const ConfigReading reading = read_quantization_config(engine, json);
            EXPECT_FALSE(reading.usable);
            ASSERT_EQ(reading.findings.size(), 1U);
            EXPECT_THAT(reading.findings[0].message, HasSubstr("no contract")) << weights;
            EXPECT_EQ(reading.findings[0].engine_behaviour, "");
            EXPECT_EQ(reading.findings[0].engine_message, "");
        }
    }
    // FP8 in groups is a scheme that no engine has, and that is what is said.
    EXPECT_THAT(
        refusal("vllm-compressed-tensors", compressed(R"("strategy": "group", "group_size": 64)")),
        HasSubstr("NotImplementedError"));
}

TEST(ConfigReading, TheSchemeOfTheCacheIsOneThatVllmTakes) {
    const auto scheme = [](const std::string& body) {
        return compressed(R"("strategy": "channel")", R"(, "kv_cache_scheme": )" + body);
    };
    const auto said = [&](const std::string& engine, const std::string& body) {
        // The helper closes its groups itself; the scheme stands beside them.
        const std::string json = scheme(body);
        const ConfigReading reading = read_quantization_config(engine, json);
        return reading.findings.empty() ? std::string("accepted") : reading.findings[0].message;
    };
    const std::string right =
        R"({"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": true})";
    EXPECT_EQ(said("vllm-compressed-tensors", right), "accepted");
    EXPECT_EQ(said("vllm-compressed-tensors", "null"), "accepted");
    const auto changed = [&](const std::string& from, const std::string& to) {
        std::string body = right;
        return body.replace(body.find(from), from.size(), to);
    };
    for (const auto& [from, to, key] :
         {std::array{"float", "int", "type"}, std::array{"8", "4", "num_bits"},
          std::array{"tensor", "channel", "strategy"}, std::array{"true", "false", "symmetric"}}) {
        EXPECT_THAT(said("vllm-compressed-tensors", changed(from, to)),
                    HasSubstr(std::string("kv_cache_scheme.") + key));
        EXPECT_EQ(said("sglang-compressed-tensors", changed(from, to)), "accepted");
    }
    EXPECT_EQ(said("vllm-compressed-tensors", changed("tensor", "attn_head")), "accepted");
}

TEST(ConfigReading, TransformsAreRefusedByName) {
    const auto with = [](const std::string& transforms) {
        return refusal(
            "vllm-compressed-tensors",
            compressed(R"("strategy": "channel")", R"(, "transform_config": )" + transforms));
    };
    EXPECT_THAT(with(R"({"config_groups": {"u": {"type": "hadamard"}}})"),
                HasSubstr("'transform_config' is 1 groups"));
    EXPECT_EQ(with("{}"), "accepted");
    EXPECT_EQ(with("null"), "accepted");
}

}  // namespace
}  // namespace refit::receiver
