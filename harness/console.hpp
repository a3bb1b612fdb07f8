// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What `run` prints: header, table, footer, in the manner of nccl-tests. Lines that are not data
// begin with '#'.
#pragma once

#include <string>

#include "harness/scenario.hpp"
#include "record/run_record.hpp"

namespace refit::harness {

/// The text with each control character, such as a line feed in a purpose of several lines, as one
/// blank, so that it stays on its line; none at the end.
[[nodiscard]] std::string one_line(std::string text);

[[nodiscard]] std::string header_text(const record::RunRecord& record, bool summary);
/// Column names; printed before the first case of a scenario together with its purpose.
[[nodiscard]] std::string columns_text(const std::string& scenario, const std::string& purpose);
/// One data line; `run` supplies the BF16 twin for the ratio.
[[nodiscard]] std::string case_text(const record::RunRecord& record, const record::CaseRecord& c);
/// What layer_output found, and the findings of one case, each a line beginning with '#'; with
/// `explain` also what the real engine would have done.
[[nodiscard]] std::string findings_text(const record::CaseRecord& c, std::size_t at_most,
                                        bool explain);
[[nodiscard]] std::string footer_text(const record::RunRecord& record,
                                      const std::string& record_path);
/// What a case will do, for --explain.
[[nodiscard]] std::string explain_text(const Case& c);

/// Median wall of `c` over that of the BF16 case with the same model, world, transport and link in
/// the same run; NaN without.
[[nodiscard]] double wall_over_bf16(const record::RunRecord& record, const record::CaseRecord& c);

}  // namespace refit::harness
