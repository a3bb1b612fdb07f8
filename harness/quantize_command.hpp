// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// `refitbench quantize`: a BF16 safetensors file into codes and scales, without an engine.
#pragma once

#include <string>
#include <vector>

#include "harness/command_line.hpp"

namespace refit::harness {

/// Every 2-d BF16 tensor is quantized, the rest passes through; names and scale shapes as the
/// recipe's own system writes them. Exit codes: 0; 1 for non-finite values under `reject` and
/// tensors that the recipe cannot take (no output is written); 2 for wrong use; 3 for a malformed
/// or unwritable file; 77 for a backend that is not viable.
[[nodiscard]] int quantize_command(const QuantizeOptions& options,
                                   const std::vector<std::string>& argv);

}  // namespace refit::harness
