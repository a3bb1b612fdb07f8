// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A Hugging Face checkpoint directory: one safetensors file, or shards with an index.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "weights/safetensors_file.hpp"

namespace refit::weights {

/// What is done where index and shards disagree about the tensors.
enum class IndexRule {
    exact,    ///< FileError
    reported  ///< kept in index_problems() and duplicates(): whoever judges a checkpoint names all
              ///< that is wrong
};

/// A directory with `model.safetensors.index.json` and its shards, or `model.safetensors`, or
/// exactly one `*.safetensors`. Refuses index entries that leave the directory and missing shards;
/// by `rule` also a name in two files, tensors that the index places in another file than holds
/// them, or nowhere, and several files without an index, which inference engines read all the same.
class CheckpointDirectory {
 public:
    explicit CheckpointDirectory(const std::filesystem::path& directory,
                                 IndexRule rule = IndexRule::exact);
    [[nodiscard]] const std::filesystem::path& path() const { return path_; }
    [[nodiscard]] std::vector<std::string> names() const;
    struct Location {
        const SafetensorsFile* file = nullptr;
        const StoredTensor* tensor = nullptr;
    };
    /// {nullptr, nullptr} where the name is not in the checkpoint.
    [[nodiscard]] Location find(const std::string& name) const;
    [[nodiscard]] std::size_t file_count() const { return files_.size(); }

    struct IndexProblem {
        std::string tensor;
        std::string found;     ///< "not in FILE, where the index places it"
        std::string expected;  ///< what an index that agrees would have
    };
    /// Empty under IndexRule::exact.
    [[nodiscard]] const std::vector<IndexProblem>& index_problems() const {
        return index_problems_;
    }
    /// A tensor that two files hold: find() gives `kept`, the one in the file that the index names.
    struct Duplicate {
        Location kept;
        Location other;
    };
    /// Empty under IndexRule::exact.
    [[nodiscard]] const std::vector<Duplicate>& duplicates() const { return duplicates_; }
    /// True for several files without an index.
    [[nodiscard]] bool lacks_index() const { return lacks_index_; }
    [[nodiscard]] bool has_index() const { return has_index_; }
    /// The `*.safetensors` of the directory that were not opened, in order of their names.
    [[nodiscard]] std::vector<std::filesystem::path> other_files() const;

 private:
    void open_without_index(IndexRule rule);
    /// Adds all tensors of all files to by_name_; `placed` : tensor -> file by the index.
    void take_tensors(IndexRule rule, const std::map<std::string, std::string>& placed);
    void disagree(IndexRule rule, const std::filesystem::path& shard, IndexProblem problem);

    std::filesystem::path path_;
    std::vector<IndexProblem> index_problems_;
    std::vector<Duplicate> duplicates_;
    bool lacks_index_ = false;
    bool has_index_ = false;
    std::vector<std::unique_ptr<SafetensorsFile>> files_;
    std::map<std::string, Location> by_name_;
};

/// Whether two tensors have one dtype, one shape and the same bytes; read a few MiB at a time.
[[nodiscard]] bool same_bytes(const CheckpointDirectory::Location& a,
                              const CheckpointDirectory::Location& b);

}  // namespace refit::weights
