// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Finding shared memory that nobody uses any more. Private to src/transport.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace refit::transport {

/// Creator of a segment of ours, as its name says.
struct SegmentCreator {
    long pid = 0;
    unsigned long long start_time = 0;
};
/// Empty unless the name is refitbench.<...>.<pid>.<start time>.
[[nodiscard]] std::optional<SegmentCreator> segment_creator(const std::string& name);

/// remove_stale_segments() on another folder than /dev/shm, for the tests.
std::vector<std::string> remove_stale_segments_in(const std::string& folder);

}  // namespace refit::transport
