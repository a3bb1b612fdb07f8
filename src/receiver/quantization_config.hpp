// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Which scheme a Hugging Face quantization_config means, as the engines read it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "quant/recipe.hpp"

namespace refit::receiver {

struct QuantizationConfig {
    quant::Scheme scheme = quant::Scheme::bf16;
    std::string quant_method;            ///< fp8 | compressed-tensors | modelopt | "" (none)
    std::string algo;                    ///< of modelopt: FP8, FP8_PER_CHANNEL_PER_TOKEN, FP8_PB_WO
    std::vector<std::string> skip_list;  ///< modules left in BF16, as written
    std::string json;                    ///< the text it was read from; "" for none
};

/// Reads the config as `engine` does. nullopt text = no quantization_config = BF16. FP8 without a
/// block size is per-tensor. Throws ScenarioError naming key, found and supported when the engine
/// refuses or the keys contradict each other.
[[nodiscard]] QuantizationConfig parse_quantization_config(const std::string& engine,
                                                           const std::optional<std::string>& json);

/// The config that `engine` needs for `scheme` (and algo, for vllm-modelopt), when a scenario gives
/// none. Throws ScenarioError when the engine has no such scheme: names the engines that have.
[[nodiscard]] std::string default_quantization_config(const std::string& engine,
                                                      quant::Scheme scheme,
                                                      const std::string& algo);

}  // namespace refit::receiver
