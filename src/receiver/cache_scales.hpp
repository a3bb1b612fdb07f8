// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Scales of an FP8 KV cache: which engines hold them, under which names they load, and what becomes
// of the ones that do not come.
//
// Sources: vLLM 017e9f4448b7, vllm/model_executor/layers/quantization/{base_config,fp8,kv_cache}.py
// and compressed_tensors/compressed_tensors.py (names by get_cache_scale_mapper, parameters by
// create_weights); SGLang 8905cbd42f4a, python/sglang/srt/model_loader/weight_utils.py
// (maybe_remap_kv_scale_name), layers/quantization/{kv_cache,fp8}.py, models/{llama,qwen2,qwen3,
// qwen3_moe}.py (who calls it, and whose RadixAttention has a quantization config).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "receiver/engine_contract.hpp"

namespace refit::receiver {

/// Why the engine has no place for these scales, as a sentence; empty where it has one. Scales of
/// queries are vLLM's alone.
[[nodiscard]] std::string cache_scale_refusal(const EngineContract& contract,
                                              const QuantizationConfig& config,
                                              model::Architecture architecture, CacheScales which);

/// The engine's parameter that its loader writes a tensor of this name into:
/// "model.layers.0.self_attn.attn.k_scale". Empty where it drops the name, and for other tensors.
[[nodiscard]] std::string cache_scale_target(const EngineContract& contract,
                                             const QuantizationConfig& config,
                                             model::Architecture architecture,
                                             const std::string& name);

/// One scale of one layer.
struct CacheScaleName {
    std::string wire;                  ///< the name to send
    std::string parameter;             ///< of the engine
    std::string calibration;           ///< as in wire::WantedParameter
    std::vector<std::string> aliases;  ///< other names on the wire that load into the parameter
};

/// Those of one layer, keys first. Throws ScenarioError with cache_scale_refusal().
[[nodiscard]] std::vector<CacheScaleName> cache_scales_of_layer(const EngineContract& contract,
                                                                const QuantizationConfig& config,
                                                                const model::ModelConfig& model,
                                                                std::int64_t layer,
                                                                CacheScales which);

/// What an engine makes of an attention layer of which `wanted`, a scale of the KV cache, did not
/// come. `partner_came`: whether the scale of the values (of the keys, for values) came.
struct MissingCacheScale {
    std::string behaviour;  ///< as in ContractRow
    std::string engine_message;
    std::string consequence;  ///< a sentence for people
};
[[nodiscard]] MissingCacheScale missing_cache_scale(const EngineContract& contract,
                                                    const wire::WantedParameter& wanted,
                                                    bool partner_came);

/// The name of the key's scale for one of the values and the reverse; empty for others. `wanted`
/// is a scale of the KV cache of `instance`.
[[nodiscard]] std::string partner_of_cache_scale(const ContractInstance& instance,
                                                 const wire::WantedParameter& wanted);

/// Warnings of the check names, one a layer, about scales of keys that `names`, the tensors of a
/// checkpoint, have without those of the values, and the reverse. What becomes of it shows only
/// where the KV cache is FP8. "kv_scale" is meant for both.
[[nodiscard]] core::Findings unpaired_cache_scales(const EngineContract& contract,
                                                   const QuantizationConfig& config,
                                                   model::Architecture architecture,
                                                   const std::vector<std::string>& names);

/// Warnings of the check version about engines that do not bring scales of a KV cache into use when
/// they are sent to a live model, at most one: vLLM's plain loader ignores their names once the
/// first load has removed the parameters (its layerwise reload makes them anew), and SGLang's
/// updates leave the host's copy at the value of the first load. Empty without such scales.
[[nodiscard]] core::Findings check_cache_scale_update(const ContractInstance& instance,
                                                      bool layerwise);

}  // namespace refit::receiver
