// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// One case from the merged keys of a scenario: defaults, names and contradictions.
#pragma once

#include <filesystem>

#include "harness/scenario.hpp"
#include "harness/scenario_tree.hpp"

namespace refit::harness {

/// Reads every key of `root` (without sweep and cases) into a Case. `scheme`, `recipe`, `algo` and
/// `quantization_config` come out resolved: never "auto", never a default left empty (a BF16 case
/// has neither recipe nor config). `file` gives the folder that relative paths start from. Throws
/// ScenarioError with file and line, key, what was found and what is allowed; FileError for a model
/// config or quantization_config file that cannot be read.
[[nodiscard]] Case read_case(const Node& root, const std::filesystem::path& file);

}  // namespace refit::harness
