// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "model/hf_config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "core/error.hpp"

namespace refit::model {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

// The text of published files, down to the keys that the reader passes over.
constexpr const char* kLlama31 = R"({
  "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "bos_token_id": 128000, "eos_token_id": 128001, "hidden_act": "silu", "hidden_size": 4096,
  "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 131072,
  "mlp_bias": false, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
  "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
  "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                   "original_max_position_embeddings": 8192, "rope_type": "llama3"},
  "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
  "transformers_version": "4.43.0.dev0", "use_cache": true, "vocab_size": 128256})";
constexpr const char* kQwen25 = R"({
  "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
  "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02,
  "intermediate_size": 4864, "max_position_embeddings": 32768, "max_window_layers": 24,
  "model_type": "qwen2", "num_attention_heads": 14, "num_hidden_layers": 24,
  "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
  "sliding_window": 32768, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
  "transformers_version": "4.40.1", "use_cache": true, "use_mrope": false,
  "use_sliding_window": false, "vocab_size": 151936})";
constexpr const char* kQwen3 = R"({
  "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu",
  "hidden_size": 1024, "initializer_range": 0.02, "intermediate_size": 3072,
  "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
  "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
  "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null,
  "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.51.0",
  "use_cache": true, "use_sliding_window": false, "vocab_size": 151936})";

class HfConfig : public testing::Test {
 protected:
    void SetUp() override {
        file_ = std::filesystem::path(testing::TempDir()) /
                (std::string("refit_") +
                 testing::UnitTest::GetInstance()->current_test_info()->name() + ".json");
    }
    void TearDown() override { std::filesystem::remove(file_); }

    ModelConfig read(const std::string& text) {
        std::ofstream(file_, std::ios::binary) << text;
        return read_hf_config(file_);
    }
    /// kLlama31 with one piece replaced.
    ModelConfig read_with(std::string from, const std::string& to, std::string text = kLlama31) {
        const std::size_t at = text.find(from);
        EXPECT_NE(at, std::string::npos) << from;
        return read(text.replace(at, from.size(), to));
    }
    void expect_refused(const std::string& from, const std::string& to, const std::string& key,
                        const std::string& found, const std::string& supported,
                        const std::string& text = kLlama31) {
        EXPECT_THAT([&] { (void)read_with(from, to, text); },
                    ThrowsMessage<core::FileError>(AllOf(HasSubstr(file_.string()), HasSubstr(key),
                                                         HasSubstr(found), HasSubstr(supported))))
            << to;
    }

    std::filesystem::path file_;
};

TEST_F(HfConfig, ReadsLlama) {
    const ModelConfig config = read(kLlama31);
    EXPECT_EQ(config.architecture, Architecture::llama);
    EXPECT_EQ(config.name, file_.string());
    EXPECT_EQ(config.hidden, 4096);
    EXPECT_EQ(config.intermediate, 14336);
    EXPECT_EQ(config.layers, 32);
    EXPECT_EQ(config.heads, 32);
    EXPECT_EQ(config.kv_heads, 8);
    EXPECT_EQ(config.head_dim, 128);  // 4096 / 32: the file has no such key
    EXPECT_EQ(config.vocabulary, 128256);
    EXPECT_FALSE(config.tied_embeddings);
    EXPECT_FALSE(config.qkv_bias);
    EXPECT_FALSE(config.qk_norm);
}

TEST_F(HfConfig, ReadsQwen2WithItsBiases) {
    const ModelConfig config = read(kQwen25);
    EXPECT_EQ(config.architecture, Architecture::qwen2);
    EXPECT_EQ(config.head_dim, 64);
    EXPECT_TRUE(config.qkv_bias);
    EXPECT_FALSE(config.qk_norm);
    EXPECT_TRUE(config.tied_embeddings);
}

TEST_F(HfConfig, ReadsQwen3WithItsOwnHeadDim) {
    const ModelConfig config = read(kQwen3);
    EXPECT_EQ(config.architecture, Architecture::qwen3);
    EXPECT_EQ(config.head_dim, 128);
    EXPECT_FALSE(config.qkv_bias);
    EXPECT_TRUE(config.qk_norm);
}

TEST_F(HfConfig, TakesTheDefaultsOfTheConfigurationClasses) {
    EXPECT_EQ(read_with("\"num_key_value_heads\": 8,", "").kv_heads, 32);
    EXPECT_EQ(
        read_with("\"num_key_value_heads\": 2", "\"num_key_value_heads\": null", kQwen25).kv_heads,
        14);
    EXPECT_EQ(read_with("\"head_dim\": 128,", "", kQwen3).head_dim, 128);
    EXPECT_FALSE(read_with("\"tie_word_embeddings\": true,", "", kQwen3).tied_embeddings);
    EXPECT_EQ(read_with("\"architectures\": [\"LlamaForCausalLM\"],", "").architecture,
              Architecture::llama);
    EXPECT_EQ(read_with("\"model_type\": \"llama\",", "").architecture, Architecture::llama);
    EXPECT_EQ(read_with("torch_dtype", "dtype").hidden, 4096);
}

TEST_F(HfConfig, KeepsTheQuantizationConfigAsText) {
    const ModelConfig config = read_with(
        "\"use_cache\"", R"("quantization_config": {"quant_method": "fp8"}, "use_cache")");
    ASSERT_TRUE(config.quantization_config.has_value());
    EXPECT_EQ(*config.quantization_config, R"({"quant_method":"fp8"})");
    EXPECT_FALSE(read_with("\"use_cache\"", "\"quantization_config\": null, \"use_cache\"")
                     .quantization_config.has_value());
}

TEST_F(HfConfig, RefusesAnArchitectureThatItDoesNotKnow) {
    expect_refused("LlamaForCausalLM", "DeepseekV3ForCausalLM", "architectures",
                   "DeepseekV3ForCausalLM", "LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM");
    expect_refused("\"llama\"", "\"gemma3\"", "model_type", "gemma3", "llama, qwen2, qwen3");
    expect_refused("\"llama\"", "\"qwen3\"", "model_type", "qwen3",
                   "\"llama\", which architectures");
    expect_refused("[\"LlamaForCausalLM\"]", "[]", "architectures", "[]", "a list of one");
    EXPECT_THAT([&] { (void)read("{}"); },
                ThrowsMessage<core::FileError>(HasSubstr("architectures is absent")));
}

TEST_F(HfConfig, RefusesFiguresThatAreNoDimensions) {
    expect_refused("\"hidden_size\": 4096", "\"hidden_size\": \"4096\"", "hidden_size", "\"4096\"",
                   "a whole number");
    expect_refused("\"hidden_size\": 4096", "\"hidden_size\": 4096.0", "hidden_size", "4096.0",
                   "a whole number");
    expect_refused("\"hidden_size\": 4096", "\"hidden_size\": -4096", "hidden_size", "-4096",
                   "a whole number");
    expect_refused("\"hidden_size\": 4096", "\"hidden_size\": 18446744073709551615", "hidden_size",
                   "18446744073709551615", "a whole number");
    expect_refused("\"hidden_size\": 4096,", "", "hidden_size", "absent", "a whole number");
    expect_refused("\"num_hidden_layers\": 32", "\"num_hidden_layers\": 0", "num_hidden_layers",
                   "is 0", "from 1");
    expect_refused("\"num_key_value_heads\": 8", "\"num_key_value_heads\": 5",
                   "num_key_value_heads", "is 5", "a divisor of num_attention_heads = 32");
    expect_refused("\"num_key_value_heads\": 2,", "", "num_key_value_heads", "absent",
                   "a whole number", kQwen25);
    expect_refused("\"num_attention_heads\": 32", "\"num_attention_heads\": 24", "head_dim", "4096",
                   "written out");
}

TEST_F(HfConfig, RefusesWhatWouldAddTensorsOrChangeTheirType) {
    expect_refused("\"attention_bias\": false", "\"attention_bias\": true", "attention_bias",
                   "true", "false for LlamaForCausalLM");
    expect_refused("\"mlp_bias\": false", "\"mlp_bias\": true", "mlp_bias", "true", "false");
    expect_refused("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": 0",
                   "tie_word_embeddings", "is 0", "true or false");
    expect_refused("\"bfloat16\"", "\"float8_e4m3fn\"", "torch_dtype", "float8_e4m3fn", "bfloat16");
    expect_refused("\"use_cache\": true", "\"quantization_config\": \"fp8\"", "quantization_config",
                   "\"fp8\"", "an object");
}

TEST_F(HfConfig, RefusesFilesThatAreNoJsonObject) {
    EXPECT_THAT(
        [&] { (void)read("{\"hidden_size\": "); },
        ThrowsMessage<core::FileError>(AllOf(HasSubstr(file_.string()), HasSubstr("not JSON"))));
    EXPECT_THAT([&] { (void)read("[]"); }, ThrowsMessage<core::FileError>(HasSubstr("JSON array")));
    EXPECT_THAT([&] { (void)read(""); }, ThrowsMessage<core::FileError>(HasSubstr("not JSON")));
    EXPECT_THAT([&] { (void)read_hf_config(file_.string() + ".absent"); },
                ThrowsMessage<core::FileError>(HasSubstr("no such file")));
    EXPECT_THAT([&] { (void)read_hf_config(testing::TempDir()); },
                ThrowsMessage<core::FileError>(HasSubstr("is a directory")));
}

}  // namespace
}  // namespace refit::model
