// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Which scheme a Hugging Face quantization_config means, as the engines read it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/finding.hpp"
#include "quant/recipe.hpp"

namespace refit::receiver {

struct QuantizationConfig {
    quant::Scheme scheme = quant::Scheme::bf16;
    std::string quant_method;            ///< fp8 | compressed-tensors | modelopt | "" (none)
    std::string algo;                    ///< of modelopt: FP8, FP8_PER_CHANNEL_PER_TOKEN, FP8_PB_WO
    std::vector<std::string> skip_list;  ///< modules left in BF16, as written
    /// Of compressed-tensors: what the groups quantize, as written; empty where it is "Linear".
    std::vector<std::string> targets;
    bool static_activations = false;  ///< every quantized module has an input_scale
    bool e8m0_scales = false;         ///< scale_fmt "ue8m0"
    std::string json;                 ///< the text it was read from; "" for none
};

/// A config as an engine reads it, with what is wrong about it.
struct ConfigReading {
    QuantizationConfig config;
    /// Of the check shape_contract and the tensor "quantization_config", with the engine's
    /// behaviour and text: an error where the engine refuses the config or refitbench cannot judge
    /// it, a warning where the engine accepts a contradiction.
    core::Findings findings;
    /// False: `config` is incomplete and no contract can be applied with it.
    bool usable = true;
    /// Why no scenario can use it although the engine does; empty where it can.
    std::string not_for_scenarios;
};

/// Reads the config as `engine` does. nullopt text = no quantization_config = BF16. Throws only
/// UsageError, for an engine that does not exist.
[[nodiscard]] ConfigReading read_quantization_config(const std::string& engine,
                                                     const std::optional<std::string>& json);

/// The same for a scenario: throws ScenarioError naming key, found and supported when the engine
/// refuses, when keys contradict each other, or when the config needs tensors that no trainer of a
/// refit sends.
[[nodiscard]] QuantizationConfig parse_quantization_config(const std::string& engine,
                                                           const std::optional<std::string>& json);

/// The config that `engine` needs for `scheme` (and algo, for vllm-modelopt), when a scenario gives
/// none. Throws ScenarioError when the engine has no such scheme: names the engines that have.
[[nodiscard]] std::string default_quantization_config(const std::string& engine,
                                                      quant::Scheme scheme,
                                                      const std::string& algo);

}  // namespace refit::receiver
