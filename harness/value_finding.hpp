// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Findings about single values of a stored tensor.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/finding.hpp"
#include "core/shape.hpp"

namespace refit::harness {

/// The index of flat element `flat` in a tensor of `shape`.
[[nodiscard]] std::vector<std::int64_t> index_in(const core::Shape& shape, std::int64_t flat);

/// "NaN", "Inf", "-Inf" or the number.
[[nodiscard]] std::string shown(double value);

/// An error of the check nonfinite that an engine does not notice; its message is made of the
/// tensor, the sentence and the remedy.
[[nodiscard]] core::Finding value_finding(const std::string& tensor,
                                          std::vector<std::int64_t> index,
                                          const std::string& measured, const std::string& limit,
                                          const std::string& sentence, const std::string& remedy);

}  // namespace refit::harness
