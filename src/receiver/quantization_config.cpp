// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/quantization_config.hpp"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "core/error.hpp"
#include "receiver/config_reader.hpp"
#include "receiver/engine_contract.hpp"

namespace refit::receiver {
namespace {

using json = nlohmann::ordered_json;
using quant::Scheme;

constexpr const char* kPcPt = "FP8_PER_CHANNEL_PER_TOKEN";
constexpr const char* kPbWo = "FP8_PB_WO";
constexpr const char* kPerTensor = "FP8";

const char* method_of(ConfigFormat format) {
    switch (format) {
        case ConfigFormat::fp8:
            return "fp8";
        case ConfigFormat::compressed_tensors:
            return "compressed-tensors";
        case ConfigFormat::modelopt:
            return "modelopt";
    }
    return "";
}

bool has_scheme(const std::vector<Scheme>& schemes, Scheme scheme) {
    return std::find(schemes.begin(), schemes.end(), scheme) != schemes.end();
}

// quant_method fp8
// -------------------------------------------------------------------------------------------------

/// One scale a tensor, one a block, or neither: as the engine reads the key.
void read_block_size(ConfigReader& reader, const json& root) {
    QuantizationConfig& config = reader.config();
    const json* block = ConfigReader::value_of(root, "weight_block_size");
    const bool left_out = !root.contains("weight_block_size");
    config.scheme = left_out && reader.contract().defaults_to_blocks ? Scheme::fp8_blockwise
                                                                     : Scheme::fp8_tensorwise;
    if (block == nullptr) return;
    WeightFormat format = config.format();
    reader.read_block("weight_block_size", *block, format);
    config.set_format(format);
}

void read_activation_scheme(ConfigReader& reader, const json& root) {
    const EngineContract& contract = reader.contract();
    const bool needed = contract.needs_activation_scheme;
    if (!needed && ConfigReader::value_of(root, "activation_scheme") == nullptr) return;
    const std::string scheme = reader.text_of(
        root, "activation_scheme", "", "\"dynamic\"",
        "ValueError: Cannot find any of ['activation_scheme'] in the model's quantization config.");
    if (scheme == "dynamic") return;
    const std::string found = json(scheme).dump();
    if (scheme != "static") {
        reader.refuse({.key = "activation_scheme",
                       .found = found,
                       .expected = "\"dynamic\"",
                       .remedy = "the engine knows static and dynamic only",
                       .engine_message = "ValueError: Unsupported activation scheme " + scheme});
    }
    if (!needed) {
        reader.warn({.key = "activation_scheme",
                     .found = found,
                     .expected = "\"dynamic\"",
                     .remedy =
                         "write dynamic: the weights load, but a quantized product would need "
                         "activation_scale tensors",
                     .behaviour = "ignored"});
        return;
    }
    if (reader.config().scheme == Scheme::fp8_blockwise) {
        reader.refuse({.key = "activation_scheme",
                       .found = found,
                       .expected = "\"dynamic\"",
                       .remedy = "block-wise quantization supports dynamic activation only, the "
                                 "engine raises ValueError",
                       .engine_message =
                           "ValueError: The block-wise quantization only supports dynamic "
                           "activation scheme for now, but got static activation scheme."});
    }
    reader.config().static_activations = true;
    reader.not_for_scenarios(
        {.key = "activation_scheme",
         .found = found,
         .expected = "\"dynamic\"",
         .remedy = "static needs input_scale tensors, which no trainer of a refit sends"});
}

void read_fp8(ConfigReader& reader, const json& root) {
    QuantizationConfig& config = reader.config();
    if (config.quant_method.find("mxfp8") != std::string::npos) {
        reader.refuse({.key = "quant_method",
                       .found = json(config.quant_method).dump(),
                       .expected = "\"fp8\"",
                       .remedy = "refitbench has no contract for loading MXFP8",
                       .behaviour = ""});
    }
    read_block_size(reader, root);
    read_activation_scheme(reader, root);
    const json* scale_format = ConfigReader::value_of(root, "scale_fmt");
    config.e8m0_scales = scale_format != nullptr && *scale_format == json("ue8m0");
    // The engine looks at the second key only where the first is empty or absent.
    config.skip_list = reader.names_of(root, "ignored_layers");
    const std::vector<std::string> second = reader.names_of(root, "modules_to_not_convert");
    if (config.skip_list.empty()) config.skip_list = second;
}

// quant_method modelopt
// -------------------------------------------------------------------------------------------------

std::string upper(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    return text;
}

/// vLLM reads one key of each form: "exclude_modules" within "quantization", which is that of
/// hf_quant_config.json, and "ignore" in the flat form of config.json (from_config of
/// layers/quantization/modelopt.py, 017e9f4448b7). Of other engines both keys count.
void read_modelopt_skip_list(ConfigReader& reader, const json& root, bool nested) {
    const char* const read = nested ? "exclude_modules" : "ignore";
    const char* const other = nested ? "ignore" : "exclude_modules";
    std::vector<std::string>& list = reader.config().skip_list;
    list = reader.names_of(root, read);
    const std::vector<std::string> more = reader.names_of(root, other);
    if (!reader.contract().one_modelopt_skip_key) {
        list.insert(list.end(), more.begin(), more.end());
        return;
    }
    const bool says_more = std::any_of(more.begin(), more.end(), [&](const std::string& entry) {
        return std::find(list.begin(), list.end(), entry) == list.end();
    });
    if (!says_more) return;
    reader.warn({.key = other,
                 .found = json(more).dump(),
                 .expected = std::string("the list under '") + read + "'",
                 .remedy = std::string("rename it to '") + read + "': the engine reads that key " +
                           (nested ? "within 'quantization'" : "where there is no 'quantization'") +
                           " and leaves no module of the other list unquantized",
                 .behaviour = "ignored"});
}

void read_modelopt(ConfigReader& reader, const json& outer) {
    QuantizationConfig& config = reader.config();
    const json* inner = ConfigReader::value_of(outer, "quantization");
    const bool nested = inner != nullptr && inner->is_object();
    const json& root = nested ? *inner : outer;
    std::string expected;
    for (const std::string& algo : reader.contract().algos) {
        expected += (expected.empty() ? "" : " or ") + algo;
    }
    if (expected.empty()) expected = kPcPt;
    config.algo = reader.text_of(root, "quant_algo", "", expected,
                                 "ValidationError: 1 validation error for VllmConfig");
    if (reader.contract().normalizes_methods) config.algo = upper(config.algo);
    if (config.algo == kPcPt) {
        config.scheme = Scheme::fp8_channelwise;
    } else if (config.algo == kPbWo) {
        config.scheme = Scheme::fp8_blockwise;
    } else if (config.algo == kPerTensor) {
        config.scheme = Scheme::fp8_tensorwise;
        config.static_activations = true;
        reader.not_for_scenarios(
            {.key = "quant_algo",
             .found = "\"FP8\"",
             .expected = expected,
             .remedy = "FP8 needs input_scale tensors, which no trainer of a refit sends"});
    } else {
        reader.refuse({.key = "quant_algo",
                       .found = json(config.algo).dump(),
                       .expected = expected,
                       .remedy = "refitbench supports no other algorithm of this engine",
                       .behaviour = ""});
    }
    read_modelopt_skip_list(reader, root, nested);
}

// All formats
// -------------------------------------------------------------------------------------------------

std::string engines_with(Scheme scheme, bool static_activations = false) {
    std::string names;
    for (const EngineContract& contract : engine_catalog()) {
        const auto& schemes = static_activations ? contract.static_schemes : contract.schemes;
        if (!has_scheme(schemes, scheme)) continue;
        names += (names.empty() ? "" : ", ") + contract.name;
    }
    return names.empty() ? "none" : names;
}

/// The name of the method as the engine compares it: vLLM in small letters and with a hyphen
/// (transformers_utils/model_arch_config_convertor.py, 017e9f4448b7), others as it is written.
std::string compared_method(const EngineContract& contract, std::string method) {
    if (!contract.normalizes_methods) return method;
    std::transform(method.begin(), method.end(), method.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return method == "compressed_tensors" ? "compressed-tensors" : method;
}

/// Whether the engine takes `method`, as it compares it, for the format. Other names that hold
/// "fp8" (fbgemm_fp8, w8a8_fp8, ptpc_fp8) are other formats; MXFP8 gets here to be refused by name.
bool is_method(ConfigFormat format, const std::string& method) {
    if (format == ConfigFormat::fp8 && method == "mxfp8") return true;
    return method == method_of(format);
}

ConfigFormat format_of(ConfigReader& reader, const json& root) {
    const EngineContract& contract = reader.contract();
    std::string expected;
    for (const ConfigFormat format : contract.formats) {
        expected += (expected.empty() ? "\"" : " or \"") + std::string(method_of(format)) + '"';
        // ModelOpt's own hf_quant_config.json is nested and names no method.
        const bool nested = ConfigReader::value_of(root, "quantization") != nullptr;
        if (format == ConfigFormat::modelopt && nested &&
            ConfigReader::value_of(root, "quant_method") == nullptr) {
            reader.config().quant_method = method_of(format);
            return format;
        }
    }
    const std::string written = reader.text_of(root, "quant_method", "", expected, "");
    const std::string method = compared_method(contract, written);
    reader.config().quant_method = method;
    for (const ConfigFormat format : contract.formats) {
        if (is_method(format, method)) return format;
    }
    reader.refuse({.key = "quant_method",
                   .found = json(written).dump(),
                   .expected = expected,
                   .remedy = "choose the engine that reads this method; refitbench has contracts "
                             "for fp8, compressed-tensors and modelopt",
                   .behaviour = ""});
}

void want_scheme(ConfigReader& reader, const WeightFormat& format) {
    const EngineContract& contract = reader.contract();
    if (has_scheme(format.static_activations ? contract.static_schemes : contract.schemes,
                   format.scheme)) {
        return;
    }
    reader.refuse({.key = "scheme",
                   .found = std::string(quant::scheme_name(format.scheme)) +
                            (format.static_activations ? " with static activations" : ""),
                   .expected = "a scheme of engine " + contract.name,
                   .remedy = "engines that load it: " +
                             engines_with(format.scheme, format.static_activations),
                   .behaviour = ""});
}

void read_object(ConfigReader& reader, const std::string& text) {
    const json root = json::parse(text, nullptr, false);
    if (root.is_null()) return;
    const EngineContract& contract = reader.contract();
    if (root.is_discarded() || !root.is_object()) {
        reader.refuse({.key = "quantization_config",
                       .found = "not a JSON object",
                       .expected = "an object",
                       .remedy = "write the object of a config.json"});
    }
    if (contract.formats.empty()) {
        reader.refuse({.key = "quant_method",
                       .found = ConfigReader::shown(ConfigReader::value_of(root, "quant_method")),
                       .expected = "no quantization_config: engine " + contract.name +
                                   " takes no quantization_config",
                       .remedy = "remove it or choose an engine that reads it",
                       .behaviour = ""});
    }
    QuantizationConfig& config = reader.config();
    config.json = text;
    switch (format_of(reader, root)) {
        case ConfigFormat::fp8:
            read_fp8(reader, root);
            break;
        case ConfigFormat::compressed_tensors:
            read_compressed_tensors(reader, root);
            break;
        case ConfigFormat::modelopt:
            read_modelopt(reader, root);
            break;
    }
    want_scheme(reader, config.format());
    for (const TargetFormat& target : config.mixed) want_scheme(reader, target.format);
}

// Defaults
// -------------------------------------------------------------------------------------------------

json compressed_tensors_default(Scheme scheme) {
    json weights = {{"num_bits", 8}, {"type", "float"}, {"symmetric", true}, {"dynamic", false}};
    json inputs = {{"num_bits", 8},
                   {"type", "float"},
                   {"symmetric", true},
                   {"dynamic", true},
                   {"strategy", "token"}};
    if (scheme == Scheme::fp8_channelwise) weights["strategy"] = "channel";
    if (scheme == Scheme::fp8_tensorwise) {
        weights["strategy"] = "tensor";
        // Dense layers take activations a token as well; experts do not.
        inputs["strategy"] = "tensor";
    }
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

json fp8_default(const EngineContract& contract, Scheme scheme) {
    json root = {{"quant_method", "fp8"}, {"fmt", "e4m3"}, {"activation_scheme", "dynamic"}};
    if (scheme == Scheme::fp8_blockwise) {
        root["weight_block_size"] = {128, 128};
        if (!contract.default_skip_list.empty()) {
            root["modules_to_not_convert"] = contract.default_skip_list;
        }
    } else if (contract.defaults_to_blocks) {
        root["weight_block_size"] = nullptr;
    }
    return root;
}

json modelopt_default(Scheme scheme) {
    return {{"quant_method", "modelopt"},
            {"quant_algo", scheme == Scheme::fp8_channelwise ? kPcPt : kPbWo},
            {"ignore", {"lm_head"}}};
}

/// Whether configs of the format can say the scheme without static activations.
bool format_has(const EngineContract& contract, ConfigFormat format, Scheme scheme) {
    // transformers takes one without a block size for blocks of 128, the others for scales of
    // whole tensors, so that a profile of all cannot write it.
    if (contract.intersection && format == ConfigFormat::fp8) {
        return scheme == Scheme::fp8_blockwise;
    }
    switch (format) {
        case ConfigFormat::fp8:
            return scheme == Scheme::fp8_blockwise || scheme == Scheme::fp8_tensorwise;
        case ConfigFormat::modelopt:
            return scheme == Scheme::fp8_channelwise || scheme == Scheme::fp8_blockwise;
        case ConfigFormat::compressed_tensors:
            return true;
    }
    return false;
}

void check_algo(const EngineContract& contract, Scheme scheme, const std::string& algo) {
    if (algo.empty()) return;
    const std::string start = "receiver.algo is '" + algo + "', but ";
    if (contract.algos.empty()) {
        throw core::ScenarioError(start + "engine " + contract.name +
                                  " has no algorithms to choose from; remove the key");
    }
    if (algo == kPerTensor) {
        throw core::ScenarioError(start +
                                  "it needs input_scale tensors, which no trainer of a refit "
                                  "sends; choose another algorithm");
    }
    const std::string fitting = scheme == Scheme::fp8_channelwise ? kPcPt : kPbWo;
    if (algo != fitting) {
        throw core::ScenarioError(start + "scheme " + std::string(quant::scheme_name(scheme)) +
                                  " of engine " + contract.name + " is algorithm " + fitting +
                                  "; change one of the two");
    }
}

/// Patterns of the modules of a model that an engine with wildcards in its skip list cannot hold in
/// a scheme: quantized experts, and the pair of a latent projection, whose 576 or 192 rows whole
/// blocks do not divide.
std::vector<std::string> unholdable(const EngineContract& contract, Scheme scheme,
                                    const model::ModelConfig& model) {
    std::vector<std::string> patterns;
    if (contract.skip_rule != SkipRule::wildcards) return patterns;
    if (model.experts > 0 && contract.layout.expert_format != ExpertFormat::as_config) {
        patterns.emplace_back("*.mlp.experts*");
    }
    const bool exact =
        scheme == Scheme::fp8_blockwise && contract.block_rule == BlockRule::exact_tiles;
    if (model.kv_lora_rank > 0 && exact) {
        patterns.insert(patterns.end(), {"*.self_attn.q_a_proj", "*.self_attn.kv_a_proj_with_mqa",
                                         "*.self_attn." + contract.layout.latent_module});
    }
    return patterns;
}

}  // namespace

std::string QuantizationConfig::scheme_text() const {
    std::string text(quant::scheme_name(scheme));
    std::vector<Scheme> named = {scheme};
    for (const TargetFormat& target : mixed) {
        if (has_scheme(named, target.format.scheme)) continue;
        named.push_back(target.format.scheme);
        text += "+" + std::string(quant::scheme_name(target.format.scheme));
    }
    return text;
}

ConfigReading read_quantization_config(const std::string& engine,
                                       const std::optional<std::string>& text) {
    const EngineContract& contract = find_engine(engine);
    ConfigReading reading;
    if (!text || text->empty()) return reading;
    ConfigReader reader(contract, reading);
    try {
        read_object(reader, *text);
    } catch (const ConfigRefusal& refusal) {
        reading.findings.push_back(refusal.finding);
        reading.usable = false;
    }
    return reading;
}

bool reads_method(const EngineContract& contract, const std::string& method) {
    const std::string compared = compared_method(contract, method);
    return std::any_of(contract.formats.begin(), contract.formats.end(),
                       [&](ConfigFormat format) { return compared == method_of(format); });
}

QuantizationConfig parse_quantization_config(const std::string& engine,
                                             const std::optional<std::string>& text) {
    ConfigReading reading = read_quantization_config(engine, text);
    // An error stands behind the warnings that were found before it.
    if (!reading.findings.empty()) throw core::ScenarioError(reading.findings.back().message);
    if (!reading.not_for_scenarios.empty()) throw core::ScenarioError(reading.not_for_scenarios);
    return std::move(reading.config);
}

std::string default_quantization_config(const std::string& engine, Scheme scheme,
                                        const std::string& algo) {
    const EngineContract& contract = find_engine(engine);
    if (!has_scheme(contract.schemes, scheme)) {
        throw core::ScenarioError("engine " + engine + " has no scheme " +
                                  std::string(quant::scheme_name(scheme)) +
                                  "; engines that have: " + engines_with(scheme));
    }
    check_algo(contract, scheme, algo);
    // The engine without quantization has no config at all.
    if (scheme == Scheme::bf16) return {};
    for (const ConfigFormat format : contract.formats) {
        if (!format_has(contract, format, scheme)) continue;
        switch (format) {
            case ConfigFormat::fp8:
                return fp8_default(contract, scheme).dump();
            case ConfigFormat::compressed_tensors:
                return compressed_tensors_default(scheme).dump();
            case ConfigFormat::modelopt:
                return modelopt_default(scheme).dump();
        }
    }
    throw core::ShapeError("the contract of " + engine + " reads no config of scheme " +
                           std::string(quant::scheme_name(scheme)) +
                           "; the engine catalogue is incomplete");
}

std::string default_quantization_config(const std::string& engine, Scheme scheme,
                                        const std::string& algo, const model::ModelConfig& model) {
    const std::string text = default_quantization_config(engine, scheme, algo);
    if (text.empty()) return text;
    const std::vector<std::string> raw = unholdable(find_engine(engine), scheme, model);
    if (raw.empty()) return text;
    json root = json::parse(text);
    for (const std::string& pattern : raw) root["ignore"].push_back(pattern);
    return root.dump();
}

}  // namespace refit::receiver
