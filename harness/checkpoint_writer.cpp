// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/checkpoint_writer.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string_view>
#include <system_error>

#include "core/error.hpp"

namespace refit::harness {
namespace {

namespace fs = std::filesystem;

/// Absolute, without a slash at the end, links resolved as far as they exist.
fs::path settled(const fs::path& path) {
    std::error_code problem;
    fs::path whole = fs::weakly_canonical(fs::absolute(path), problem);
    if (problem) whole = fs::absolute(path).lexically_normal();
    return whole.has_filename() ? whole : whole.parent_path();
}

void sync_directory(const fs::path& path) {
    const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    // Some file systems cannot sync a directory; its files are synced one by one.
    (void)fsync(fd);
    close(fd);
}

bool is_weight_file(const fs::path& path) {
    static constexpr std::array<std::string_view, 14> kExtensions = {
        ".safetensors", ".bin",  ".pt",   ".pth", ".ckpt",     ".h5",     ".msgpack",
        ".gguf",        ".onnx", ".ggml", ".npz", ".pdparams", ".tflite", ".onnx_data"};
    const std::string name = path.filename().string();
    const std::string extension = path.extension().string();
    return std::find(kExtensions.begin(), kExtensions.end(), extension) != kExtensions.end() ||
           name.ends_with(".index.json");
}

bool is_hidden(const fs::path& path) {
    return path.filename().string().starts_with(".");
}

bool holds_weights(const fs::path& folder) {
    std::error_code problem;
    for (fs::recursive_directory_iterator it(folder, problem), end; !problem && it != end;
         it.increment(problem)) {
        if (it->is_regular_file(problem) && is_weight_file(it->path())) return true;
    }
    return static_cast<bool>(problem);
}

void copy_one(const fs::path& from, const fs::path& to) {
    std::error_code problem;
    fs::create_directories(to.parent_path(), problem);
    if (!problem) fs::copy_file(from, to, problem);
    if (problem) {
        throw core::FileError("copying " + from.string() + " to the exported checkpoint: " +
                              problem.message() + "; nothing was left behind");
    }
    // A source that nobody may write to must not make an export that nobody can delete.
    fs::permissions(to, fs::perms::owner_write, fs::perm_options::add, problem);
}

std::vector<fs::path> sorted_entries(const fs::path& folder) {
    std::vector<fs::path> entries;
    std::error_code problem;
    for (fs::directory_iterator it(folder, problem), end; !problem && it != end;
         it.increment(problem)) {
        entries.push_back(it->path());
    }
    if (problem) {
        throw core::FileError("listing " + folder.string() + ": " + problem.message());
    }
    std::sort(entries.begin(), entries.end());
    return entries;
}

}  // namespace

PendingDirectory::PendingDirectory(const fs::path& target, const fs::path& source)
    : target_(settled(target)) {
    std::error_code problem;
    if (settled(source) == target_ || fs::equivalent(source, target_, problem)) {
        throw core::UsageError("--output is the directory of --model, " + source.string() +
                               "; name another one");
    }
    if (fs::exists(target_, problem) &&
        !(fs::is_directory(target_, problem) && fs::is_empty(target_, problem))) {
        throw core::UsageError("--output " + target_.string() +
                               " exists and is not an empty directory; name a new one, or remove "
                               "it first");
    }
    path_ = target_;
    path_ += ".partial-" + std::to_string(getpid());
    problem.clear();
    if (!fs::create_directory(path_, problem)) {
        throw core::FileError(
            "making " + path_.string() + ", where " + target_.string() +
            " is written: " + (problem ? problem.message() : std::string("it exists")) +
            "; is its folder there, and may you write to it?");
    }
}

PendingDirectory::~PendingDirectory() {
    if (kept_) return;
    std::error_code problem;
    fs::remove_all(path_, problem);
}

void PendingDirectory::require_room(std::uint64_t bytes) const {
    std::error_code problem;
    const fs::space_info space = fs::space(path_, problem);
    if (problem || space.available >= bytes) return;
    throw core::ResourceError(fmt::format(
        "writing {}: it needs {} bytes, the disk has {} left; make room or name another disk",
        target_.string(), bytes, static_cast<std::uint64_t>(space.available)));
}

void PendingDirectory::write_text(const std::string& name, const std::string& text) const {
    std::ofstream file(path_ / name, std::ios::trunc | std::ios::binary);
    file << text;
    file.close();
    if (!file) {
        throw core::FileError("writing " + name + " of " + target_.string() + ": " +
                              std::strerror(errno) + "; nothing was left behind");
    }
}

void PendingDirectory::keep() {
    sync_directory(path_);
    std::error_code problem;
    // Takes the place of an empty directory and of nothing else.
    fs::rename(path_, target_, problem);
    if (problem) {
        throw core::FileError("giving " + path_.string() + " its name " + target_.string() + ": " +
                              problem.message() + "; nothing was left behind");
    }
    kept_ = true;
    sync_directory(target_.parent_path());
}

std::vector<Shard> cut_into_shards(const std::vector<TensorGroup>& groups,
                                   std::uint64_t most_bytes) {
    std::vector<Shard> shards(1);
    for (std::size_t i = 0; i < groups.size(); ++i) {
        std::uint64_t bytes = 0;
        for (const weights::TensorLayout& tensor : groups[i]) bytes += tensor.bytes();
        if (!shards.back().groups.empty() && shards.back().bytes + bytes > most_bytes) {
            shards.emplace_back();
        }
        shards.back().bytes += bytes;
        shards.back().groups.push_back(i);
    }
    if (shards.size() == 1) {
        shards[0].file = "model.safetensors";
        return shards;
    }
    for (std::size_t i = 0; i < shards.size(); ++i) {
        shards[i].file = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    }
    return shards;
}

std::string index_json(const std::vector<TensorGroup>& groups, const std::vector<Shard>& shards) {
    std::uint64_t total = 0;
    nlohmann::json map = nlohmann::json::object();
    for (const Shard& shard : shards) {
        total += shard.bytes;
        for (const std::size_t group : shard.groups) {
            for (const weights::TensorLayout& tensor : groups[group]) {
                map[tensor.name] = shard.file;
            }
        }
    }
    nlohmann::ordered_json root;
    root["metadata"] = {{"total_size", total}};
    root["weight_map"] = map;
    return root.dump(2) + "\n";
}

SideFiles copy_side_files(const fs::path& source, const PendingDirectory& directory) {
    SideFiles result;
    std::error_code problem;
    for (const fs::path& entry : sorted_entries(source)) {
        const std::string name = entry.filename().string();
        if (is_hidden(entry) || name == "config.json") continue;
        // An export into a folder of the source must not copy itself.
        const fs::path whole = settled(entry);
        if (whole == directory.path() || whole == directory.target()) continue;
        if (fs::is_regular_file(entry, problem)) {
            if (is_weight_file(entry)) {
                result.not_copied.push_back(name);
                continue;
            }
            copy_one(entry, directory.path() / name);
            result.copied.push_back(name);
        } else if (fs::is_directory(entry, problem)) {
            const std::string inside = whole.string() + "/";
            const bool around = directory.target().string().starts_with(inside);
            if (around || holds_weights(entry)) {
                result.not_copied.push_back(name + "/");
                continue;
            }
            for (fs::recursive_directory_iterator it(entry, problem), end; !problem && it != end;
                 it.increment(problem)) {
                if (!it->is_regular_file(problem) || is_hidden(it->path())) continue;
                const fs::path relative = it->path().lexically_relative(source);
                copy_one(it->path(), directory.path() / relative);
                result.copied.push_back(relative.string());
            }
        }
    }
    std::sort(result.copied.begin(), result.copied.end());
    return result;
}

}  // namespace refit::harness
