// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Where and when a run took place; goes into every record.
#pragma once

#include <map>
#include <string>

namespace refit::harness {

/// "2026-11-21T12:15:09.088028Z".
[[nodiscard]] std::string utc_now();
[[nodiscard]] std::string host_name();
/// Cores that this process may run on: "cpu 0-1,4".
[[nodiscard]] std::string cpu_list();
/// Versions, processor, compiler and the settings that move figures. No environment variables of
/// the user's beyond those named.
[[nodiscard]] std::map<std::string, std::string> environment(bool is_mpi);

}  // namespace refit::harness
