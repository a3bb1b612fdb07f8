// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Whether a source checkpoint is one of training weights, and what to do with tensors in it that
// the model does not have.
#pragma once

#include <string>
#include <vector>

#include "model/model_config.hpp"
#include "receiver/engine_contract.hpp"
#include "weights/checkpoint_directory.hpp"
#include "weights/stored_places.hpp"

namespace refit::harness {

/// Throws Error with exit code 1 that names the first tensors that are quantized, missing, or of
/// another shape than the model's config wants.
void check_source(const weights::CheckpointDirectory& source, const weights::StoredPlaces& places,
                  const std::vector<model::TensorSpec>& tensors);

/// Tensors of a source that are not the model's.
struct SurplusTensors {
    /// Scales of the KV cache, which go into the export as they are.
    std::vector<weights::CheckpointDirectory::Location> cache_scales;
    /// What every engine makes by itself: a head that the config ties, tables of rotary embeddings.
    std::vector<std::string> left_out;
};

/// Throws Error with exit code 1 for a tied head that differs from the embedding, for scales of the
/// KV cache that the engine does not read or that are not one number, and for any other tensor.
[[nodiscard]] SurplusTensors sort_surplus(const weights::CheckpointDirectory& source,
                                          const weights::StoredPlaces& places,
                                          const model::ModelConfig& model,
                                          const std::vector<model::TensorSpec>& tensors,
                                          const receiver::EngineContract& contract);

}  // namespace refit::harness
