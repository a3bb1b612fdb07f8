// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// JSON of checkpoints, more strictly than the library reads it. Private to src/weights.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace refit::weights {

/// A key that stands twice in one object; thrown where no file name is known.
struct RepeatedKey {
    std::string key;
};

/// Parses JSON and refuses a key that stands twice in one object: the library keeps the last of
/// them silently, other readers the first, so two readers would see two different files. Throws
/// RepeatedKey, and the library's exceptions.
[[nodiscard]] nlohmann::json parse_without_repeated_keys(std::string_view text);

/// Whether brackets nest deeper than `limit`. A text of 10^8 brackets would take gigabytes as a
/// tree, so that it is refused before it is parsed.
[[nodiscard]] bool nests_deeper_than(std::string_view text, int limit);

/// The value as text for a message, its tail cut off.
[[nodiscard]] std::string brief(const nlohmann::json& value);

}  // namespace refit::weights
