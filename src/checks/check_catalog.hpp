// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// THE list of checks.
#pragma once

#include <string>
#include <vector>

namespace refit::checks {

struct CheckRow {
    std::string name;
    std::string question;
    std::string truth;  ///< where its truth comes from
    bool by_default = true;
    bool available = true;  ///< false: named in the interface, not built yet
};

[[nodiscard]] const std::vector<CheckRow>& check_catalog();
[[nodiscard]] std::vector<std::string> check_names();

}  // namespace refit::checks
