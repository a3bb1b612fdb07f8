// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A ModelConfig from a Hugging Face config.json.
#pragma once

#include <filesystem>

#include "model/model_config.hpp"

namespace refit::model {

/// Reads `architectures`/`model_type`, the shape figures (head_dim derived where absent),
/// tie_word_embeddings, attention_bias and quantization_config. Throws FileError naming file, key,
/// what was found and what is supported.
[[nodiscard]] ModelConfig read_hf_config(const std::filesystem::path& config_json);

}  // namespace refit::model
