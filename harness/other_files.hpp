// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Weight files of a checkpoint directory that are not those which were judged, and which engines
// load them all the same.
#pragma once

#include "core/finding.hpp"
#include "receiver/engine_contract.hpp"
#include "weights/checkpoint_directory.hpp"

namespace refit::harness {

/// Warnings, one a file, whose tensor is the file's name:
/// - a model.safetensors beside an index that does not name it, unless it holds the checkpoint as
///   it is: transformers loads it instead of the shards (5.23.0, modeling_utils.py);
/// - without an index, every other file, unless what it holds is in the checkpoint as it is: vLLM
///   and SGLang load every file (017e9f4448b7 and 8905cbd42f4a, _prepare_weights of
///   model_loader/default_loader.py and loader.py);
/// - consolidated*.safetensors, which vLLM loads instead of all others (the same, load_format
///   "auto").
[[nodiscard]] core::Findings judge_other_files(const weights::CheckpointDirectory& files);

/// Makes an error of one of them where the engine of `contract` loads the file and ends with other
/// weights or raises. Other findings are left alone.
void judge_for(const receiver::EngineContract& contract, core::Finding& finding);

}  // namespace refit::harness
