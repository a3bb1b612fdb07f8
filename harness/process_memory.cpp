// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/process_memory.hpp"

#include <fstream>
#include <sstream>
#include <string>

namespace refit::harness {

ProcessMemory process_memory() {
    ProcessMemory memory;
    std::ifstream file("/proc/self/status");
    std::string line;
    while (std::getline(file, line)) {
        auto value = [&](const char* key, std::uint64_t& to) {
            if (!line.starts_with(key)) return;
            std::istringstream fields(line.substr(std::string(key).size()));
            std::uint64_t kib = 0;
            if (fields >> kib) to = kib * 1024;
        };
        value("VmHWM:", memory.peak_bytes);
        value("RssShmem:", memory.shared_bytes);
    }
    return memory;
}

/// From here on VmHWM counts anew. Where the kernel does not allow it, the peak of the process so
/// far stays in the figure.
void reset_peak_memory() {
    std::ofstream file("/proc/self/clear_refs");
    file << "5";
}

}  // namespace refit::harness
