// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// RunRecord to one HDF5 file: its name and its way onto the disk. What is in it: record/hdf5/.
#pragma once

#include <filesystem>
#include <string>

#include "record/run_record.hpp"

namespace refit::record {

/// DIR/<stem>-<UTC time>-<counter>.h5 that does not exist yet; DIR need not exist. The time is
/// `created_utc` without its separators, to the second.
[[nodiscard]] std::filesystem::path new_record_path(const std::filesystem::path& directory,
                                                    const std::string& stem,
                                                    const std::string& created_utc);

/// Writes one record after the layout of schema.md: whole or not at all. The file is built in
/// memory, written to a temporary name in the same folder, synced and renamed. An existing file is
/// never overwritten: then a further counter is tried; the path that was used is returned. Throws
/// RecordError naming the path and the reason (no such folder, disk full ...); no temporary file
/// stays behind.
std::filesystem::path write_hdf5(const RunRecord& record, const std::filesystem::path& path);

/// Version of the HDF5 library, "1.10.8".
[[nodiscard]] std::string hdf5_version();

}  // namespace refit::record
