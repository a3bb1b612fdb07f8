// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/cache_scales.hpp"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "core/error.hpp"
#include "receiver/engine_finding.hpp"
#include "receiver/unknown_names.hpp"

namespace refit::receiver {
namespace {

using model::Architecture;

/// Ends of names below "model.layers.N.self_attn.": on the wire, and of the parameter.
struct Mapping {
    const char* wire;
    const char* parameter;
};

constexpr const char* kKey = "attn.k_scale";
constexpr const char* kValue = "attn.v_scale";
constexpr const char* kQuery = "attn.q_scale";
constexpr const char* kProb = "attn.prob_scale";

/// The patterns of vLLM's mapper, written out for attention layers. A name that already has ".attn"
/// stays as it is; "k_proj.v_scale" is the scale of the values, for the pattern looks at its end.
const std::vector<Mapping>& vllm_mappings() {
    static const std::vector<Mapping> kMappings = {{"k_scale", kKey},
                                                   {"v_scale", kValue},
                                                   {"q_scale", kQuery},
                                                   {"attn.k_scale", kKey},
                                                   {"attn.v_scale", kValue},
                                                   {"attn.q_scale", kQuery},
                                                   {"attn.prob_scale", kProb},
                                                   {"kv_scale", kKey},
                                                   {"k_proj.k_scale", kKey},
                                                   {"v_proj.v_scale", kValue},
                                                   {"k_proj.v_scale", kValue},
                                                   {"v_proj.k_scale", kKey},
                                                   {"qkv_proj.k_scale", kKey},
                                                   {"qkv_proj.v_scale", kValue},
                                                   {"qkqkv_proj.k_scale", kKey},
                                                   {"k_cache.scale", kKey},
                                                   {"v_cache.scale", kValue},
                                                   {"q.scale", kQuery},
                                                   {"qkqkv_proj.v_scale", kValue}};
    return kMappings;
}

/// What quant_method fp8 of vLLM adds.
const std::vector<Mapping>& vllm_output_mappings() {
    static const std::vector<Mapping> kMappings = {{"k_proj.output_scale", kKey},
                                                   {"v_proj.output_scale", kValue},
                                                   {"q_proj.output_scale", kQuery},
                                                   {"prob_output_scale", kProb}};
    return kMappings;
}

/// SGLang's Llama. It puts ".attn" into every name that ends in a scale of keys or values and drops
/// what is then no parameter: so the parameter's own name, too.
const std::vector<Mapping>& sglang_llama_mappings() {
    static const std::vector<Mapping> kMappings = {{"k_scale", kKey},
                                                   {"v_scale", kValue},
                                                   {"k_proj.k_scale", kKey},
                                                   {"v_proj.v_scale", kValue},
                                                   {"kv_scale", kKey},
                                                   {"k_proj.output_scale", kKey},
                                                   {"v_proj.output_scale", kValue}};
    return kMappings;
}

/// SGLang's Qwen2 maps nothing.
const std::vector<Mapping>& sglang_qwen2_mappings() {
    static const std::vector<Mapping> kMappings = {{kKey, kKey}, {kValue, kValue}};
    return kMappings;
}

/// The names of an engine's loader; nullptr where its attention layers hold no scales.
std::vector<Mapping> mappings_of(const EngineContract& contract, const QuantizationConfig& config,
                                 Architecture architecture) {
    const bool latent = architecture == Architecture::deepseek_v3;
    const bool sglang_model =
        architecture == Architecture::llama || architecture == Architecture::qwen2;
    const auto sglang = [&] {
        if (!sglang_model || config.quant_method != "fp8") return std::vector<Mapping>();
        return architecture == Architecture::llama ? sglang_llama_mappings()
                                                   : sglang_qwen2_mappings();
    };
    switch (contract.cache_scales.loader) {
        case CacheScaleLoader::none:
            return {};
        case CacheScaleLoader::vllm: {
            if (latent || config.quant_method.empty()) return {};
            std::vector<Mapping> mappings = vllm_mappings();
            if (config.quant_method == "fp8") {
                const std::vector<Mapping>& more = vllm_output_mappings();
                mappings.insert(mappings.end(), more.begin(), more.end());
            }
            return mappings;
        }
        case CacheScaleLoader::sglang:
            return sglang();
        case CacheScaleLoader::both:
            // vLLM has every name of SGLang's.
            return sglang();
    }
    return {};
}

std::string attention_of(std::int64_t layer) {
    return "model.layers." + std::to_string(layer) + ".self_attn.";
}

/// The end of the name to send for a parameter.
std::string wire_end(const EngineContract& contract, Architecture architecture,
                     const std::string& parameter) {
    // NeMo-RL names the scale of queries so, with the ".attn" that those of keys lack.
    if (parameter == kQuery) return kQuery;
    const std::string part(1, parameter[std::string("attn.").size()]);
    const bool by_parameter = contract.cache_scales.loader != CacheScaleLoader::vllm &&
                              architecture == Architecture::qwen2;
    if (by_parameter) return parameter;
    if (contract.cache_scales.under_projections) return part + "_proj." + part + "_scale";
    return part + "_scale";
}

}  // namespace

std::string cache_scale_refusal(const EngineContract& contract, const QuantizationConfig& config,
                                Architecture architecture, CacheScales which) {
    if (which == CacheScales::none) return {};
    if (contract.cache_scales.loader == CacheScaleLoader::none) {
        return contract.name + " " + contract.cache_scales.absent;
    }
    if (config.json.find("attn_head") != std::string::npos) {
        return "its quantization_config has a scale for each head (strategy attn_head), and "
               "calibrations give one a layer";
    }
    if (mappings_of(contract, config, architecture).empty()) {
        return contract.name + " holds none for " + model::architecture_name(architecture) +
               (config.quant_method.empty() ? " without a quantization_config"
                                            : " with quant_method " + config.quant_method) +
               (contract.cache_scales.loader == CacheScaleLoader::vllm
                    ? std::string()
                    : ": SGLang gives a quantization config to the attention layers of Llama and "
                      "Qwen2 alone, and only that of quant_method fp8 makes the parameters");
    }
    if (which == CacheScales::qkv && contract.cache_scales.loader != CacheScaleLoader::vllm) {
        return contract.name +
               " has scales of keys and values and none of queries; use kv_cache_scales: kv";
    }
    return {};
}

std::string cache_scale_target(const EngineContract& contract, const QuantizationConfig& config,
                               Architecture architecture, const std::string& name) {
    const std::int64_t layer = layer_of_name(name);
    if (layer < 0) return {};
    const std::string attention = attention_of(layer);
    if (!name.starts_with(attention)) return {};
    const std::string end = name.substr(attention.size());
    for (const Mapping& mapping : mappings_of(contract, config, architecture)) {
        if (end == mapping.wire) return attention + mapping.parameter;
    }
    return {};
}

std::vector<CacheScaleName> cache_scales_of_layer(const EngineContract& contract,
                                                  const QuantizationConfig& config,
                                                  const model::ModelConfig& model,
                                                  std::int64_t layer, CacheScales which) {
    const std::string refusal = cache_scale_refusal(contract, config, model.architecture, which);
    if (!refusal.empty()) {
        throw core::ScenarioError("payload.kv_cache_scales: " + refusal);
    }
    std::vector<CacheScaleName> names;
    const auto add = [&](const char* parameter, const char* calibration) {
        CacheScaleName name;
        const std::string attention = attention_of(layer);
        const std::string end = wire_end(contract, model.architecture, parameter);
        name.wire = attention + end;
        name.parameter = attention + parameter;
        name.calibration = attention + calibration;
        for (const Mapping& mapping : mappings_of(contract, config, model.architecture)) {
            const bool other = end != mapping.wire && std::string(parameter) == mapping.parameter;
            if (other) name.aliases.push_back(attention + mapping.wire);
        }
        names.push_back(std::move(name));
    };
    if (which == CacheScales::none) return names;
    add(kKey, "k_cache");
    add(kValue, "v_cache");
    if (which == CacheScales::qkv) add(kQuery, "q_states");
    return names;
}

MissingCacheScale missing_cache_scale(const EngineContract& contract,
                                      const wire::WantedParameter& wanted, bool partner_came) {
    const bool vllm = contract.cache_scales.loader == CacheScaleLoader::vllm;
    if (wanted.calibration.ends_with(".q_states")) {
        return {"warns", "Using uncalibrated q_scale 1.0 and/or prob_scale 1.0 with fp8 attention",
                "the engine takes 1.0 for it"};
    }
    if (!partner_came) {
        return {vllm ? "warns" : "silently_wrong",
                vllm ? "Using KV cache scaling factor 1.0 for fp8_e4m3" : "",
                "the engine takes 1.0 for keys and values"};
    }
    if (contract.cache_scales.starts_at_one) {
        return {"silently_wrong", "", "the engine's parameter stays at 1.0"};
    }
    if (wanted.calibration.ends_with(".k_cache")) {
        return {"raises", "AssertionError without text",
                "the engine asserts a scale of the keys where there is one of the values"};
    }
    return {"silently_wrong", "", "the engine takes the scale of the keys for the values too"};
}

std::string partner_of_cache_scale(const ContractInstance& instance,
                                   const wire::WantedParameter& wanted) {
    const std::size_t dot = wanted.calibration.rfind('.') + 1;
    const std::string part = wanted.calibration.substr(dot);
    if (part == "q_states") return {};
    const std::string other =
        wanted.calibration.substr(0, dot) + (part == "k_cache" ? "v_cache" : "k_cache");
    const auto found =
        std::find_if(instance.wanted.begin(), instance.wanted.end(),
                     [&](const wire::WantedParameter& one) { return one.calibration == other; });
    return found == instance.wanted.end() ? std::string() : found->name;
}

core::Findings unpaired_cache_scales(const EngineContract& contract,
                                     const QuantizationConfig& config, Architecture architecture,
                                     const std::vector<std::string>& names) {
    std::map<std::string, std::string> came;  // parameter of the engine -> name of the tensor
    for (const std::string& name : names) {
        if (!is_cache_scale(name)) continue;
        const std::string target = cache_scale_target(contract, config, architecture, name);
        if (!target.empty()) came.emplace(target, name);
    }
    core::Findings findings;
    for (const auto& [target, name] : came) {
        const bool keys = target.ends_with(kKey);
        if ((!keys && !target.ends_with(kValue)) || name.ends_with(".kv_scale")) continue;
        const std::string attention =
            target.substr(0, target.size() - std::string(keys ? kKey : kValue).size());
        if (came.count(attention + (keys ? kValue : kKey)) != 0) continue;
        wire::WantedParameter absent;
        absent.calibration = attention + (keys ? "v_cache" : "k_cache");
        const MissingCacheScale outcome = missing_cache_scale(contract, absent, true);
        core::Finding finding = engine_finding(
            "names", name, "a scale of the " + std::string(keys ? "keys" : "values") + " alone",
            "scales of keys and values", outcome.behaviour, outcome.engine_message,
            "comes without the scale of the " + std::string(keys ? "values" : "keys") +
                "; where the KV cache is FP8, " + outcome.consequence,
            "store both, or one as kv_scale");
        finding.severity = core::Severity::warning;
        findings.push_back(std::move(finding));
    }
    return findings;
}

core::Findings check_cache_scale_update(const ContractInstance& instance, bool layerwise) {
    const auto first =
        std::find_if(instance.wanted.begin(), instance.wanted.end(),
                     [](const wire::WantedParameter& one) { return !one.calibration.empty(); });
    const CacheScaleLoader loader = find_engine(instance.engine).cache_scales.loader;
    if (first == instance.wanted.end() || loader == CacheScaleLoader::both) return {};
    if (loader == CacheScaleLoader::vllm && layerwise) return {};
    core::Finding finding =
        loader == CacheScaleLoader::vllm
            ? engine_finding(
                  "version", first->name, "a plain load", "receiver.reload: layerwise", "ignored",
                  "",
                  "loads into a new engine; a live one has removed the parameter after its first "
                  "load, ignores the name, and serves with the scale that it has",
                  "use receiver.reload: layerwise, which makes the parameters anew")
            : engine_finding(
                  "version", first->name, "an update without processing",
                  "a host copy of the same version", "silently_wrong", "",
                  "is written into the parameter; updates of a live engine do not process weights "
                  "after loading, so that attention backends that read k_scale_float and "
                  "v_scale_float keep those of the first load",
                  "compute the host copies again after each update");
    finding.severity = core::Severity::warning;
    return {finding};
}

}  // namespace refit::receiver
