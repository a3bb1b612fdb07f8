// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// `refitbench run`: scenarios to cases, cases to a record and an exit code.
#pragma once

#include <string>
#include <vector>

#include "harness/command_line.hpp"
#include "harness/world.hpp"

namespace refit::harness {

/// Under a launcher: collective over `world`; every rank returns the same code. `world` null: this
/// process plays all ranks.
[[nodiscard]] int run_command(const RunOptions& options, const std::vector<std::string>& argv,
                              World* world);

}  // namespace refit::harness
