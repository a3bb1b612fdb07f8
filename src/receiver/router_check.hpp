// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Routers of experts and heads that an engine would quantize although they are stored in BF16, and
// what else an engine makes of a model whose config.json leaves something out.
#pragma once

#include "core/finding.hpp"
#include "model/model_config.hpp"
#include "receiver/engine_contract.hpp"

namespace refit::receiver {

/// An error for each router that the contract's engine holds in E4M3 because the skip list of
/// `config` does not leave it out: the loader casts the stored BF16 values to E4M3 without a scale
/// and reports nothing. Every known tool stores routers in BF16. Of checkpoints only: the
/// configuration of a refit is the receiver's own. Sources: vLLM 0.33.0 and 017e9f4448b7,
/// model_executor/models/qwen3_moe.py, layers/fused_moe/router/gate_linear.py, layers/linear.py.
[[nodiscard]] core::Findings unlisted_routers(const EngineContract& contract,
                                              const model::ModelConfig& model,
                                              const QuantizationConfig& config);

/// The same for lm_head.weight, where `stored` says that the checkpoint has one: an error, because
/// the engine casts it to E4M3 without a scale. Without one, of a tied model, a warning: the engine
/// ties a quantized layer to the unquantized embedding, which nobody was seen to load. Source: vLLM
/// 017e9f4448b7, layers/quantization/modelopt.py (get_quant_method) and
/// layers/vocab_parallel_embedding.py; read, not run.
[[nodiscard]] core::Findings unlisted_head(const EngineContract& contract,
                                           const QuantizationConfig& config, bool stored);

/// The model with the router tensors that the engine builds: without correction biases where it
/// makes none because config.json leaves out how experts are chosen, as transformers 5 writes the
/// file. Of checkpoints only. Source: vLLM 0.33.0, model_executor/models/deepseek_v2.py; run.
[[nodiscard]] model::ModelConfig with_built_routers(const EngineContract& contract,
                                                    model::ModelConfig model);

/// An error for each key of config.json that the file leaves out and the engine's class takes from
/// it. Of checkpoints only. Source: SGLang 0.5.23, srt/models/deepseek_v2.py; run.
[[nodiscard]] core::Findings left_out_keys(const EngineContract& contract,
                                           const model::ModelConfig& model);

}  // namespace refit::receiver
