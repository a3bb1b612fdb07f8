// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What this program was built from and with; goes into every record.
#pragma once

#include <string>

namespace refit::record {

/// Version of refitbench, "0.1.0".
[[nodiscard]] std::string tool_version();
/// Git commit of the source, 40 hex digits; "unknown" where the source is no git checkout.
[[nodiscard]] std::string tool_commit();
/// True where the source tree differed from that commit when it was built (untracked files that git
/// does not ignore count); false as well where the commit is unknown.
[[nodiscard]] bool tool_dirty();
/// "GNU 12.2.0".
[[nodiscard]] std::string compiler();
/// Compiler flags of the build type, with those that are part of the numeric contract.
[[nodiscard]] std::string compiler_flags();

}  // namespace refit::record
