// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// `refitbench identify`: which recipe made these codes and scales.
#pragma once

#include <string>
#include <vector>

#include "harness/command_line.hpp"

namespace refit::harness {

/// Quantizes the reference by every recipe whose scale tensor has the found shape and dtype, and
/// compares bit by bit (all NaN are one; the scale's name does not count). Exit codes: 0 if every
/// matrix has an exact recipe; 1 if one has none, and for a missing or wrong scale or reference; 2
/// for wrong use; 3 for a malformed file.
[[nodiscard]] int identify_command(const IdentifyOptions& options,
                                   const std::vector<std::string>& argv);

}  // namespace refit::harness
