// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "record/run_record.hpp"

namespace refit::record::hdf5 {

/// The bytes of the file. Building it in memory keeps every error of the disk out of HDF5, whose
/// H5Fclose on a full disk leaves identifiers that fail again when the process ends. Throws
/// RecordError where HDF5 fails.
[[nodiscard]] std::vector<std::uint8_t> file_image(const RunRecord& record);

}  // namespace refit::record::hdf5
