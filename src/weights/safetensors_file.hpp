// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// One safetensors file, as Hugging Face checkpoints are made of.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/dtype.hpp"
#include "core/shape.hpp"

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

}  // namespace refit::weights
