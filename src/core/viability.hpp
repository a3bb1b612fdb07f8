// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A capability that is missing is a named state with a reason.
#pragma once

#include <string>

namespace refit::core {

struct Viability {
    bool compiled = false;
    bool viable = false;
    std::string reason;  ///< why not; empty when viable
};

}  // namespace refit::core
