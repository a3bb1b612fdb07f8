// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Groups of compressed-tensors that engines take for dense layers and refuse for experts.
#pragma once

#include "core/finding.hpp"
#include "receiver/engine_contract.hpp"

namespace refit::receiver {

/// An error where the engine has no class for quantized experts with the strategies that the
/// config's groups give weights and activations: scales of whole tensors go with activations of
/// whole tensors, channel scales with dynamic ones a token, block scales with any; weights alone
/// with none. Empty where a group fits, no expert is quantized, or the config is of another method.
/// Of checkpoints only: a refit's config is the receiver's own. Sources: vLLM 0.33.0,
/// layers/quantization/compressed_tensors/compressed_tensors_moe/; SGLang 0.5.23,
/// srt/layers/quantization/compressed_tensors/schemes/compressed_tensors_w8a8_fp8_moe.py.
[[nodiscard]] core::Findings refused_expert_scheme(const EngineContract& contract,
                                                   const ContractInstance& instance);

}  // namespace refit::receiver
