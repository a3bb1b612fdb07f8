// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <hdf5.h>

#include <cstddef>

#include "record/run_record.hpp"

namespace refit::record::hdf5 {

/// Writes case `number` as a group of `cases`: attributes, samples, tensors, buckets and findings,
/// after schema.md.
void write_case(hid_t cases, std::size_t number, const CaseRecord& record);

}  // namespace refit::record::hdf5
