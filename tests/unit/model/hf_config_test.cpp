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

constexpr const char* kQwen3Moe = R"({
  "architectures": ["Qwen3MoeForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "bos_token_id": 151643, "decoder_sparse_step": 1, "eos_token_id": 151645, "head_dim": 128,
  "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 6144,
  "max_position_embeddings": 40960, "max_window_layers": 48, "mlp_only_layers": [],
  "model_type": "qwen3_moe", "moe_intermediate_size": 768, "norm_topk_prob": true,
  "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8,
  "num_hidden_layers": 48, "num_key_value_heads": 4, "output_router_logits": false,
  "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000.0,
  "router_aux_loss_coef": 0.001, "sliding_window": null, "tie_word_embeddings": false,
  "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": true,
  "use_sliding_window": false, "vocab_size": 151936})";
constexpr const char* kDeepseekV3 = R"({
  "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"}, "bos_token_id": 0,
  "eos_token_id": 1, "ep_size": 1, "first_k_dense_replace": 3, "hidden_act": "silu",
  "hidden_size": 7168, "initializer_range": 0.02, "intermediate_size": 18432,
  "kv_lora_rank": 512, "max_position_embeddings": 163840, "model_type": "deepseek_v3",
  "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 256,
  "n_shared_experts": 1, "norm_topk_prob": true, "num_attention_heads": 128,
  "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": 128,
  "num_nextn_predict_layers": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
  "qk_rope_head_dim": 64, "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3",
  "quant_method": "fp8", "weight_block_size": [128, 128]}, "rms_norm_eps": 1e-06,
  "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
  "tie_word_embeddings": false, "topk_group": 4, "topk_method": "noaux_tc",
  "torch_dtype": "bfloat16", "transformers_version": "4.33.1", "use_cache": true,
  "v_head_dim": 128, "vocab_size": 129280})";

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

TEST_F(HfConfig, ReadsQwen3Moe) {
    const ModelConfig config = read(kQwen3Moe);
    EXPECT_EQ(config.architecture, Architecture::qwen3_moe);
    EXPECT_TRUE(config.qk_norm);
    EXPECT_FALSE(config.router_bias);
    EXPECT_EQ(config.head_dim, 128);
    EXPECT_EQ(config.experts, 128);
    EXPECT_EQ(config.experts_per_token, 8);
    EXPECT_EQ(config.moe_intermediate, 768);
    EXPECT_EQ(config.shared_experts, 0);
    EXPECT_EQ(config.moe_layer_every, 1);
    EXPECT_EQ(config.mtp_layers, 0);
    EXPECT_EQ(config.kv_lora_rank, 0);
    const ModelConfig sparse =
        read_with("\"mlp_only_layers\": []", "\"mlp_only_layers\": [0, 5]", kQwen3Moe);
    EXPECT_EQ(sparse.dense_layers, (std::vector<std::int64_t>{0, 5}));
    EXPECT_EQ(read_with("\"decoder_sparse_step\": 1", "\"decoder_sparse_step\": 2", kQwen3Moe)
                  .moe_layer_every,
              2);
    EXPECT_EQ(read_with("\"num_experts\"", "\"num_local_experts\"", kQwen3Moe).experts, 128);
    // The class derives an absent head_dim: 2048 / 32.
    EXPECT_EQ(read_with("\"head_dim\": 128,", "", kQwen3Moe).head_dim, 64);
}

TEST_F(HfConfig, ReadsDeepseekV3AndKimiK2) {
    for (const char* type : {"deepseek_v3", "kimi_k2"}) {
        const ModelConfig config =
            read_with("\"deepseek_v3\"", std::string("\"") + type + "\"", kDeepseekV3);
        EXPECT_EQ(config.architecture, Architecture::deepseek_v3);
        EXPECT_FALSE(config.qk_norm);
        EXPECT_TRUE(config.router_bias);
        EXPECT_EQ(config.heads, 128);
        EXPECT_EQ(config.kv_heads, 128);
        EXPECT_EQ(config.head_dim, 192);
        EXPECT_EQ(config.experts, 256);
        EXPECT_EQ(config.experts_per_token, 8);
        EXPECT_EQ(config.moe_intermediate, 2048);
        EXPECT_EQ(config.shared_experts, 1);
        EXPECT_EQ(config.first_dense_layers, 3);
        EXPECT_EQ(config.q_lora_rank, 1536);
        EXPECT_EQ(config.kv_lora_rank, 512);
        EXPECT_EQ(config.nope_head_dim, 128);
        EXPECT_EQ(config.rope_head_dim, 64);
        EXPECT_EQ(config.v_head_dim, 128);
        EXPECT_EQ(config.mtp_layers, 1);
        EXPECT_TRUE(config.quantization_config.has_value());
    }
}

TEST_F(HfConfig, TakesTheDefaultsOfTheDeepseekConfigurationClass) {
    const auto read_without = [&](const std::string& text) {
        return read_with(text, "", kDeepseekV3);
    };
    EXPECT_EQ(read_without("\"kv_lora_rank\": 512,").kv_lora_rank, 512);
    EXPECT_EQ(read_without("\"q_lora_rank\": 1536,").q_lora_rank, 1536);
    EXPECT_EQ(read_with("\"q_lora_rank\": 1536", "\"q_lora_rank\": null", kDeepseekV3).q_lora_rank,
              0);
    EXPECT_EQ(read_without("\"first_k_dense_replace\": 3,").first_dense_layers, 3);
    EXPECT_EQ(read_without("\"n_shared_experts\": 1,").shared_experts, 1);
    EXPECT_EQ(read_with("\"n_shared_experts\": 1", "\"n_shared_experts\": null", kDeepseekV3)
                  .shared_experts,
              0);
    EXPECT_EQ(read_without("\"num_nextn_predict_layers\": 1,").mtp_layers, 0);
    EXPECT_EQ(read_with("num_nextn_predict_layers", "num_mtp_layers", kDeepseekV3).mtp_layers, 1);
    EXPECT_TRUE(read_without("\"topk_method\": \"noaux_tc\",").router_bias);
    EXPECT_FALSE(read_with("noaux_tc", "greedy", kDeepseekV3).router_bias);
    EXPECT_FALSE(read_with("\"noaux_tc\"", "null", kDeepseekV3).router_bias);
}

TEST_F(HfConfig, RefusesExpertsThatCannotBe) {
    expect_refused("\"num_experts_per_tok\": 8", "\"num_experts_per_tok\": 129",
                   "num_experts_per_tok", "is 129", "at most num_experts = 128", kQwen3Moe);
    expect_refused("\"num_experts_per_tok\": 8,", "", "num_experts_per_tok", "absent",
                   "a whole number from 1", kQwen3Moe);
    expect_refused("\"moe_intermediate_size\": 768,", "", "moe_intermediate_size", "absent",
                   "a whole number from 1", kQwen3Moe);
    expect_refused("\"num_experts\": 128,", "", "num_experts", "absent", "a whole number from 1",
                   kQwen3Moe);
    expect_refused("\"num_experts\": 128", "\"num_experts\": 0", "num_experts", "is 0", "from 1",
                   kQwen3Moe);
    expect_refused("\"num_experts\": 128", "\"num_experts\": 1000000", "num_experts", "1000000",
                   "in all layers together", kQwen3Moe);
    expect_refused("\"num_experts\": 128", "\"num_local_experts\": 64, \"num_experts\": 128",
                   "num_experts", "128 and num_local_experts is 64", "one value", kQwen3Moe);
    expect_refused("\"decoder_sparse_step\": 1", "\"decoder_sparse_step\": 0",
                   "decoder_sparse_step", "is 0", "from 1", kQwen3Moe);
    for (const char* list : {"[-1]", "[1.0]", "3", "[\"0\"]"}) {
        expect_refused("\"mlp_only_layers\": []", std::string("\"mlp_only_layers\": ") + list,
                       "mlp_only_layers", list, "a list of layer numbers", kQwen3Moe);
    }
    expect_refused("\"num_key_value_heads\": 4", "\"num_key_value_heads\": 5",
                   "num_key_value_heads", "is 5", "a divisor of num_attention_heads = 32",
                   kQwen3Moe);
    expect_refused("\"n_group\": 8", "\"n_group\": 7", "n_group", "is 7",
                   "a divisor of n_routed_experts = 256", kDeepseekV3);
    expect_refused("\"topk_group\": 4", "\"topk_group\": 9", "topk_group", "is 9",
                   "at most n_group = 8", kDeepseekV3);
    expect_refused("\"n_routed_experts\": 256", "\"n_routed_experts\": null", "n_routed_experts",
                   "null", "from 1", kDeepseekV3);
    expect_refused("\"moe_layer_freq\": 1", "\"moe_layer_freq\": [0, 1]", "moe_layer_freq", "[0,1]",
                   "a whole number", kDeepseekV3);
    expect_refused("\"num_nextn_predict_layers\": 1", "\"num_nextn_predict_layers\": -1",
                   "num_nextn_predict_layers", "is -1", "from 0", kDeepseekV3);
}

TEST_F(HfConfig, RefusesLatentAttentionThatCannotBe) {
    expect_refused("\"kv_lora_rank\": 512", "\"kv_lora_rank\": 0", "kv_lora_rank", "is 0", "from 1",
                   kDeepseekV3);
    expect_refused("\"qk_rope_head_dim\": 64", "\"qk_rope_head_dim\": 63", "qk_rope_head_dim",
                   "is 63", "an even number", kDeepseekV3);
    expect_refused("\"v_head_dim\": 128", "\"v_head_dim\": \"128\"", "v_head_dim", "\"128\"",
                   "a whole number", kDeepseekV3);
    expect_refused("\"attention_bias\": false", "\"attention_bias\": true", "attention_bias",
                   "true", "false for DeepseekV3ForCausalLM", kDeepseekV3);
    expect_refused("\"deepseek_v3\"", "\"qwen3_moe\"", "model_type", "qwen3_moe",
                   "\"deepseek_v3, kimi_k2\", which architectures", kDeepseekV3);
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
    expect_refused("LlamaForCausalLM", "MambaForCausalLM", "architectures", "MambaForCausalLM",
                   "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, "
                   "Qwen3MoeForCausalLM, DeepseekV3ForCausalLM");
    expect_refused("\"llama\"", "\"gemma3\"", "model_type", "gemma3",
                   "llama, mistral, qwen2, qwen3, qwen3_moe, deepseek_v3, kimi_k2");
    expect_refused("\"llama\"", "\"qwen3\"", "model_type", "qwen3",
                   "\"llama\", which architectures");
    expect_refused("[\"LlamaForCausalLM\"]", "[]", "architectures", "[]", "a list of one");
    EXPECT_THAT([&] { (void)read("{}"); },
                ThrowsMessage<core::FileError>(HasSubstr("architectures is absent")));
}

TEST_F(HfConfig, ReadsMistralAsLlamaWithoutItsDefaultOfHeads) {
    // The figures of Mistral-7B-Instruct-v0.3.
    const std::string mistral = R"({
      "architectures": ["MistralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1,
      "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
      "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral",
      "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
      "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "sliding_window": null,
      "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_cache": true,
      "vocab_size": 32768})";
    const ModelConfig config = read(mistral);
    EXPECT_EQ(config.architecture, Architecture::llama);
    EXPECT_EQ(config.kv_heads, 8);
    EXPECT_EQ(config.head_dim, 128);
    EXPECT_EQ(tensors_of(config).size(), 3U + 32U * 9U);

    EXPECT_EQ(
        read_with("\"num_key_value_heads\": 8", "\"num_key_value_heads\": null", mistral).kv_heads,
        32);
    expect_refused("\"num_key_value_heads\": 8,", "", "num_key_value_heads", "absent",
                   "a whole number", mistral);
    expect_refused("\"mistral\"", "\"qwen3\"", "model_type", "qwen3", "\"mistral\", which",
                   mistral);
}

TEST_F(HfConfig, NamesTheKeysOfDeepSeekThatAFileLeavesOut) {
    EXPECT_TRUE(read(kDeepseekV3).left_out.empty());
    const ModelConfig config = read_with("\"topk_method\": \"noaux_tc\",", "", kDeepseekV3);
    EXPECT_THAT(config.left_out, testing::ElementsAre("topk_method"));
    EXPECT_TRUE(config.router_bias);
    EXPECT_THAT(read_with("\"moe_layer_freq\": 1,", "", kDeepseekV3).left_out,
                testing::ElementsAre("moe_layer_freq"));
    EXPECT_TRUE(read(kLlama31).left_out.empty());
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
