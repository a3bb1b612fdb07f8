// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "model/hf_config.hpp"

#include <array>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "core/error.hpp"

namespace refit::model {
namespace {

using Json = nlohmann::json;

constexpr std::uintmax_t kMaxConfigBytes = std::uintmax_t{16} << 20;
// Far above every model; keeps products of three dimensions within 64 bits.
constexpr std::int64_t kMaxDimension = std::int64_t{1} << 20;

struct Family {
    Architecture architecture;
    const char* class_name;
    const char* model_type;
};
constexpr std::array<Family, 3> kFamilies = {{
    {Architecture::llama, "LlamaForCausalLM", "llama"},
    {Architecture::qwen2, "Qwen2ForCausalLM", "qwen2"},
    {Architecture::qwen3, "Qwen3ForCausalLM", "qwen3"},
}};

/// One config.json while it is read; every error names the file, the key and what was found.
class Reader {
 public:
    Reader(std::string file, Json json) : file_(std::move(file)), json_(std::move(json)) {}

    [[noreturn]] void refuse(const std::string& key, const std::string& found,
                             const std::string& supported) const {
        throw core::FileError(file_ + ": " + key + " is " + found + "; supported: " + supported);
    }

    /// The value, or nullptr where the key is absent or null.
    [[nodiscard]] const Json* find(const char* key) const {
        const auto it = json_.find(key);
        return it == json_.end() || it->is_null() ? nullptr : &*it;
    }
    [[nodiscard]] bool has_key(const char* key) const { return json_.contains(key); }

    [[nodiscard]] std::int64_t dimension(const char* key) const {
        const Json* value = find(key);
        const std::string supported = "a whole number from 1 to " + std::to_string(kMaxDimension);
        if (value == nullptr) refuse(key, has_key(key) ? "null" : "absent", supported);
        if (!value->is_number_integer()) refuse(key, brief(*value), supported);
        const bool fits = value->is_number_unsigned()
                              ? value->get<std::uint64_t>() >= 1 &&
                                    value->get<std::uint64_t>() <= std::uint64_t{kMaxDimension}
                              : false;  // nlohmann stores every non-negative integer as unsigned
        if (!fits) refuse(key, brief(*value), supported);
        return value->get<std::int64_t>();
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
    std::string file_;
    Json json_;
};

std::string supported_classes() {
    std::string text;
    for (const Family& family : kFamilies) {
        if (!text.empty()) text += ", ";
        text += family.class_name;
    }
    return text;
}

std::string supported_types() {
    std::string text;
    for (const Family& family : kFamilies) {
        if (!text.empty()) text += ", ";
        text += family.model_type;
    }
    return text;
}

Architecture read_architecture(const Reader& reader) {
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
            reader.refuse("architectures", Reader::brief(*value), supported_classes());
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
            reader.refuse("model_type", Reader::brief(*value), supported_types());
        }
    }
    if (by_class == nullptr && by_type == nullptr) {
        reader.refuse("architectures", "absent, and so is model_type", supported_classes());
    }
    if (by_class != nullptr && by_type != nullptr && by_class != by_type) {
        reader.refuse("model_type", std::string("\"") + by_type->model_type + "\"",
                      std::string("\"") + by_class->model_type + "\", which architectures names");
    }
    return (by_class != nullptr ? by_class : by_type)->architecture;
}

std::int64_t read_kv_heads(const Reader& reader, const ModelConfig& config) {
    // Llama's default, and what null means, is one key and value head a query head. Qwen's default
    // is 32 whatever the model, which no real config.json means.
    const bool defaults_to_heads =
        reader.find("num_key_value_heads") == nullptr &&
        (config.architecture == Architecture::llama || reader.has_key("num_key_value_heads"));
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
        json = Json::parse(text);
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
    config.architecture = read_architecture(reader);
    config.hidden = reader.dimension("hidden_size");
    config.intermediate = reader.dimension("intermediate_size");
    config.layers = reader.dimension("num_hidden_layers");
    config.heads = reader.dimension("num_attention_heads");
    config.vocabulary = reader.dimension("vocab_size");
    config.kv_heads = read_kv_heads(reader, config);
    config.head_dim = read_head_dim(reader, config);
    config.tied_embeddings = reader.flag("tie_word_embeddings");
    // Qwen2 has the three biases whatever attention_bias says; in Llama and Qwen3 the key would add
    // a fourth one, on o_proj, and mlp_bias three more.
    config.qkv_bias = config.architecture == Architecture::qwen2;
    config.qk_norm = config.architecture == Architecture::qwen3;
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
