// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What the record says of each tensor.
#pragma once

#include <string>
#include <vector>

#include "checks/audit.hpp"
#include "harness/case_setup.hpp"
#include "record/run_record.hpp"

namespace refit::harness {

/// A row for each tensor of the model, in its order, then one for each scale of the KV cache. Bytes
/// are those on the wire; figures that do not apply are NaN. `recipe` is the name of the case's.
[[nodiscard]] std::vector<record::TensorRow> tensor_rows(const CaseSetup& setup,
                                                         const wire::RefitManifest& manifest,
                                                         const checks::MergedAudit& merged,
                                                         const std::string& recipe);

}  // namespace refit::harness
