// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/expert_schemes.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

namespace refit::receiver {
namespace {

using nlohmann::json;

/// A value of an object; null for one that is absent, which means the same.
const json& member(const json& object, const char* key) {
    static const json kNull;
    if (!object.is_object()) return kNull;
    const auto it = object.find(key);
    return it == object.end() ? kNull : *it;
}

/// What an engine says of one group; "" where it has a class for its experts.
std::string refusal_of(const json& group, UnknownNames engine) {
    const json& weights = member(member(group, "weights"), "strategy");
    const json& inputs = member(group, "input_activations");
    if (inputs.is_null()) {
        return engine == UnknownNames::sglang
                   ? "AttributeError: 'NoneType' object has no attribute 'num_bits'"
                   : "ValueError: For Fused MoE layers, only format: pack-quantized";
    }
    if (weights == json("block")) return "";
    // Both engines take what says nothing for one scale a tensor.
    const json& given = member(inputs, "strategy");
    const json activations = given.is_null() ? json("tensor") : given;
    const bool tensors = weights == json("tensor") && activations == json("tensor");
    const bool channels = weights == json("channel") && activations == json("token");
    if (!tensors && !channels) return "AssertionError";
    const json& dynamic = member(inputs, "dynamic");
    if (channels && (dynamic.is_null() || dynamic == json(false))) {
        return "ValueError: For FP8 Fused MoE layer, we require either per tensor or channelwise, "
               "dynamic per token quantization.";
    }
    return "";
}

/// The first expert's weight that is quantized; "" without one.
std::string quantized_expert(const ContractInstance& instance) {
    for (const wire::WantedParameter& wanted : instance.wanted) {
        if (!wanted.scale.empty() && wanted.name.find(".mlp.experts.") != std::string::npos) {
            return wanted.name;
        }
    }
    return {};
}

}  // namespace

core::Findings refused_expert_scheme(const EngineContract& contract,
                                     const ContractInstance& instance) {
    const auto& formats = contract.formats;
    const bool reads = std::find(formats.begin(), formats.end(),
                                 ConfigFormat::compressed_tensors) != formats.end();
    const std::string expert = quantized_expert(instance);
    const json config = json::parse(instance.config.json, nullptr, false);
    const json& groups = member(config, "config_groups");
    if (!reads || expert.empty() || !groups.is_object()) return {};
    std::string refusal;
    for (const json& group : groups) {
        // Groups without weights set the KV cache.
        if (!member(group, "weights").is_object()) continue;
        refusal = refusal_of(group, contract.unknown_names);
        if (refusal.empty()) return {};
    }
    if (refusal.empty()) return {};
    core::Finding finding;
    finding.check = "shape_contract";
    finding.severity = core::Severity::error;
    finding.tensor = "quantization_config";
    finding.measured = "strategies that no class for experts has";
    finding.limit = "weights and activations by tensor, by channel and token, or blocks";
    finding.engine_behaviour = "raises";
    finding.engine_message = refusal;
    finding.remedy =
        "give the experts channel scales with dynamic activations a token, or scales of whole "
        "tensors with activations of whole tensors, or blocks; or put them on the ignore list";
    finding.message = "quantization_config for " + contract.name +
                      ": takes these strategies of weights and input_activations for dense layers "
                      "and refuses them for experts (" +
                      expert + " is the first); " + finding.remedy +
                      " (contract: vLLM 0.33.0, SGLang 0.5.23)";
    return {finding};
}

}  // namespace refit::receiver
