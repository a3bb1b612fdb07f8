// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Writing one safetensors file, whole or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/dtype.hpp"
#include "core/shape.hpp"

namespace refit::weights {

/// One tensor to write. `bytes` is asked for when its turn comes, so that only one tensor need be
/// in memory.
struct TensorToWrite {
    std::string name;
    core::DType dtype = core::DType::bf16;
    core::Shape shape;
    std::function<std::span<const std::byte>()> bytes;
};

/// One tensor of a file that is written in parts.
struct TensorLayout {
    std::string name;
    core::DType dtype = core::DType::bf16;
    core::Shape shape;

    [[nodiscard]] std::uint64_t bytes() const;
};

/// One safetensors file whose tensors come in any order and in parts, so that a weight and its
/// scales, which lie far from each other in the file, can be written as they are made. Layout and
/// temporary name as for write_safetensors. Without keep() nothing is left behind.
class SafetensorsStream {
 public:
    /// Writes the header. Throws FileError naming path and reason.
    SafetensorsStream(const std::filesystem::path& path, std::vector<TensorLayout> tensors,
                      const std::map<std::string, std::string>& metadata);
    ~SafetensorsStream();
    SafetensorsStream(const SafetensorsStream&) = delete;
    SafetensorsStream& operator=(const SafetensorsStream&) = delete;

    /// `bytes` of `tensor` from its byte `offset` on. No part may be written twice. Throws
    /// FileError for a tensor that the header does not have, bytes outside it, and what the system
    /// refuses.
    void write(const std::string& tensor, std::uint64_t offset, std::span<const std::byte> bytes);
    /// Syncs the file and gives it its name. Throws FileError where a tensor is incomplete.
    void keep();

 private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

/// Tensors are laid out by falling alignment and then by name, as the reference writer does; the
/// header is padded with spaces to a multiple of 8. Writes to a temporary name in the same folder,
/// syncs and renames over `path`. Throws FileError naming path and reason (no such folder, disk
/// full, a tensor whose bytes do not fit its shape); no temporary file stays behind.
void write_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata);

}  // namespace refit::weights
