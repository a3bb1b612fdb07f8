// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// "Unknown recipe 'nemo-linear'; did you mean nemo-rl-linear?": unknown names list the nearest
// known ones.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace refit::core {

/// Up to three known names by edit distance, nearest first; all of them where there are at most
/// eight.
[[nodiscard]] std::vector<std::string> nearest_names(std::string_view unknown,
                                                     std::span<const std::string> known);

/// "unknown <kind> '<unknown>'; nearest: a, b, c. 'refitbench list <kind>s' prints all."
[[nodiscard]] std::string unknown_name_message(std::string_view kind, std::string_view unknown,
                                               std::span<const std::string> known);

}  // namespace refit::core
