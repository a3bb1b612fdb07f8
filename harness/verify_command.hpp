// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// `refitbench verify`: would this engine load this checkpoint, and end with the right weights?
#pragma once

#include <string>
#include <vector>

#include "harness/command_line.hpp"

namespace refit::harness {

/// Prints the verdict with the first offending tensor and its remedy, then one line a finding, or
/// the JSON of schema refitbench.verify/1. Exit code 1 for a finding of severity error.
[[nodiscard]] int verify_command(const VerifyOptions& options,
                                 const std::vector<std::string>& argv);

}  // namespace refit::harness
