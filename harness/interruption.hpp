// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Ctrl-C in commands of one process that have something to clean up.
#pragma once

#include <string>

namespace refit::harness {

/// Throws Error with exit code 3 and `what` when the process was asked to end (SIGINT, SIGTERM,
/// SIGHUP). The signals must be blocked, as block_signals() does; to be called often enough for a
/// person who waits.
void throw_if_interrupted(const std::string& what);

}  // namespace refit::harness
