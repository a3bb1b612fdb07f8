// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The text of a config.json as Python's json module takes it, which all engines read it with.
#pragma once

#include <string>

namespace refit::model {

/// `text` as JSON of the standard: NaN, Infinity and -Infinity outside of strings, which Python
/// reads and writes, become null. Throws FileError naming `file` for what Python refuses although
/// other readers take it: a byte order mark, and bytes that are no UTF-8.
[[nodiscard]] std::string standard_json(const std::string& file, std::string text);

}  // namespace refit::model
