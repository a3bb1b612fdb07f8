// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// `refitbench export`: a BF16 checkpoint directory into an FP8 one that a named engine loads.
#pragma once

#include <string>
#include <vector>

#include "harness/command_line.hpp"

namespace refit::harness {

/// Writes shards, index, config.json and side files beside `options.output` and moves them there
/// when they are whole. Reads the source band by band: memory does not grow with the model. Exit
/// codes: 0; 1 for a source that is quantized, incomplete or not finite, and for a model that the
/// engine would not load in this form (nothing is written); 2 for wrong use; 3 for a malformed or
/// unwritable file, a full disk, and an interruption (nothing is left behind).
[[nodiscard]] int export_command(const ExportOptions& options,
                                 const std::vector<std::string>& argv);

}  // namespace refit::harness
