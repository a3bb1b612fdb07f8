// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Named shared memory that does not stay behind. Private to src/transport.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace refit::transport {

/// "refitbench.<run_id>.<suffix>.<pid>.<start time>": remove_stale_segments() reads the last two
/// fields. Characters of run_id other than letters, digits, '-', '_' and '.' become '_'.
[[nodiscard]] std::string segment_name(const std::string& run_id, const std::string& suffix);

/// Field 22 of /proc/PID/stat in clock ticks, which tells a process from a later one with the same
/// pid; 0 when there is no such process.
[[nodiscard]] std::uint64_t process_start_time(long pid);

/// A mapped segment. Only the creator unlinks the name, on unlink() or destruction.
class SharedSegment {
 public:
    /// Creates, reserves and touches `bytes`. Throws ResourceError.
    static std::unique_ptr<SharedSegment> create(const std::string& name, std::uint64_t bytes);
    /// Maps an existing one: the first `control_bytes` for writing, the rest for reading. Throws
    /// ResourceError.
    static std::unique_ptr<SharedSegment> map(const std::string& name, std::uint64_t bytes,
                                              std::uint64_t control_bytes);
    ~SharedSegment();
    SharedSegment(const SharedSegment&) = delete;
    SharedSegment& operator=(const SharedSegment&) = delete;

    [[nodiscard]] std::byte* data() const { return data_; }
    /// Removes the name; the memory lives on until the last rank unmaps it.
    void unlink();

 private:
    SharedSegment() = default;
    std::string name_;  ///< empty unless the name is ours to remove
    std::byte* data_ = nullptr;
    std::uint64_t bytes_ = 0;
};

/// Bytes free in /dev/shm.
[[nodiscard]] std::uint64_t shared_memory_free();

}  // namespace refit::transport
