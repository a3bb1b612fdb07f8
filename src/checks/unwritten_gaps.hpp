// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What no span covers: padding that the loader fills with zeros, and parameters that nobody writes.
#pragma once

#include <functional>
#include <vector>

#include "core/finding.hpp"
#include "receiver/engine_contract.hpp"
#include "receiver/loaded_parameters.hpp"

namespace refit::checks {

/// Looks for poison in what none of `spans` covers; one completeness finding a destination. It
/// names the first tensor that is loaded into the destination, or the destination where there is
/// none. Scale destinations are left out: a scale that is used is seen with the element that uses
/// it.
void append_unwritten_gaps(const receiver::ContractInstance& instance,
                           const std::vector<receiver::LoadSpan>& spans,
                           const receiver::LoadedParameters& loaded, int rank,
                           const std::function<void()>& on_progress, core::Findings& findings);

}  // namespace refit::checks
