// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// RunRecord as the JSON of `run --json` (schema refitbench.run/1) and as JUnit XML.
#pragma once

#include <string>

#include "record/run_record.hpp"

namespace refit::record {

/// `record_path` may be empty. Non-finite numbers become null.
[[nodiscard]] std::string to_json(const RunRecord& record, const std::string& record_path);
/// One test case a case and check.
[[nodiscard]] std::string to_junit(const RunRecord& record);

}  // namespace refit::record
