// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Memory of this process, from /proc.
#pragma once

#include <cstdint>

namespace refit::harness {

struct ProcessMemory {
    std::uint64_t peak_bytes = 0;    ///< VmHWM: largest resident size since the last reset
    std::uint64_t shared_bytes = 0;  ///< RssShmem: resident pages that other processes may share
};

[[nodiscard]] ProcessMemory process_memory();

/// From here on the peak counts anew. Where the kernel does not allow it, the peak of the process
/// so far stays in the figure.
void reset_peak_memory();

}  // namespace refit::harness
