// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A checkpoint directory as training weights of a model.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "core/finding.hpp"
#include "model/model_config.hpp"
#include "weights/checkpoint_directory.hpp"
#include "weights/weight_source.hpp"

namespace refit::weights {

/// What is wrong in a checkpoint whose files are sound: tensors that are missing (check names),
/// have another shape (shape_contract) or another dtype (dtype) than training weights of this
/// model, in model order, and then experts that its layers do not have (names). A stack of experts
/// is one tensor. Other tensors that the model does not have are left alone. Throws FileError for a
/// malformed or incomplete directory.
[[nodiscard]] core::Findings check_checkpoint(const std::filesystem::path& directory,
                                              const std::vector<model::TensorSpec>& tensors);

/// `config` as the checkpoint beside it holds the model: without its layers for multi-token
/// prediction where the directory has none of their tensors, since Hugging Face's save_pretrained
/// writes none but leaves num_nextn_predict_layers in config.json. Where it has some of them, the
/// layers stay and check_checkpoint names what is missing. Throws FileError for a malformed or
/// incomplete directory.
[[nodiscard]] model::ModelConfig config_of_checkpoint(model::ModelConfig config,
                                                      const std::filesystem::path& directory);

/// The same for a directory that is open already.
[[nodiscard]] model::ModelConfig config_of_checkpoint(model::ModelConfig config,
                                                      const CheckpointDirectory& checkpoint);

/// BF16, F16 and F32 tensors of a checkpoint as BF16 (F16 and F32 rounded to nearest even).
/// Refuses at construction: a tensor of `tensors` that is missing, has another shape, or another
/// dtype; names what came and what the model's config wants. Routed experts may be stored one by
/// one or stacked in the layout of transformers (see stored_places.hpp). A head that is stored
/// although the config ties it is left alone.
[[nodiscard]] std::unique_ptr<WeightSource> make_safetensors_weights(
    const std::filesystem::path& directory, const std::vector<model::TensorSpec>& tensors);

}  // namespace refit::weights
