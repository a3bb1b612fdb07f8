// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Writing one safetensors file, whole or not at all.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
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

/// Tensors are laid out by falling alignment and then by name, as the reference writer does; the
/// header is padded with spaces to a multiple of 8. Writes to a temporary name in the same folder,
/// syncs and renames over `path`. Throws FileError naming path and reason (no such folder, disk
/// full, a tensor whose bytes do not fit its shape); no temporary file stays behind.
void write_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata);

}  // namespace refit::weights
