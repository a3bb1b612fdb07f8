// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "model/hf_config.hpp"

#include <array>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string_view>
#include <system_error>
#include <utility>

#include "core/error.hpp"
#include "model/config_text.hpp"

namespace refit::model {
namespace {

using Json = nlohmann::ordered_json;  // engines try the groups of a config in the order of the file

constexpr std::uintmax_t kMaxConfigBytes = std::uintmax_t{16} << 20;
// Far above every model; keeps products of three dimensions within 64 bits.
constexpr std::int64_t kMaxDimension = std::int64_t{1} << 20;

struct Family {
    Architecture architecture;
    const char* class_name;
    const char* model_type;
    /// A file without num_key_value_heads means one a query head. Of Mistral and Qwen it means the
    /// configuration class's 8 and 32, which no real file means.
    bool defaults_to_heads;
};
constexpr std::array<Family, 7> kFamilies = {{
    {Architecture::llama, "LlamaForCausalLM", "llama", true},
    // Tensors and loaders of Llama: MistralForCausalLM is a subclass of LlamaForCausalLM in vLLM
    // 0.33.0 (models/mistral.py) and in SGLang 0.5.23 (srt/models/mistral.py).
    {Architecture::llama, "MistralForCausalLM", "mistral", false},
    {Architecture::qwen2, "Qwen2ForCausalLM", "qwen2", false},
    {Architecture::qwen3, "Qwen3ForCausalLM", "qwen3", false},
    {Architecture::qwen3_moe, "Qwen3MoeForCausalLM", "qwen3_moe", false},
    {Architecture::deepseek_v3, "DeepseekV3ForCausalLM", "deepseek_v3", true},
    // Kimi-K2 is DeepSeek-V3's class under a model_type of its own.
    {Architecture::deepseek_v3, "DeepseekV3ForCausalLM", "kimi_k2", true},
}};

/// One config.json while it is read; every error names the file, the key and what was found.
class Reader {
 public:
    Reader(std::string file, Json json) : file_(std::move(file)), json_(std::move(json)) {}

    /// Of a model whose tensors are not known, so that nothing can be said of its weights.
    [[noreturn]] void refuse_model(const std::string& key, const std::string& found,
                                   const std::string& supported) const {
        throw core::FileError(file_ + ": " + key + " is " + found + "; supported: " + supported +
                              "; which tensors another model has is not known, so that nothing of "
                              "it was judged");
    }
    [[noreturn]] void refuse(const std::string& key, const std::string& found,
                             const std::string& supported) const {
        throw core::FileError(file_ + ": " + key + " is " + found + "; supported: " + supported);
    }

    /// The value, or nullptr where the key is absent or null.
    [[nodiscard]] const Json* find(const std::string& key) const {
        const auto it = json_.find(key);
        return it == json_.end() || it->is_null() ? nullptr : &*it;
    }
    [[nodiscard]] bool has_key(const std::string& key) const { return json_.contains(key); }

    [[nodiscard]] std::int64_t dimension(const std::string& key) const { return number(key, 1); }

    /// `by_default` where the key is absent or null.
    [[nodiscard]] std::int64_t dimension(const std::string& key, std::int64_t by_default) const {
        return find(key) == nullptr ? by_default : number(key, 1);
    }
    /// As dimension, but 0 is a count too.
    [[nodiscard]] std::int64_t count(const std::string& key, std::int64_t by_default) const {
        return find(key) == nullptr ? by_default : number(key, 0);
    }

    /// The first of two names of one figure that the file has, the first of all where it has none.
    /// Files that give both different values are refused.
    [[nodiscard]] std::string either(const char* name, const char* other) const {
        const Json* first = find(name);
        const Json* second = find(other);
        if (first != nullptr && second != nullptr && *first != *second) {
            refuse(name, brief(*first) + " and " + other + " is " + brief(*second),
                   "one value, since they are two names of one figure");
        }
        return first == nullptr && second != nullptr ? other : name;
    }

    /// Whole numbers from 0; none where the key is absent or null.
    [[nodiscard]] std::vector<std::int64_t> indices(const char* key) const {
        std::vector<std::int64_t> values;
        const Json* list = find(key);
        if (list == nullptr) return values;
        const std::string supported = "a list of layer numbers from 0";
        if (!list->is_array()) refuse(key, brief(*list), supported);
        for (const Json& value : *list) {
            // nlohmann stores every non-negative integer as unsigned.
            if (!value.is_number_unsigned() ||
                value.get<std::uint64_t>() > std::uint64_t{kMaxDimension}) {
                refuse(key, brief(*list), supported);
            }
            values.push_back(value.get<std::int64_t>());
        }
        return values;
    }

    [[nodiscard]] bool flag(const char* key) const {
        const Json* value = find(key);
        if (value == nullptr) return false;
        if (!value->is_boolean()) refuse(key, brief(*value), "true or false");
        return value->get<bool>();
    }

    [[nodiscard]] static std::string brief(const Json& value) {
        std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
        constexpr std::size_t kLongest = 80;
        if (text.size() > kLongest) text = text.substr(0, kLongest) + "...";
        return text;
    }

 private:
    [[nodiscard]] std::int64_t number(const std::string& key, std::uint64_t least) const {
        const Json* value = find(key);
        const std::string supported =
            "a whole number from " + std::to_string(least) + " to " + std::to_string(kMaxDimension);
        if (value == nullptr) refuse(key, has_key(key) ? "null" : "absent", supported);
        // nlohmann stores every non-negative integer as unsigned.
        const bool fits = value->is_number_unsigned() && value->get<std::uint64_t>() >= least &&
                          value->get<std::uint64_t>() <= std::uint64_t{kMaxDimension};
        if (!fits) refuse(key, brief(*value), supported);
        return value->get<std::int64_t>();
    }

    std::string file_;
    Json json_;
};

std::string supported_classes() {
    std::string text;
    const char* last = "";
    for (const Family& family : kFamilies) {
        if (std::string_view(last) == family.class_name) continue;  // one class, two model types
        last = family.class_name;
        if (!text.empty()) text += ", ";
        text += family.class_name;
    }
    return text;
}

/// The model types, of one class where it is given.
std::string supported_types(const char* class_name = nullptr) {
    std::string text;
    for (const Family& family : kFamilies) {
        if (class_name != nullptr && std::string_view(class_name) != family.class_name) continue;
        if (!text.empty()) text += ", ";
        text += family.model_type;
    }
    return text;
}

const Family& read_family(const Reader& reader) {
    const Family* by_class = nullptr;
    if (const Json* value = reader.find("architectures")) {
        if (!value->is_array() || value->size() != 1 || !value->front().is_string()) {
            reader.refuse("architectures", Reader::brief(*value),
                          "a list of one of " + supported_classes());
        }
        const auto name = value->front().get<std::string>();
        for (const Family& family : kFamilies) {
            if (name == family.class_name) by_class = &family;
        }
        if (by_class == nullptr) {
            reader.refuse_model("architectures", Reader::brief(*value), supported_classes());
        }
    }
    const Family* by_type = nullptr;
    if (const Json* value = reader.find("model_type")) {
        for (const Family& family : kFamilies) {
            if (value->is_string() && value->get<std::string>() == family.model_type) {
                by_type = &family;
            }
        }
        if (by_type == nullptr) {
            reader.refuse_model("model_type", Reader::brief(*value), supported_types());
        }
    }
    if (by_class == nullptr && by_type == nullptr) {
        reader.refuse("architectures", "absent, and so is model_type", supported_classes());
    }
    if (by_class != nullptr && by_type != nullptr &&
        by_class->architecture != by_type->architecture) {
        reader.refuse(
            "model_type", std::string("\"") + by_type->model_type + "\"",
            "\"" + supported_types(by_class->class_name) + "\", which architectures names");
    }
    return *(by_class != nullptr ? by_class : by_type);
}

std::int64_t read_kv_heads(const Reader& reader, const Family& family, const ModelConfig& config) {
    // null is one key and value head a query head in every family.
    const bool defaults_to_heads =
        reader.find("num_key_value_heads") == nullptr &&
        (family.defaults_to_heads || reader.has_key("num_key_value_heads"));
    const std::int64_t kv_heads =
        defaults_to_heads ? config.heads : reader.dimension("num_key_value_heads");
    if (config.heads % kv_heads != 0) {
        reader.refuse("num_key_value_heads", std::to_string(kv_heads),
                      "a divisor of num_attention_heads = " + std::to_string(config.heads));
    }
    return kv_heads;
}

std::int64_t read_head_dim(const Reader& reader, const ModelConfig& config) {
    if (reader.find("head_dim") != nullptr) return reader.dimension("head_dim");
    // Qwen3's configuration class has the default 128; in the other families an absent key is
    // derived.
    if (config.architecture == Architecture::qwen3 && !reader.has_key("head_dim")) return 128;
    if (config.hidden % config.heads != 0) {
        reader.refuse(
            "head_dim",
            "absent, and hidden_size = " + std::to_string(config.hidden) +
                " is not a multiple of num_attention_heads = " + std::to_string(config.heads),
            "a head_dim that is written out");
    }
    return config.hidden / config.heads;
}

/// The figures of a mixture of experts, with the defaults of the configuration classes.
void read_experts(const Reader& reader, ModelConfig& config) {
    const bool is_deepseek = config.architecture == Architecture::deepseek_v3;
    // transformers 5 writes Qwen's figure under the second name.
    const std::string experts_key =
        is_deepseek ? "n_routed_experts" : reader.either("num_experts", "num_local_experts");
    config.experts = reader.dimension(experts_key);
    if (config.experts > kMaxDimension / config.layers) {
        reader.refuse(experts_key, std::to_string(config.experts),
                      "at most " + std::to_string(kMaxDimension) + " in all layers together");
    }
    config.experts_per_token = reader.dimension("num_experts_per_tok");
    if (config.experts_per_token > config.experts) {
        reader.refuse("num_experts_per_tok", std::to_string(config.experts_per_token),
                      "at most " + experts_key + " = " + std::to_string(config.experts));
    }
    config.moe_intermediate = reader.dimension("moe_intermediate_size");
    if (!is_deepseek) {
        config.moe_layer_every = reader.dimension("decoder_sparse_step", 1);
        config.dense_layers = reader.indices("mlp_only_layers");
        return;
    }
    // An absent key is the configuration class's one shared expert, null means none.
    config.shared_experts =
        reader.has_key("n_shared_experts") ? reader.count("n_shared_experts", 0) : std::int64_t{1};
    config.first_dense_layers = reader.count("first_k_dense_replace", 3);
    config.moe_layer_every = reader.dimension("moe_layer_freq", 1);
    for (const char* key : {"moe_layer_freq", "topk_method"}) {
        if (!reader.has_key(key)) config.left_out.emplace_back(key);
    }
    // Only this way of choosing experts, the default, has the bias; null is another one.
    const Json* method = reader.find("topk_method");
    config.router_bias =
        !reader.has_key("topk_method") || (method != nullptr && *method == "noaux_tc");
    if (reader.find("n_group") != nullptr) {
        const std::int64_t groups = reader.dimension("n_group");
        if (config.experts % groups != 0) {
            reader.refuse("n_group", std::to_string(groups),
                          "a divisor of n_routed_experts = " + std::to_string(config.experts));
        }
        const std::int64_t chosen = reader.dimension("topk_group", 1);
        if (chosen > groups) {
            reader.refuse("topk_group", std::to_string(chosen),
                          "at most n_group = " + std::to_string(groups));
        }
    }
    // Where the key is absent engines build no such layer, whatever the class's default.
    config.mtp_layers =
        reader.count(reader.either("num_nextn_predict_layers", "num_mtp_layers"), 0);
}

/// The figures of multi-head latent attention, with the defaults of DeepSeek-V3's configuration.
void read_latent_attention(const Reader& reader, ModelConfig& config) {
    // null is a value here: queries without a low rank.
    config.q_lora_rank =
        reader.has_key("q_lora_rank") ? reader.count("q_lora_rank", 0) : std::int64_t{1536};
    config.kv_lora_rank = reader.dimension("kv_lora_rank", 512);
    config.nope_head_dim = reader.dimension("qk_nope_head_dim", 128);
    config.rope_head_dim = reader.dimension("qk_rope_head_dim", 64);
    config.v_head_dim = reader.dimension("v_head_dim", 128);
    if (config.rope_head_dim % 2 != 0) {
        reader.refuse("qk_rope_head_dim", std::to_string(config.rope_head_dim),
                      "an even number, since pairs of columns are rotated");
    }
    // The file's head_dim is that of the rotated part alone, and every head has its own keys and
    // values once kv_b_proj has made them.
    config.head_dim = config.nope_head_dim + config.rope_head_dim;
    config.kv_heads = config.heads;
}

Json load(const std::filesystem::path& path) {
    std::error_code error;
    const auto status = std::filesystem::status(path, error);
    if (status.type() == std::filesystem::file_type::not_found) {
        throw core::FileError(path.string() +
                              ": there is no such file; model.config wants the path of a "
                              "Hugging Face config.json");
    }
    if (std::filesystem::is_directory(status)) {
        throw core::FileError(path.string() + ": is a directory; give the config.json in it");
    }
    const std::uintmax_t bytes = std::filesystem::file_size(path, error);
    if (error) throw core::FileError(path.string() + ": cannot be read: " + error.message());
    if (bytes > kMaxConfigBytes) {
        throw core::FileError(path.string() + ": has " + std::to_string(bytes) +
                              " bytes, a config.json has at most " +
                              std::to_string(kMaxConfigBytes) + "; is this the right file?");
    }
    std::ifstream in(path, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    if (!in || text.size() != bytes) {
        throw core::FileError(path.string() + ": cannot be read; check its permissions");
    }
    Json json;
    try {
        json = Json::parse(standard_json(path.string(), text));
    } catch (const Json::exception& e) {
        throw core::FileError(path.string() + ": is not JSON: " + e.what());
    }
    if (!json.is_object()) {
        throw core::FileError(path.string() + ": holds a JSON " + json.type_name() +
                              "; a config.json holds an object");
    }
    return json;
}

}  // namespace

ModelConfig read_hf_config(const std::filesystem::path& config_json) {
    const Reader reader(config_json.string(), load(config_json));
    ModelConfig config;
    config.name = config_json.string();
    const Family& family = read_family(reader);
    config.architecture = family.architecture;
    config.hidden = reader.dimension("hidden_size");
    config.intermediate = reader.dimension("intermediate_size");
    config.layers = reader.dimension("num_hidden_layers");
    config.heads = reader.dimension("num_attention_heads");
    config.vocabulary = reader.dimension("vocab_size");
    config.kv_heads = read_kv_heads(reader, family, config);
    const bool is_deepseek = config.architecture == Architecture::deepseek_v3;
    const bool is_qwen3_moe = config.architecture == Architecture::qwen3_moe;
    if (is_deepseek) {
        read_latent_attention(reader, config);
    } else {
        config.head_dim = read_head_dim(reader, config);
    }
    if (is_deepseek || is_qwen3_moe) read_experts(reader, config);
    config.tied_embeddings = reader.flag("tie_word_embeddings");
    // Qwen2 has the three biases whatever attention_bias says; in the others the key would
    // add one on o_proj, and more beside, and mlp_bias three.
    config.qkv_bias = config.architecture == Architecture::qwen2;
    config.qk_norm = config.architecture == Architecture::qwen3 || is_qwen3_moe;
    for (const char* key : {"attention_bias", "mlp_bias"}) {
        if (reader.flag(key) && config.architecture != Architecture::qwen2) {
            reader.refuse(key, "true", "false for " + architecture_name(config.architecture));
        }
    }
    for (const char* key : {"dtype", "torch_dtype"}) {
        const Json* value = reader.find(key);
        if (value == nullptr) continue;
        const std::string dtype = value->is_string() ? value->get<std::string>() : "";
        if (dtype != "bfloat16" && dtype != "float16" && dtype != "float32") {
            reader.refuse(key, Reader::brief(*value), "\"bfloat16\", \"float16\", \"float32\"");
        }
    }
    if (const Json* value = reader.find("quantization_config")) {
        if (!value->is_object()) {
            reader.refuse("quantization_config", Reader::brief(*value),
                          "an object, or no such key");
        }
        config.quantization_config = value->dump(-1, ' ', false, Json::error_handler_t::replace);
    }
    return config;
}

}  // namespace refit::model
