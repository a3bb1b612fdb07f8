// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// No rank continues when another has failed.
#pragma once

#include <functional>
#include <string>

#include "core/error.hpp"
#include "harness/world.hpp"

namespace refit::harness {

/// What a failed step looks like on every rank: the first failing rank's words and exit code.
struct AgreedError : core::Error {
    AgreedError(core::ExitCode code, const std::string& message, int failed_rank)
        : core::Error(code, message), rank(failed_rank) {}
    int rank;  ///< -1 when every rank failed in the same way
};

/// Collective over the world: runs `step` on every rank; when any throws, all throw AgreedError.
/// `step` must not stop between two collectives of its own where another rank goes on.
void together(World& world, const std::function<void()>& step);

}  // namespace refit::harness
