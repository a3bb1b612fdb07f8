// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Routers of experts and heads that an engine would quantize although they are stored in BF16.
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

}  // namespace refit::receiver
