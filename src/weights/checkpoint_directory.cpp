// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "weights/checkpoint_directory.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <regex>
#include <string_view>
#include <system_error>
#include <utility>

#include "core/error.hpp"
#include "weights/strict_json.hpp"

namespace refit::weights {
namespace {

using Json = nlohmann::json;

constexpr std::uintmax_t kMaxIndexBytes = 100'000'000;

/// A file name of the index: no path, so that an index cannot reach out of its directory.
void check_shard_name(const std::filesystem::path& index, const std::string& tensor,
                      const std::string& file) {
    const std::filesystem::path path(file);
    bool leaves = file.empty() || path.is_absolute() || file.find('\0') != std::string::npos;
    for (const std::filesystem::path& part : path) leaves = leaves || part == "..";
    if (leaves) {
        throw core::FileError(
            index.string() + ": tensor '" + tensor + "' is placed in '" + file +
            "', which is outside of the checkpoint's directory; name a file in it");
    }
}

Json read_index(const std::filesystem::path& path) {
    std::error_code error;
    const std::uintmax_t bytes = std::filesystem::file_size(path, error);
    if (error) throw core::FileError(path.string() + ": cannot be read: " + error.message());
    if (bytes > kMaxIndexBytes) {
        throw core::FileError(path.string() + ": has " + std::to_string(bytes) +
                              " bytes, an index has at most " + std::to_string(kMaxIndexBytes));
    }
    std::ifstream in(path, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    if (!in || text.size() != bytes) {
        throw core::FileError(path.string() + ": cannot be read; check its permissions");
    }
    try {
        Json index = parse_without_repeated_keys(text);
        if (!index.is_object() || !index.contains("weight_map") ||
            !index["weight_map"].is_object()) {
            throw core::FileError(path.string() +
                                  ": has no weight_map object; it must map tensor to file name");
        }
        return index;
    } catch (const RepeatedKey& repeated) {
        throw core::FileError(path.string() + ": has the key '" + repeated.key +
                              "' twice; each tensor belongs to one file");
    } catch (const Json::exception& e) {
        throw core::FileError(path.string() + ": is not JSON: " + e.what());
    }
}

/// weight_map of the index as file -> tensors that it places there.
std::map<std::string, std::vector<std::string>> shards_of(const std::filesystem::path& index_path) {
    const Json index = read_index(index_path);
    std::map<std::string, std::vector<std::string>> shards;
    for (const auto& [tensor, file] : index["weight_map"].items()) {
        if (!file.is_string()) {
            throw core::FileError(index_path.string() + ": tensor '" + tensor + "' is placed in " +
                                  brief(file) + ", expected a file name");
        }
        auto name = file.get<std::string>();
        check_shard_name(index_path, tensor, name);
        shards[std::move(name)].push_back(tensor);
    }
    if (shards.empty()) {
        throw core::FileError(index_path.string() +
                              ": its weight_map is empty; it must name every tensor");
    }
    return shards;
}

/// Every `*.safetensors` of the directory, in order of their names, as Python's glob finds them:
/// not those that begin with a dot, which other systems leave beside files.
std::vector<std::filesystem::path> files_in(const std::filesystem::path& directory) {
    std::vector<std::filesystem::path> found;
    std::error_code error;
    for (std::filesystem::directory_iterator it(directory, error), end; !error && it != end;
         it.increment(error)) {
        const bool hidden = it->path().filename().string().starts_with(".");
        if (!hidden && it->path().extension() == ".safetensors") found.push_back(it->path());
    }
    if (error) throw core::FileError(directory.string() + ": cannot be listed: " + error.message());
    std::sort(found.begin(), found.end());
    return found;
}

/// Names of the files that `save_pretrained` and its like give shards: "-00001-of-00003".
bool is_shard(const std::filesystem::path& path) {
    static const std::regex shard("-[0-9]{4,}-of-[0-9]{4,}$");
    return std::regex_search(path.stem().string(), shard);
}

[[noreturn]] void refuse_files(const std::filesystem::path& directory,
                               const std::vector<std::filesystem::path>& found) {
    std::string names;
    for (const auto& path : found) names += (names.empty() ? "" : ", ") + path.filename().string();
    throw core::FileError(
        directory.string() + ": has " +
        (found.empty() ? "no *.safetensors" : std::to_string(found.size()) + " (" + names + ")") +
        " and neither model.safetensors.index.json nor model.safetensors; a checkpoint has an "
        "index with its "
        "shards, or one file");
}

/// Shards without an index must be all of those that their names count.
void check_shard_count(const std::filesystem::path& directory,
                       const std::vector<std::filesystem::path>& shards) {
    static const std::regex count("-([0-9]+)-of-([0-9]+)$");
    for (const std::filesystem::path& shard : shards) {
        const std::string stem = shard.stem().string();
        std::smatch match;
        if (!std::regex_search(stem, match, count)) continue;
        if (match[2].str().size() > 9 || std::stoul(match[2].str()) == shards.size()) continue;
        throw core::FileError(directory.string() + ": has " + std::to_string(shards.size()) +
                              " shards, and by its name " + shard.filename().string() +
                              " is one of " + match[2].str() + ": fetch the others");
    }
}

}  // namespace

void CheckpointDirectory::disagree(IndexRule rule, const std::filesystem::path& shard,
                                   IndexProblem problem) {
    if (rule == IndexRule::exact) {
        throw core::FileError(shard.string() + ": tensor '" + problem.tensor + "' is " +
                              problem.found + "; fetch index and shards from one revision");
    }
    index_problems_.push_back(std::move(problem));
}

CheckpointDirectory::CheckpointDirectory(const std::filesystem::path& directory, IndexRule rule)
    : path_(directory) {
    std::error_code error;
    if (!std::filesystem::is_directory(directory, error)) {
        throw core::FileError(
            directory.string() +
            ": is not a directory; give the directory of a Hugging Face checkpoint");
    }
    const std::filesystem::path index_path = directory / "model.safetensors.index.json";
    if (!std::filesystem::exists(index_path)) {
        open_without_index(rule);
        return;
    }
    has_index_ = true;

    std::map<std::string, std::string> placed;  // tensor -> file by the index
    const auto shards = shards_of(index_path);
    for (const auto& [file, tensors] : shards) {
        for (const std::string& tensor : tensors) placed.emplace(tensor, file);
        const std::filesystem::path shard = directory / file;
        if (!std::filesystem::exists(shard)) {
            throw core::FileError(shard.string() + ": is missing; " +
                                  index_path.filename().string() + " places " +
                                  std::to_string(tensors.size()) + " tensors in it, '" +
                                  tensors.front() + "' among them: fetch the shard");
        }
        files_.push_back(std::make_unique<SafetensorsFile>(shard));
        const SafetensorsFile& opened = *files_.back();
        for (const std::string& tensor : tensors) {
            if (opened.find(tensor) == nullptr) {
                disagree(
                    rule, shard,
                    {tensor, "not in it, " + index_path.filename().string() + " places it there",
                     "in " + file});
            }
        }
    }
    take_tensors(rule, placed);
    for (const auto& opened : files_) {
        for (const StoredTensor& tensor : opened->tensors()) {
            if (placed.contains(tensor.name)) continue;
            disagree(
                rule, opened->path(),
                {tensor.name, "in it, but " + index_path.filename().string() + " does not list it",
                 "listed with its file"});
        }
    }
}

void CheckpointDirectory::open_without_index(IndexRule rule) {
    const std::filesystem::path usual = path_ / "model.safetensors";
    std::vector<std::filesystem::path> found = {usual};
    if (!std::filesystem::exists(usual)) found = files_in(path_);
    if (found.size() > 1 && rule == IndexRule::reported) {
        // What else lies there (a consolidated copy, a draft model) is no shard.
        std::erase_if(found, [](const auto& path) { return !is_shard(path); });
        check_shard_count(path_, found);
        lacks_index_ = found.size() > 1;
    }
    if (found.size() != 1 && !lacks_index_) refuse_files(path_, files_in(path_));
    for (const auto& path : found) files_.push_back(std::make_unique<SafetensorsFile>(path));
    take_tensors(rule, {});
}

bool same_bytes(const CheckpointDirectory::Location& a, const CheckpointDirectory::Location& b) {
    if (a.tensor->dtype != b.tensor->dtype || a.tensor->shape != b.tensor->shape) return false;
    constexpr std::size_t kStep = std::size_t{4} << 20;
    const std::span<const std::byte> left = a.file->bytes(*a.tensor);
    const std::span<const std::byte> right = b.file->bytes(*b.tensor);
    for (std::size_t at = 0; at < left.size(); at += kStep) {
        const std::size_t count = std::min(kStep, left.size() - at);
        if (std::memcmp(left.data() + at, right.data() + at, count) != 0) return false;
        a.file->release(*a.tensor, at, at + count);
        b.file->release(*b.tensor, at, at + count);
    }
    return true;
}

std::vector<std::filesystem::path> CheckpointDirectory::other_files() const {
    std::vector<std::filesystem::path> others = files_in(path_);
    std::erase_if(others, [&](const std::filesystem::path& path) {
        return std::any_of(files_.begin(), files_.end(), [&](const auto& opened) {
            return opened->path().filename() == path.filename();
        });
    });
    return others;
}

void CheckpointDirectory::take_tensors(IndexRule rule,
                                       const std::map<std::string, std::string>& placed) {
    for (const auto& opened : files_) {
        for (const StoredTensor& tensor : opened->tensors()) {
            const Location here{opened.get(), &tensor};
            const auto [it, inserted] = by_name_.emplace(tensor.name, here);
            if (inserted) continue;
            if (rule == IndexRule::exact) {
                throw core::FileError(opened->path().string() + ": tensor '" + tensor.name +
                                      "' is also in " + it->second.file->path().string() +
                                      "; a tensor belongs to one file");
            }
            const auto place = placed.find(tensor.name);
            const bool better = place != placed.end() && opened->path() == path_ / place->second;
            duplicates_.push_back(better ? Duplicate{here, it->second}
                                         : Duplicate{it->second, here});
            if (better) it->second = here;
        }
    }
}

std::vector<std::string> CheckpointDirectory::names() const {
    std::vector<std::string> names;
    names.reserve(by_name_.size());
    for (const auto& [name, location] : by_name_) names.push_back(name);
    return names;
}

CheckpointDirectory::Location CheckpointDirectory::find(const std::string& name) const {
    const auto it = by_name_.find(name);
    return it == by_name_.end() ? Location{} : it->second;
}

}  // namespace refit::weights
