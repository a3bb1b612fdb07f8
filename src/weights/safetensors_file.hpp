// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Reading a Hugging Face checkpoint directory: one safetensors file, or shards with an index.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/dtype.hpp"
#include "core/finding.hpp"
#include "core/shape.hpp"
#include "model/model_config.hpp"
#include "weights/weight_source.hpp"

namespace refit::weights {

struct StoredTensor {
    std::string name;
    core::DType dtype = core::DType::bf16;
    core::Shape shape;
    std::size_t offset = 0;  ///< from the first byte of the file
    std::size_t bytes = 0;
};

/// One memory-mapped safetensors file. Its header is held to the format's rules: length <=
/// 100,000,000 and within the file, JSON object, known dtypes, shape * size = range, ranges that
/// start at 0, touch without hole or overlap and end at the end of the file, no name twice. Throws
/// FileError naming file, tensor and reason.
class SafetensorsFile {
 public:
    explicit SafetensorsFile(const std::filesystem::path& path);
    ~SafetensorsFile();
    SafetensorsFile(const SafetensorsFile&) = delete;
    SafetensorsFile& operator=(const SafetensorsFile&) = delete;

    [[nodiscard]] const std::filesystem::path& path() const { return path_; }
    [[nodiscard]] const std::vector<StoredTensor>& tensors() const { return tensors_; }
    [[nodiscard]] const StoredTensor* find(const std::string& name) const;
    [[nodiscard]] std::span<const std::byte> bytes(const StoredTensor& tensor) const;
    /// Gives the memory of bytes [begin, end) of `tensor` back to the system; they are read anew
    /// when they are looked at again. A walk over a file that is larger than memory calls it
    /// behind itself. Whole pages only: what the range shares with others stays.
    void release(const StoredTensor& tensor, std::size_t begin, std::size_t end) const;
    [[nodiscard]] const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
    std::filesystem::path path_;
    const std::byte* data_ = nullptr;
    std::size_t size_ = 0;
    std::vector<StoredTensor> tensors_;
    std::map<std::string, std::size_t> by_name_;
    std::map<std::string, std::string> metadata_;
};

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

/// What is wrong in a checkpoint whose files are sound: tensors that are missing (check names),
/// have another shape (shape_contract) or another dtype (dtype) than training weights of this
/// model, in model order, and then experts that its layers do not have (names). A stack of experts
/// is one tensor. Other tensors that the model does not have are left alone. Throws FileError for a
/// malformed or incomplete directory.
[[nodiscard]] core::Findings check_checkpoint(const std::filesystem::path& directory,
                                              const std::vector<model::TensorSpec>& tensors);

/// `config` as the checkpoint beside it holds the model: without its layers for multi-token
/// prediction where the directory has none of their tensors, since Hugging Face's save_pretrained
/// writes none but leaves num_nextn_predict_layers in config.json. Where it has some of them, the
/// layers stay and check_checkpoint names what is missing. Throws FileError for a malformed or
/// incomplete directory.
[[nodiscard]] model::ModelConfig config_of_checkpoint(model::ModelConfig config,
                                                      const std::filesystem::path& directory);

/// The same for a directory that is open already.
[[nodiscard]] model::ModelConfig config_of_checkpoint(model::ModelConfig config,
                                                      const CheckpointDirectory& checkpoint);

/// BF16, F16 and F32 tensors of a checkpoint as BF16 (F16 and F32 rounded to nearest even).
/// Refuses at construction: a tensor of `tensors` that is missing, has another shape, or another
/// dtype; names what came and what the model's config wants. Routed experts may be stored one by
/// one or stacked in the layout of transformers (see stored_places.hpp). A head that is stored
/// although the config ties it is left alone.
[[nodiscard]] std::unique_ptr<WeightSource> make_safetensors_weights(
    const std::filesystem::path& directory, const std::vector<model::TensorSpec>& tensors);

}  // namespace refit::weights
