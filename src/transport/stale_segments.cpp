// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/stale_segments.hpp"

#include <dirent.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <charconv>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <system_error>

#include "transport/mpi_window/shared_segment.hpp"
#include "transport/transport_catalog.hpp"

namespace refit::transport {
namespace {

constexpr std::time_t kYoungestVaderSegment =
    10;  ///< seconds: a starting job has created it but not mapped it yet

template <class Number>
bool parse(std::string_view text, Number& value) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc{} && end == text.data() + text.size() && !text.empty();
}

/// "major:minor inode" of every file that a process of ours maps. Empty optional when one of our
/// processes does not let us look: then nothing can be called unmapped.
std::optional<std::set<std::string>> mapped_files() {
    std::set<std::string> mapped;
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
        const std::string pid = entry.path().filename().string();
        long number = 0;
        if (!parse(std::string_view(pid), number)) continue;
        struct stat owner {};
        if (stat(entry.path().c_str(), &owner) != 0 || owner.st_uid != geteuid()) continue;
        std::ifstream maps(entry.path() / "maps");
        std::string line;
        if (!maps) {
            // Gone since the folder was listed, or closed to us. Process 1 is closed in many
            // containers and is no MPI rank there.
            if (number == 1 || process_start_time(number) == 0) continue;
            return std::nullopt;
        }
        while (std::getline(maps, line)) {
            std::istringstream fields(line);
            std::string range, rights, offset, device, inode;
            if (fields >> range >> rights >> offset >> device >> inode)
                mapped.insert(device + " " + inode);
        }
    }
    return mapped;
}

}  // namespace

std::optional<SegmentCreator> segment_creator(const std::string& name) {
    if (!name.starts_with("refitbench.")) return std::nullopt;
    const std::size_t last = name.rfind('.');
    const std::size_t before = last == 0 ? std::string::npos : name.rfind('.', last - 1);
    if (before == std::string::npos) return std::nullopt;
    SegmentCreator creator;
    const std::string_view text(name);
    if (!parse(text.substr(before + 1, last - before - 1), creator.pid)) return std::nullopt;
    if (!parse(text.substr(last + 1), creator.start_time) || creator.pid <= 0) return std::nullopt;
    return creator;
}

std::vector<std::string> remove_stale_segments_in(const std::string& folder) {
    std::vector<std::string> ours;
    std::vector<std::string> vader;
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
        const std::string name = entry.path().filename().string();
        if (const auto creator = segment_creator(name)) {
            if (process_start_time(creator->pid) != creator->start_time) ours.push_back(name);
        } else if (name.starts_with("vader_segment.")) {
            struct stat info {};
            if (lstat(entry.path().c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
            if (info.st_uid == geteuid() &&
                std::time(nullptr) - info.st_mtime > kYoungestVaderSegment)
                vader.push_back(name);
        }
    }
    std::vector<std::string> removed;
    const auto remove = [&](const std::string& name) {
        if (unlink((folder + "/" + name).c_str()) == 0) removed.push_back(name);
    };
    for (const std::string& name : ours) remove(name);
    if (vader.empty()) return removed;
    const auto mapped = mapped_files();
    if (!mapped) return removed;
    for (const std::string& name : vader) {
        struct stat info {};
        if (stat((folder + "/" + name).c_str(), &info) != 0) continue;
        const std::string key =
            fmt::format("{:02x}:{:02x} {}", major(info.st_dev), minor(info.st_dev), info.st_ino);
        if (!mapped->contains(key)) remove(name);
    }
    return removed;
}

std::vector<std::string> remove_stale_segments() {
    return remove_stale_segments_in("/dev/shm");
}

}  // namespace refit::transport
