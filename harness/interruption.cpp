// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/interruption.hpp"

#include <signal.h>

#include "core/error.hpp"

namespace refit::harness {

void throw_if_interrupted(const std::string& what) {
    sigset_t pending;
    sigemptyset(&pending);
    if (sigpending(&pending) != 0) return;
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
        if (sigismember(&pending, signal) == 1) {
            throw core::Error(core::ExitCode::environment, what + ": interrupted");
        }
    }
}

}  // namespace refit::harness
