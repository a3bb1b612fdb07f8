// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Checkpoints whose head is tied to the embedding by config.json: which of the two an engine
// computes with when both are stored, or only one of them.
#pragma once

#include "core/finding.hpp"
#include "model/model_config.hpp"
#include "receiver/engine_contract.hpp"

namespace refit::receiver {

/// The model as the engine builds it for a checkpoint: its head is not tied where the class has one
/// of its own, or where the engine loads a head that is stored (`head_stored`). Of checkpoints
/// only: a refit meets an engine whose head is tied already. Sources: vLLM 0.33.0,
/// vllm/config/model.py (maybe_untie_word_embeddings), model_executor/model_loader/weight_tying.py,
/// models/deepseek_v2.py; SGLang 0.5.23, python/sglang/srt/models/llama.py, qwen2.py, qwen3.py,
/// qwen3_moe.py; transformers 5.23.0, modeling_utils.py (tie_weights).
[[nodiscard]] model::ModelConfig model_as_built(const EngineContract& contract,
                                                model::ModelConfig model, bool head_stored);

/// A stored head that differs from the embedding which it is tied to, as the contract's engine
/// takes it: the finding of the two tensors with which of them is used. An error for a profile of
/// several engines, which do not agree.
[[nodiscard]] core::Finding differing_head(const EngineContract& contract,
                                           model::Architecture architecture, core::Finding finding);

/// What the contract says of a tensor of a tied pair that is not stored, for people: a head that
/// the class wants although it is tied, and an embedding for which the engine takes the stored head
/// (no error then). Other findings come back as they are.
[[nodiscard]] core::Finding missing_of_tied_pair(const EngineContract& contract,
                                                 const model::ModelConfig& model, bool head_stored,
                                                 core::Finding finding);

}  // namespace refit::receiver
