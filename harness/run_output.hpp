// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The streams and files that `run` writes besides its record.
#pragma once

#include <string>

#include "harness/command_line.hpp"

namespace refit::harness {

/// Writes `text` to a file, or to standard output for "-". Throws FileError naming the file.
void write_text(const std::string& target, const std::string& text);
/// Throws FileError unless write_text will be able to write there; "" and "-" always are. Leaves no
/// new file behind.
void check_writable(const std::string& target);
/// True when standard output belongs to one report alone (--json - or --junit -).
[[nodiscard]] bool quiet(const RunOptions& options);
/// To standard output, unless quiet.
void say(const RunOptions& options, const std::string& text);
/// One line to standard error.
void complain(const std::string& text);

}  // namespace refit::harness
