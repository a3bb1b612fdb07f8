// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What ranks tell each other about a refit, as text between processes.
#pragma once

#include <string>
#include <vector>

#include "core/finding.hpp"
#include "harness/refit_cycle.hpp"
#include "harness/stage_clock.hpp"

namespace refit::harness {

[[nodiscard]] std::string findings_to_json(const core::Findings& findings);
[[nodiscard]] core::Findings findings_from_json(const std::string& text);

[[nodiscard]] std::string refit_result_to_json(const RefitResult& result);
[[nodiscard]] RefitResult refit_result_from_json(const std::string& text);

}  // namespace refit::harness
