// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Which scheme a Hugging Face quantization_config means, as the engines read it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/finding.hpp"
#include "model/model_config.hpp"
#include "quant/recipe.hpp"

namespace refit::receiver {

/// How the weights of one layer are quantized.
struct WeightFormat {
    quant::Scheme scheme = quant::Scheme::bf16;
    std::int64_t block_rows = 128;    ///< of fp8_blockwise
    std::int64_t block_cols = 128;    ///< of fp8_blockwise
    bool static_activations = false;  ///< the module has an input_scale
    /// Of compressed-tensors: the strategy of input_activations; "" where nothing is said of them.
    std::string inputs = {};

    [[nodiscard]] bool operator==(const WeightFormat&) const = default;
};

/// One target of a compressed-tensors config and what its group makes of the layers it matches.
struct TargetFormat {
    std::string target;  ///< "Linear", "re:.*experts.*" or a path
    WeightFormat format;
};

struct QuantizationConfig {
    quant::Scheme scheme = quant::Scheme::bf16;
    std::int64_t block_rows = 128;       ///< of fp8_blockwise, as the config says it
    std::int64_t block_cols = 128;       ///< of fp8_blockwise, as the config says it
    std::string quant_method;            ///< fp8 | compressed-tensors | modelopt | "" (none)
    std::string algo;                    ///< of modelopt: FP8, FP8_PER_CHANNEL_PER_TOKEN, FP8_PB_WO
    std::vector<std::string> skip_list;  ///< modules left in BF16, as written
    /// Of compressed-tensors: what the groups quantize, as written; empty where it is "Linear".
    std::vector<std::string> targets;
    /// Of compressed-tensors with groups of several formats: every target in the order in which the
    /// engines try them, "Linear" too; scheme, block sizes and inputs above are then those of
    /// "Linear", else of the first target. Empty where all groups have one format.
    std::vector<TargetFormat> mixed;
    bool static_activations = false;    ///< every quantized module has an input_scale
    std::string inputs = {};            ///< as in WeightFormat
    bool e8m0_scales = false;           ///< scale_fmt "ue8m0"
    bool cache_scales_by_head = false;  ///< kv_cache_scheme of strategy "attn_head"
    std::string json;                   ///< the text it was read from; "" for none

    /// The format of every quantized layer, where there is one.
    [[nodiscard]] WeightFormat format() const {
        return {scheme, block_rows, block_cols, static_activations, inputs};
    }
    void set_format(const WeightFormat& format) {
        scheme = format.scheme;
        block_rows = format.block_rows;
        block_cols = format.block_cols;
        static_activations = format.static_activations;
        inputs = format.inputs;
    }
    /// "fp8_blockwise"; of several formats each scheme once: "fp8_blockwise+fp8_channelwise".
    [[nodiscard]] std::string scheme_text() const;
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

struct EngineContract;

/// Whether an engine reads configs of this quant_method: "fp8", "compressed-tensors", "modelopt",
/// for vLLM in any case. False for every method without a contract, MXFP8 among them.
[[nodiscard]] bool reads_method(const EngineContract& contract, const std::string& method);

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
/// The same for one model: what the engine cannot hold in the scheme is on the skip list, so that
/// it travels in BF16 (vllm-modelopt and trtllm-fp8: experts; FP8_PB_WO: the pair of a latent
/// projection, which whole blocks do not divide).
[[nodiscard]] std::string default_quantization_config(const std::string& engine,
                                                      quant::Scheme scheme, const std::string& algo,
                                                      const model::ModelConfig& model);

}  // namespace refit::receiver
