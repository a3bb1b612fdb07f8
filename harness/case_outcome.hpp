// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The record of a case at its beginning and the judgement at its end.
#pragma once

#include <string>

#include "core/finding.hpp"
#include "harness/scenario.hpp"
#include "record/run_record.hpp"

namespace refit::harness {

/// The record of a case that is about to run on `transport`: what was asked for.
[[nodiscard]] record::CaseRecord begun_case(const Case& c, const std::string& transport);

/// The record of a case that does not run, with its reason.
[[nodiscard]] record::CaseRecord skipped_case(const Case& c, const std::string& reason);

/// Adds what the record does not say yet: ranks and iterations find the same thing again.
void add_findings(record::CaseRecord& record, const core::Findings& findings);

/// Whether findings and error fit what the scenario expects: pass | fail | expected_finding |
/// expected_error | unexpected_pass | error.
[[nodiscard]] std::string judge_outcome(const Expectation& expect, const core::Findings& findings,
                                        bool error);

}  // namespace refit::harness
