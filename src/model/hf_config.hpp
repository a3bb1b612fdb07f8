// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A ModelConfig from a Hugging Face config.json.
#pragma once

#include <filesystem>

#include "model/model_config.hpp"

namespace refit::model {

/// Reads `architectures`/`model_type`, the shape figures (head_dim derived where absent),
/// tie_word_embeddings, attention_bias and quantization_config; of Qwen3-MoE and DeepSeek-V3 the
/// figures of experts and latent attention too. The figures that decide the size of a model have to
/// be there; others are the default of the Hugging Face configuration class where they are absent,
/// but for num_nextn_predict_layers: without it the model has no layer for multi-token prediction,
/// as in the engines. Throws FileError naming file, key, what was found and what is supported, also
/// for figures that exclude one another.
[[nodiscard]] ModelConfig read_hf_config(const std::filesystem::path& config_json);

}  // namespace refit::model
