// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/mpi_window/shared_segment.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>

#include "core/error.hpp"

namespace refit::transport {
namespace {

class FileDescriptor {
 public:
    explicit FileDescriptor(int fd) : fd_(fd) {}
    ~FileDescriptor() {
        if (fd_ >= 0) (void)close(fd_);
    }
    FileDescriptor(const FileDescriptor&) = delete;
    FileDescriptor& operator=(const FileDescriptor&) = delete;
    [[nodiscard]] int get() const { return fd_; }

 private:
    int fd_;
};

[[noreturn]] void fail(const char* call, const std::string& name, std::uint64_t bytes, int error) {
    throw core::ResourceError(
        fmt::format("{} of shared memory /dev/shm/{} ({} bytes) failed: {}; give the container a "
                    "larger --shm-size, use smaller bucket_bytes or depth, or transport mpi",
                    call, name, bytes, std::strerror(error)));
}

}  // namespace

std::string segment_name(const std::string& run_id, const std::string& suffix) {
    constexpr std::size_t kLongestRunId = 96;
    std::string id = run_id.empty() ? "run" : run_id.substr(0, kLongestRunId);
    for (char& c : id) {
        const auto u = static_cast<unsigned char>(c);
        if (std::isalnum(u) == 0 && c != '-' && c != '_' && c != '.') c = '_';
    }
    const auto pid = static_cast<long>(getpid());
    return fmt::format("refitbench.{}.{}.{}.{}", id, suffix, pid, process_start_time(pid));
}

std::uint64_t process_start_time(long pid) {
    std::ifstream file(fmt::format("/proc/{}/stat", pid));
    const std::string text((std::istreambuf_iterator<char>(file)),
                           std::istreambuf_iterator<char>());
    // The name in field 2 may hold blanks and brackets; the last ')' ends it.
    const std::size_t end = text.rfind(')');
    if (end == std::string::npos) return 0;
    std::istringstream fields(text.substr(end + 1));
    std::string field;
    constexpr int kStartTimeAfterName = 20;  // field 22, counted from field 3
    for (int i = 0; i < kStartTimeAfterName; ++i) {
        if (!(fields >> field)) return 0;
    }
    return std::stoull(field);
}

std::unique_ptr<SharedSegment> SharedSegment::create(const std::string& name, std::uint64_t bytes) {
    const FileDescriptor fd(
        shm_open(("/" + name).c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600));
    if (fd.get() < 0) fail("shm_open", name, bytes, errno);
    std::unique_ptr<SharedSegment> segment(new SharedSegment);
    segment->name_ = name;
    // ftruncate alone succeeds beyond the capacity of /dev/shm and the first touch is then a
    // SIGBUS; reserving the pages fails in a way that can be told. A signal interrupts it.
    int error = 0;
    do {
        error = posix_fallocate(fd.get(), 0, static_cast<off_t>(bytes));
    } while (error == EINTR);
    if (error != 0) fail("posix_fallocate", name, bytes, error);
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    if (memory == MAP_FAILED) fail("mmap", name, bytes, errno);
    segment->data_ = static_cast<std::byte*>(memory);
    segment->bytes_ = bytes;
    // Advice: taken where /sys/kernel/mm/transparent_hugepage/shmem_enabled allows it.
    (void)madvise(memory, bytes, MADV_HUGEPAGE);
    std::memset(memory, 0, bytes);
    return segment;
}

std::unique_ptr<SharedSegment> SharedSegment::map(const std::string& name, std::uint64_t bytes,
                                                  std::uint64_t control_bytes) {
    const FileDescriptor fd(shm_open(("/" + name).c_str(), O_RDWR | O_CLOEXEC, 0));
    if (fd.get() < 0) fail("shm_open", name, bytes, errno);
    struct stat info {};
    if (fstat(fd.get(), &info) != 0) fail("fstat", name, bytes, errno);
    if (static_cast<std::uint64_t>(info.st_size) != bytes) {
        throw core::ResourceError(fmt::format("shared memory /dev/shm/{} has {} bytes, expected {}",
                                              name, static_cast<std::int64_t>(info.st_size),
                                              bytes));
    }
    std::unique_ptr<SharedSegment> segment(new SharedSegment);
    // MAP_POPULATE: the page table is filled here and not in the timed refit.
    void* memory = mmap(nullptr, bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, fd.get(), 0);
    if (memory == MAP_FAILED) fail("mmap", name, bytes, errno);
    segment->data_ = static_cast<std::byte*>(memory);
    segment->bytes_ = bytes;
    (void)madvise(memory, bytes, MADV_HUGEPAGE);
    // A receiver that writes into the trainer's slot is a defect; let it show as a fault of that
    // receiver.
    if (mprotect(memory, control_bytes, PROT_READ | PROT_WRITE) != 0)
        fail("mprotect", name, bytes, errno);
    return segment;
}

SharedSegment::~SharedSegment() {
    unlink();
    if (data_ != nullptr) (void)munmap(data_, bytes_);
}

void SharedSegment::unlink() {
    if (name_.empty()) return;
    (void)shm_unlink(("/" + name_).c_str());
    name_.clear();
}

std::uint64_t shared_memory_free() {
    struct statvfs info {};
    if (statvfs("/dev/shm", &info) != 0) return 0;
    return static_cast<std::uint64_t>(info.f_bavail) * static_cast<std::uint64_t>(info.f_frsize);
}

}  // namespace refit::transport
