// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A finding about what an engine does with one tensor of a stream.
#pragma once

#include <string>

#include "core/finding.hpp"

namespace refit::receiver {

/// An error finding of `check`. `behaviour`: raises | silently_wrong | ignored | warns |
/// keeps_sentinel; `engine_message`: the engine's own text, empty where it says nothing. The
/// finding's message is "tensor: message; remedy".
[[nodiscard]] core::Finding engine_finding(const std::string& check, const std::string& tensor,
                                           const std::string& measured, const std::string& limit,
                                           const std::string& behaviour,
                                           const std::string& engine_message,
                                           const std::string& message, const std::string& remedy);

}  // namespace refit::receiver
