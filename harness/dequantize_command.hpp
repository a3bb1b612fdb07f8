// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// `refitbench dequantize`: an FP8 safetensors file back to BF16 or F32.
#pragma once

#include <string>
#include <vector>

#include "harness/command_line.hpp"

namespace refit::harness {

/// Every F8_E4M3 matrix becomes fl32(code * scale), for --dtype bf16 rounded once more to the
/// nearest BF16 (as the converters of the field do); its scale tensor is left out, the rest passes
/// through. Exit codes: 0; 1 for a missing, surplus or wrong scale (no output is written); 2 for
/// wrong use; 3 for a malformed or unwritable file.
[[nodiscard]] int dequantize_command(const DequantizeOptions& options,
                                     const std::vector<std::string>& argv);

}  // namespace refit::harness
