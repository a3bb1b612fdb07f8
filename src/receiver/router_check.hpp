// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Routers of experts that an engine would quantize although they are stored in BF16.
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

}  // namespace refit::receiver
