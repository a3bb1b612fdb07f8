// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A checkpoint directory, written whole or not at all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "weights/safetensors_writer.hpp"

namespace refit::harness {

/// A directory that is filled under another name beside its own and vanishes unless it is kept.
class PendingDirectory {
 public:
    /// Throws UsageError where `target` is `source`, or exists and is no empty directory; FileError
    /// where the directory beside it cannot be made.
    PendingDirectory(const std::filesystem::path& target, const std::filesystem::path& source);
    ~PendingDirectory();
    PendingDirectory(const PendingDirectory&) = delete;
    PendingDirectory& operator=(const PendingDirectory&) = delete;

    /// Where to write for now.
    [[nodiscard]] const std::filesystem::path& path() const { return path_; }
    /// Its own name, absolute.
    [[nodiscard]] const std::filesystem::path& target() const { return target_; }
    /// Throws ResourceError when the disk has not room for `bytes`.
    void require_room(std::uint64_t bytes) const;
    /// Writes a text file into it. Throws FileError.
    void write_text(const std::string& name, const std::string& text) const;
    /// Syncs the directory and gives it its name. Throws FileError.
    void keep();

 private:
    std::filesystem::path target_;
    std::filesystem::path path_;
    bool kept_ = false;
};

/// Tensors that have to lie in one file, such as a weight with its scale.
using TensorGroup = std::vector<weights::TensorLayout>;

struct Shard {
    std::string file;
    std::uint64_t bytes = 0;  ///< of the tensors
    std::vector<std::size_t> groups;
};

/// Groups in their order, a new file where the next group would make one larger than `most_bytes`;
/// a larger group has a file of its own. Names: model.safetensors, or
/// model-00001-of-00003.safetensors and so on.
[[nodiscard]] std::vector<Shard> cut_into_shards(const std::vector<TensorGroup>& groups,
                                                 std::uint64_t most_bytes);

/// model.safetensors.index.json.
[[nodiscard]] std::string index_json(const std::vector<TensorGroup>& groups,
                                     const std::vector<Shard>& shards);

struct SideFiles {
    std::vector<std::string> copied;      ///< relative names
    std::vector<std::string> not_copied;  ///< weights in any format, and folders that hold some
};

/// Copies what lies beside the weights (tokenizer, generation_config.json, chat templates, code,
/// licence), with folders; not weights and their indices in any format, not config.json and not
/// hidden files. Throws FileError.
[[nodiscard]] SideFiles copy_side_files(const std::filesystem::path& source,
                                        const PendingDirectory& directory);

}  // namespace refit::harness
