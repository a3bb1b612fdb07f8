// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "record/hdf5_writer.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <system_error>
#include <utility>
#include <vector>

#include "core/error.hpp"
#include "record/hdf5/file_image.hpp"

namespace refit::record {
namespace {

constexpr int kMostCounters = 1'000'000;
// A name may have 255 bytes; time, counter, and what the temporary file adds, need some of them.
constexpr std::size_t kLongestStem = 180;

[[noreturn]] void fail_on_disk(const std::filesystem::path& path, const std::string& what,
                               int error) {
    std::string remedy;
    switch (error) {
        case ENOSPC:
        case EDQUOT:
            remedy = "free some space or choose another folder with --output";
            break;
        case EFBIG:
            remedy = "raise the limit on file sizes (ulimit -f)";
            break;
        case ENOENT:
            remedy = "create the folder or choose another with --output";
            break;
        case ENOTDIR:
            remedy = "choose a folder with --output";
            break;
        case EACCES:
        case EPERM:
        case EROFS:
            remedy = "choose a folder that can be written to with --output";
            break;
        default:
            remedy = "choose another folder with --output";
    }
    throw core::RecordError(fmt::format("cannot write record {}: {} failed: {}; {}", path.string(),
                                        what, std::generic_category().message(error), remedy));
}

/// Removes the temporary file on every way out but the successful one.
class TemporaryFile {
 public:
    explicit TemporaryFile(std::filesystem::path path) : path_(std::move(path)) {}
    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;
    ~TemporaryFile() {
        if (descriptor_ >= 0) ::close(descriptor_);
        if (exists_) ::unlink(path_.c_str());
    }
    /// 0 or errno.
    int create() {
        descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        exists_ = descriptor_ >= 0;
        return exists_ ? 0 : errno;
    }
    int write(const std::vector<std::uint8_t>& bytes) {
        std::size_t done = 0;
        while (done < bytes.size()) {
            const ssize_t count = ::write(descriptor_, bytes.data() + done, bytes.size() - done);
            if (count < 0 && errno == EINTR) continue;
            if (count < 0) return errno;
            done += static_cast<std::size_t>(count);
        }
        return 0;
    }
    int sync_and_close() {
        if (::fsync(descriptor_) != 0) return errno;
        // Network file systems report a full disk as late as here.
        return ::close(std::exchange(descriptor_, -1)) == 0 ? 0 : errno;
    }
    [[nodiscard]] const std::filesystem::path& path() const { return path_; }
    void renamed() { exists_ = false; }

 private:
    std::filesystem::path path_;
    int descriptor_ = -1;
    bool exists_ = false;
};

/// Gives `from` the name `to` unless that exists. 0, EEXIST or another errno.
int rename_without_overwriting(const std::filesystem::path& from, const std::filesystem::path& to) {
    if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return 0;
    if (errno != EINVAL && errno != ENOSYS) return errno;
    // A file system without that flag (NFS, older FUSE): a hard link does not overwrite either.
    if (::link(from.c_str(), to.c_str()) == 0) {
        ::unlink(from.c_str());
        return 0;
    }
    if (errno != EPERM && errno != EOPNOTSUPP && errno != ENOSYS) return errno;
    // And one without hard links: an exclusive create claims the name, then the rename replaces
    // only the empty file that is ours.
    const int claim = ::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (claim < 0) return errno;
    ::close(claim);
    if (::rename(from.c_str(), to.c_str()) == 0) return 0;
    const int error = errno;
    ::unlink(to.c_str());
    return error;
}

/// "run-20260102T030405Z-1.h5" -> "run-20260102T030405Z-2.h5"; a name without a counter gets one.
std::filesystem::path with_next_counter(const std::filesystem::path& path) {
    std::string stem = path.stem().string();
    std::int64_t counter = 0;
    const std::size_t dash = stem.find_last_of('-');
    // More digits than nine are a date, not a counter of ours.
    if (dash != std::string::npos && dash + 1 < stem.size() && stem.size() - dash <= 10 &&
        std::all_of(stem.begin() + static_cast<std::ptrdiff_t>(dash) + 1, stem.end(),
                    [](char c) { return c >= '0' && c <= '9'; })) {
        counter = std::stoll(stem.substr(dash + 1));
        stem.resize(dash);
    }
    return path.parent_path() /
           fmt::format("{}-{}{}", stem, counter + 1, path.extension().string());
}

/// The new name must survive a power failure as well; a folder that cannot be synced is no error.
void sync_folder(const std::filesystem::path& folder) {
    const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return;
    ::fsync(descriptor);
    ::close(descriptor);
}

}  // namespace

std::filesystem::path new_record_path(const std::filesystem::path& directory,
                                      const std::string& stem, const std::string& created_utc) {
    std::string name;
    for (const char c : stem) name += c == '/' || c == '\0' ? '_' : c;
    if (name.size() > kLongestStem) {
        std::size_t end = kLongestStem;
        // Not between the bytes of one UTF-8 character.
        while (end > 0 && (static_cast<unsigned char>(name[end]) & 0xC0U) == 0x80U) --end;
        name.resize(end);
    }
    std::string time;
    for (const char c : created_utc) {
        if (c == '.') break;
        if ((c >= '0' && c <= '9') || c == 'T') time += c;
    }
    std::filesystem::path path = directory / fmt::format("{}-{}Z-1.h5", name, time);
    std::error_code ignored;  // what cannot be looked at is reported by the write
    while (std::filesystem::exists(std::filesystem::symlink_status(path, ignored))) {
        path = with_next_counter(path);
    }
    return path;
}

std::filesystem::path write_hdf5(const RunRecord& record, const std::filesystem::path& path) {
    std::vector<std::uint8_t> image;
    try {
        image = hdf5::file_image(record);
    } catch (const core::RecordError& error) {
        throw core::RecordError(
            fmt::format("cannot build record {}: {}", path.string(), error.what()));
    }

    const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
    TemporaryFile file(folder / fmt::format(".{}.{}.tmp", path.filename().string(), ::getpid()));
    if (const int error = file.create(); error != 0) {
        fail_on_disk(path, "creating a file in its folder", error);
    }
    if (const int error = file.write(image); error != 0) {
        fail_on_disk(path, fmt::format("writing {} bytes", image.size()), error);
    }
    if (const int error = file.sync_and_close(); error != 0) fail_on_disk(path, "syncing", error);

    std::filesystem::path target = path;
    for (int attempt = 0; attempt < kMostCounters; ++attempt) {
        const int error = rename_without_overwriting(file.path(), target);
        if (error == 0) {
            file.renamed();
            sync_folder(folder);
            return target;
        }
        if (error != EEXIST) fail_on_disk(target, "renaming the finished file", error);
        target = with_next_counter(target);
    }
    fail_on_disk(path, "finding a free name", EEXIST);
}

}  // namespace refit::record
