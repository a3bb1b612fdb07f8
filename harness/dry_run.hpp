// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// `refitbench run --dry-run`: what the cases are and what each needs.
#pragma once

#include <vector>

#include "harness/command_line.hpp"
#include "harness/scenario.hpp"

namespace refit::harness {

/// Prints cases, the ranks each needs, its bytes on the wire and its memory; runs nothing. Returns
/// the exit code.
[[nodiscard]] int dry_run(const RunOptions& options, const std::vector<std::string>& argv,
                          const std::vector<Case>& cases, bool is_mpi);

}  // namespace refit::harness
