// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/export_config.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.hpp"
#include "receiver/quantization_config.hpp"
#include "record/build_info.hpp"

namespace refit::harness {
namespace {

// Keeps the order of the source's keys, so that a diff of the two files shows what was added.
using Json = nlohmann::ordered_json;

constexpr const char* kQuant = "quantization_config";
/// Every name under which an engine looks for modules that stay as they are.
constexpr const char* kSkipKeys[] = {"modules_to_not_convert", "ignored_layers", "ignore",
                                     "exclude_modules"};

Json read_object(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    if (!in) {
        throw core::FileError("reading " + path.string() +
                              ": there is no such file, or it cannot be read");
    }
    Json json;
    try {
        json = Json::parse(text);
    } catch (const Json::exception& problem) {
        throw core::FileError("reading " + path.string() + ": it is not JSON: " + problem.what());
    }
    if (!json.is_object()) {
        throw core::FileError("reading " + path.string() + ": found a JSON " +
                              std::string(json.type_name()) + ", expected an object");
    }
    return json;
}

bool is_set(const Json& object, const char* key) {
    const auto it = object.find(key);
    return it != object.end() && !it->is_null() && !(it->is_structured() && it->empty());
}

[[noreturn]] void refuse_quantized(const std::filesystem::path& path, const std::string& found) {
    throw core::Error(core::ExitCode::verdict,
                      "exporting the model in " + path.parent_path().string() + ": " +
                          path.filename().string() + " has " + found +
                          ", so its weights are quantized already; give the BF16 checkpoint that "
                          "they were made from, or 'refitbench dequantize' its files first");
}

/// The kv_cache_scheme of a source whose weights are not quantized; takes the object that held it
/// out of `config`.
std::optional<Json> take_kv_cache_scheme(Json& config, const std::filesystem::path& path) {
    for (const char* key : {kQuant, "compression_config"}) {
        const auto it = config.find(key);
        if (it == config.end()) continue;
        const Json found = *it;
        config.erase(it);
        if (found.is_null()) continue;
        const bool only_cache = found.is_object() && is_set(found, "kv_cache_scheme") &&
                                !is_set(found, "config_groups") &&
                                found.value("quant_method", "") == "compressed-tensors";
        if (!only_cache) {
            const std::string text = found.dump(-1, ' ', false, Json::error_handler_t::replace);
            refuse_quantized(path, std::string(key) + " " + text.substr(0, 120));
        }
        return found["kv_cache_scheme"];
    }
    return std::nullopt;
}

/// Takes the skip lists out of a quantization_config.
std::vector<std::string> take_skip_lists(Json& quant) {
    std::vector<std::string> names;
    for (const char* key : kSkipKeys) {
        const auto it = quant.find(key);
        if (it == quant.end()) continue;
        const Json list = *it;
        quant.erase(it);
        if (list.is_null()) continue;
        const bool fits =
            list.is_array() &&
            std::all_of(list.begin(), list.end(), [](const Json& v) { return v.is_string(); });
        if (!fits) {
            throw core::UsageError("--config-override: quantization_config." + std::string(key) +
                                   " is " + list.dump() + ", expected a list of module names");
        }
        for (const Json& name : list) {
            const auto text = name.get<std::string>();
            if (std::find(names.begin(), names.end(), text) == names.end()) names.push_back(text);
        }
    }
    return names;
}

}  // namespace

ExportConfig::ExportConfig(const std::filesystem::path& model, const std::string& engine,
                           quant::Scheme scheme, const std::filesystem::path& override_file) {
    const std::filesystem::path path = model / "config.json";
    Json config = read_object(path);
    const std::optional<Json> cache = take_kv_cache_scheme(config, path);
    if (std::filesystem::exists(model / "hf_quant_config.json")) {
        refuse_quantized(model / "hf_quant_config.json", "the algorithm of a quantizer");
    }
    Json quant = Json::parse(receiver::default_quantization_config(engine, scheme, ""));
    // Full names take the place of these: see plan_export.
    by_engine_ = take_skip_lists(quant);
    if (quant.value("quant_method", "") == "compressed-tensors") {
        quant["kv_cache_scheme"] = cache.value_or(Json(nullptr));
    } else if (cache) {
        throw core::Error(core::ExitCode::verdict,
                          "exporting the model in " + model.string() +
                              ": its kv_cache_scheme has no place in quant_method " +
                              quant.value("quant_method", "") + " of engine " + engine +
                              "; choose an engine that reads compressed-tensors, or remove the key "
                              "and the scales of keys and values");
    }
    config[kQuant] = quant;
    if (!override_file.empty()) {
        config.merge_patch(read_object(override_file));
        if (!is_set(config, kQuant) || !config[kQuant].is_object()) {
            throw core::UsageError(
                "--config-override " + override_file.string() +
                " removes quantization_config, without which no engine loads FP8 "
                "weights; leave the key out");
        }
        listed_ = take_skip_lists(config[kQuant]);
    }
    text_ = config.dump();
    quant_ = config[kQuant].dump();
}

std::string ExportConfig::method() const {
    const Json quant = Json::parse(quant_);
    const auto it = quant.find("quant_method");
    return it != quant.end() && it->is_string() ? it->get<std::string>() : "";
}

std::string ExportConfig::skip_key() const {
    const std::string name = method();
    return name == "compressed-tensors" || name == "modelopt" ? "ignore" : "modules_to_not_convert";
}

std::string ExportConfig::quantization_config(const std::vector<std::string>& skipped) const {
    Json quant = Json::parse(quant_);
    quant[skip_key()] = skipped;
    return quant.dump();
}

std::string ExportConfig::config_json(const std::vector<std::string>& skipped) const {
    Json config = Json::parse(text_);
    config[kQuant][skip_key()] = skipped;
    return config.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string ExportConfig::hf_quant_config(const std::vector<std::string>& skipped) const {
    if (method() != "modelopt") return "";
    const Json quant = Json::parse(quant_);
    const Json algorithms = {{"quant_algo", quant.value("quant_algo", "")},
                             {"kv_cache_quant_algo", nullptr},
                             {"exclude_modules", skipped}};
    const Json root = {{"producer", {{"name", "refitbench"}, {"version", record::tool_version()}}},
                       {"quantization", algorithms}};
    return root.dump(2) + "\n";
}

}  // namespace refit::harness
