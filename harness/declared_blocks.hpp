// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Which block sizes a configuration names, whatever engine reads it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "checks/scale_layout.hpp"

namespace refit::harness {

/// Of the text of a quantization_config: weight_block_size of quant_method fp8, and block_structure
/// of every group of compressed-tensors. What is malformed is for the engines' readers to name.
[[nodiscard]] std::vector<checks::BlockSize> declared_blocks(const std::string& config);

/// The same of the config.json in the folder of a weight file; none where there is no such file, or
/// none that can be read.
[[nodiscard]] std::vector<checks::BlockSize> declared_blocks_beside(
    const std::filesystem::path& weights);

}  // namespace refit::harness
