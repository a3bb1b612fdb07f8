// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Where the scenarios that come with the program are.
#pragma once

#include <filesystem>
#include <vector>

namespace refit::harness {

/// The first folder that exists of: ./scenarios, scenarios beside or one above the program,
/// share/refitbench/scenarios of its installation, and the folder compiled in. Empty where there is
/// none.
[[nodiscard]] std::filesystem::path scenario_folder();

/// Every *.yaml below `folder`, sorted by path; `references` folders hold expected figures, no
/// scenarios, and are left out. Throws FileError when the folder cannot be read.
[[nodiscard]] std::vector<std::filesystem::path> scenarios_below(
    const std::filesystem::path& folder);

}  // namespace refit::harness
