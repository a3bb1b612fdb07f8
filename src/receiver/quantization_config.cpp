// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/quantization_config.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.hpp"
#include "receiver/engine_contract.hpp"

namespace refit::receiver {
namespace {

using nlohmann::json;
using quant::Scheme;

constexpr const char* kPcPt = "FP8_PER_CHANNEL_PER_TOKEN";
constexpr const char* kPbWo = "FP8_PB_WO";

[[noreturn]] void refuse(const std::string& engine, const std::string& key,
                         const std::string& found, const std::string& expected,
                         const std::string& remedy) {
    throw core::ScenarioError("quantization_config for " + engine + ": '" + key + "' is " + found +
                              ", expected " + expected + "; " + remedy);
}

/// The value of `key` unless it is absent or null, which mean the same to the engines.
const json* value_of(const json& object, const char* key) {
    const auto it = object.find(key);
    return it == object.end() || it->is_null() ? nullptr : &*it;
}

std::string shown(const json* value) {
    return value == nullptr ? "absent" : value->dump();
}

std::string text_of(const std::string& engine, const json& object, const char* key,
                    const std::string& expected) {
    const json* value = value_of(object, key);
    if (value == nullptr || !value->is_string()) {
        refuse(engine, key, shown(value), expected, "write it as a string");
    }
    return value->get<std::string>();
}

std::vector<std::string> names_of(const std::string& engine, const json& object, const char* key) {
    const json* value = value_of(object, key);
    if (value == nullptr) return {};
    const bool fits = value->is_array() && std::all_of(value->begin(), value->end(),
                                                       [](const json& v) { return v.is_string(); });
    if (!fits) refuse(engine, key, value->dump(), "a list of module names", "correct the list");
    return value->get<std::vector<std::string>>();
}

void want_block_128(const std::string& engine, const char* key, const json& value) {
    const bool two = value.is_array() && value.size() == 2 && value[0].is_number_integer() &&
                     value[1].is_number_integer();
    if (!two) {
        refuse(engine, key, value.dump(), "a list of exactly two integers", "write [128, 128]");
    }
    if (value[0].get<std::int64_t>() != 128 || value[1].get<std::int64_t>() != 128) {
        refuse(engine, key, value.dump(), "[128, 128]", "refitbench supports no other block size");
    }
}

void parse_fp8(const std::string& engine, const json& root, QuantizationConfig& config) {
    const std::string activation = text_of(engine, root, "activation_scheme", "\"dynamic\"");
    const json* block = value_of(root, "weight_block_size");
    if (activation == "static") {
        refuse(engine, "activation_scheme", "\"static\"", "\"dynamic\"",
               block != nullptr
                   ? "block-wise quantization supports dynamic activation only, the engine raises "
                     "ValueError"
                   : "static needs input_scale tensors, which no trainer of a refit sends");
    }
    if (activation != "dynamic") {
        refuse(engine, "activation_scheme", json(activation).dump(), "\"dynamic\"",
               "the engine knows static and dynamic only");
    }
    config.scheme = Scheme::fp8_tensorwise;
    if (block != nullptr) {
        want_block_128(engine, "weight_block_size", *block);
        config.scheme = Scheme::fp8_blockwise;
    }
    // The engine looks at the second key only where the first is empty or absent.
    config.skip_list = names_of(engine, root, "ignored_layers");
    const std::vector<std::string> second = names_of(engine, root, "modules_to_not_convert");
    if (config.skip_list.empty()) config.skip_list = second;
}

bool names_attention(const json& group) {
    const json* targets = value_of(group, "targets");
    if (targets == nullptr || !targets->is_array() || targets->empty()) return false;
    return std::all_of(targets->begin(), targets->end(), [](const json& target) {
        if (!target.is_string()) return false;
        const std::string text = target.get<std::string>();
        const std::string tail = "Attention";
        return (text.size() >= tail.size() && text.ends_with(tail)) ||
               text.ends_with("self_attn") || text.ends_with("self_attn$");
    });
}

void want(const std::string& engine, const std::string& where, const json& object, const char* key,
          const json& expected) {
    const json* value = value_of(object, key);
    if (value == nullptr || *value != expected) {
        refuse(engine, where + "." + key, shown(value), expected.dump(),
               "the engine says \"No compressed-tensors compatible scheme was found.\"");
    }
}

Scheme parse_group(const std::string& engine, const std::string& name, const json& group) {
    const std::string where = "config_groups." + name;
    if (!group.is_object()) refuse(engine, where, group.dump(), "an object", "correct the group");
    const json* targets = value_of(group, "targets");
    if (targets == nullptr || *targets != json::array({"Linear"})) {
        refuse(engine, where + ".targets", shown(targets), "[\"Linear\"]",
               "use the ignore list to leave modules out");
    }
    const json* weights = value_of(group, "weights");
    if (weights == nullptr || !weights->is_object()) {
        refuse(engine, where + ".weights", shown(weights), "an object", "describe the weights");
    }
    const std::string inside = where + ".weights";
    want(engine, inside, *weights, "num_bits", 8);
    want(engine, inside, *weights, "type", "float");
    for (const auto& [key, fixed] : {std::pair{"symmetric", true}, std::pair{"dynamic", false}}) {
        // Both have these values where they are left out.
        if (value_of(*weights, key) != nullptr) want(engine, inside, *weights, key, fixed);
    }
    const json* inputs = value_of(group, "input_activations");
    if (inputs != nullptr) {
        const json* dynamic = value_of(*inputs, "dynamic");
        if (dynamic == nullptr || *dynamic != json(true)) {
            refuse(
                engine, where + ".input_activations.dynamic", shown(dynamic), "true",
                "static activations need input_scale tensors, which no trainer of a refit sends");
        }
    }
    const std::string strategy = text_of(engine, *weights, "strategy", "tensor, channel or block");
    const json* block = value_of(*weights, "block_structure");
    if (strategy == "tensor") return Scheme::fp8_tensorwise;
    if (strategy == "channel") return Scheme::fp8_channelwise;
    if (strategy != "block") {
        refuse(engine, inside + ".strategy", json(strategy).dump(), "tensor, channel or block",
               "the engine says \"No compressed-tensors compatible scheme was found.\"");
    }
    if (block == nullptr) {
        refuse(engine, inside + ".block_structure", "absent", "[128, 128]",
               "strategy block needs it");
    }
    if (*block != json("128x128")) want_block_128(engine, "block_structure", *block);
    return Scheme::fp8_blockwise;
}

void parse_compressed_tensors(const std::string& engine, const json& root,
                              QuantizationConfig& config) {
    const std::string format = value_of(root, "format") == nullptr
                                   ? "float-quantized"
                                   : text_of(engine, root, "format", "a string");
    const std::vector<std::string> formats = {"float-quantized", "naive-quantized",
                                              "int-quantized"};
    if (std::find(formats.begin(), formats.end(), format) == formats.end()) {
        refuse(engine, "format", json(format).dump(),
               "float-quantized, naive-quantized or int-quantized",
               "the engine says \"No compressed-tensors compatible scheme was found.\"");
    }
    const json* groups = value_of(root, "config_groups");
    bool found = false;
    std::string first;
    if (groups != nullptr && groups->is_object()) {
        for (const auto& [name, group] : groups->items()) {
            // A group of attention modules sets the KV cache; it says nothing about weights.
            if (group.is_object() && names_attention(group)) continue;
            const Scheme scheme = parse_group(engine, name, group);
            if (found && scheme != config.scheme) {
                refuse(engine, "config_groups." + name,
                       "a strategy that differs from group " + first, "one strategy for all groups",
                       "refitbench loads one scheme at a time");
            }
            config.scheme = scheme;
            found = true;
            first = name;
        }
    }
    if (!found) {
        refuse(engine, "config_groups", shown(groups), "at least one group of Linear modules",
               "without one the engine has no module or parameter named '....weight_scale'");
    }
    config.skip_list = names_of(engine, root, "ignore");
}

void parse_modelopt(const std::string& engine, const json& outer, QuantizationConfig& config) {
    const json* nested = value_of(outer, "quantization");
    const json& root = nested != nullptr && nested->is_object() ? *nested : outer;
    config.algo = text_of(engine, root, "quant_algo", std::string(kPcPt) + " or " + kPbWo);
    if (config.algo == kPcPt) {
        config.scheme = Scheme::fp8_channelwise;
    } else if (config.algo == kPbWo) {
        config.scheme = Scheme::fp8_blockwise;
    } else {
        refuse(engine, "quant_algo", json(config.algo).dump(), std::string(kPcPt) + " or " + kPbWo,
               config.algo == "FP8"
                   ? "FP8 needs input_scale tensors, which no trainer of a refit sends"
                   : "refitbench supports no other algorithm of this engine");
    }
    config.skip_list = names_of(engine, root, "ignore");
    const std::vector<std::string> second = names_of(engine, root, "exclude_modules");
    config.skip_list.insert(config.skip_list.end(), second.begin(), second.end());
}

std::string engines_with(Scheme scheme) {
    std::string names;
    for (const EngineContract& contract : engine_catalog()) {
        if (std::find(contract.schemes.begin(), contract.schemes.end(), scheme) ==
            contract.schemes.end()) {
            continue;
        }
        names += (names.empty() ? "" : ", ") + contract.name;
    }
    return names.empty() ? "none" : names;
}

json compressed_tensors_default(Scheme scheme) {
    json weights = {{"num_bits", 8}, {"type", "float"}, {"symmetric", true}, {"dynamic", false}};
    json inputs = {{"num_bits", 8},
                   {"type", "float"},
                   {"symmetric", true},
                   {"dynamic", true},
                   {"strategy", "token"}};
    if (scheme == Scheme::fp8_channelwise) weights["strategy"] = "channel";
    if (scheme == Scheme::fp8_tensorwise) weights["strategy"] = "tensor";
    if (scheme == Scheme::fp8_blockwise) {
        weights["strategy"] = "block";
        weights["block_structure"] = {128, 128};
        inputs["strategy"] = "group";
        inputs["group_size"] = 128;
    }
    const json group = {
        {"targets", json::array({"Linear"})}, {"weights", weights}, {"input_activations", inputs}};
    return {{"quant_method", "compressed-tensors"},
            {"format", "float-quantized"},
            {"quantization_status", "compressed"},
            {"config_groups", {{"group_0", group}}},
            {"ignore", json::array({"lm_head"})}};
}

}  // namespace

QuantizationConfig parse_quantization_config(const std::string& engine,
                                             const std::optional<std::string>& text) {
    const EngineContract& contract = find_engine(engine);
    QuantizationConfig config;
    if (!text || text->empty()) return config;

    const json root = json::parse(*text, nullptr, false);
    if (root.is_null()) return config;
    if (root.is_discarded() || !root.is_object()) {
        throw core::ScenarioError("quantization_config for " + engine +
                                  " is not a JSON object; write the object of a config.json");
    }
    if (engine == "vllm-bf16") {
        throw core::ScenarioError(
            "engine vllm-bf16 takes no quantization_config, found quant_method " +
            shown(value_of(root, "quant_method")) +
            "; remove it or choose an engine that reads it");
    }
    config.json = *text;
    const std::string default_method = engine == "vllm-fp8"        ? "fp8"
                                       : engine == "vllm-modelopt" ? "modelopt"
                                                                   : "compressed-tensors";
    const json* nested = value_of(root, "quantization");
    // The nested form of ModelOpt's own hf_quant_config.json names no method.
    config.quant_method =
        value_of(root, "quant_method") == nullptr && engine == "vllm-modelopt" && nested != nullptr
            ? default_method
            : text_of(engine, root, "quant_method", '"' + default_method + '"');
    const bool fits = engine == "vllm-fp8" ? config.quant_method.find("fp8") != std::string::npos
                                           : config.quant_method == default_method;
    if (!fits) {
        refuse(engine, "quant_method", json(config.quant_method).dump(),
               json(default_method).dump(), "choose the engine that reads this method");
    }
    if (engine == "vllm-fp8") parse_fp8(engine, root, config);
    if (engine == "vllm-compressed-tensors") parse_compressed_tensors(engine, root, config);
    if (engine == "vllm-modelopt") parse_modelopt(engine, root, config);
    if (std::find(contract.schemes.begin(), contract.schemes.end(), config.scheme) ==
        contract.schemes.end()) {
        throw core::ScenarioError("engine " + engine + " does not load scheme " +
                                  std::string(quant::scheme_name(config.scheme)) +
                                  "; engines that do: " + engines_with(config.scheme));
    }
    return config;
}

std::string default_quantization_config(const std::string& engine, Scheme scheme,
                                        const std::string& algo) {
    const EngineContract& contract = find_engine(engine);
    const auto& schemes = contract.schemes;
    if (std::find(schemes.begin(), schemes.end(), scheme) == schemes.end()) {
        throw core::ScenarioError("engine " + engine + " has no scheme " +
                                  std::string(quant::scheme_name(scheme)) +
                                  "; engines that have: " + engines_with(scheme));
    }
    if (!algo.empty() && contract.algos.empty()) {
        throw core::ScenarioError("receiver.algo is '" + algo + "', but engine " + engine +
                                  " has no algorithms to choose from; remove the key");
    }
    // The engine without quantization has no config at all.
    if (scheme == Scheme::bf16) return {};
    if (engine == "vllm-fp8") {
        json root = {{"quant_method", "fp8"}, {"fmt", "e4m3"}, {"activation_scheme", "dynamic"}};
        if (scheme == Scheme::fp8_blockwise) root["weight_block_size"] = {128, 128};
        return root.dump();
    }
    if (engine == "vllm-modelopt") {
        const std::string fitting = scheme == Scheme::fp8_channelwise ? kPcPt : kPbWo;
        if (!algo.empty() && algo != fitting) {
            throw core::ScenarioError("receiver.algo is '" + algo + "', but scheme " +
                                      std::string(quant::scheme_name(scheme)) + " of engine " +
                                      engine + " is algorithm " + fitting +
                                      "; change one of the two");
        }
        return json{{"quant_method", "modelopt"}, {"quant_algo", fitting}, {"ignore", {"lm_head"}}}
            .dump();
    }
    return compressed_tensors_default(scheme).dump();
}

}  // namespace refit::receiver
