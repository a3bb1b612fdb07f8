// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What quantize, dequantize and identify share: matrices and their scales in one safetensors file,
// and how such a command reports.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

#include "weights/safetensors_file.hpp"
#include "weights/safetensors_writer.hpp"

namespace refit::harness {

/// An F8_E4M3 matrix [rows, cols], or a stack of them [experts, rows, cols], with its scale tensor.
/// Element [r, c] of expert e has scale number (e * grid_rows + r / tile_rows) * grid_cols +
/// c / tile_cols.
struct Fp8Matrix {
    const weights::StoredTensor* codes = nullptr;
    const weights::StoredTensor* scale = nullptr;
    std::int64_t experts = 1;
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    std::int64_t tile_rows = 0;
    std::int64_t tile_cols = 0;
    std::int64_t grid_rows = 0;
    std::int64_t grid_cols = 0;
    std::string layout;  ///< tensor | row | block | mx

    /// Shape of one matrix.
    [[nodiscard]] core::Shape shape() const { return {rows, cols}; }
    /// Shape of the scales of one matrix: without the experts of a stack.
    [[nodiscard]] core::Shape scale_shape() const;
};

/// Every F8_E4M3 tensor of the file, in file order. The scale is X.weight_scale_inv or
/// X.weight_scale: F32 or BF16 as [] or [1], [R], [R, 1], [cd(R,128), cd(C,128)] or [cd(R,128), 1,
/// cd(C,128), 1]; or E8M0 (U8 or F8_E8M0) as [R, cd(C,32)]. Stacks have [E, R, 1], [E, cd(R,128),
/// cd(C,128)] or [E, R, cd(C,32)]. Blocks of another size are known where the config.json beside
/// the file names it, [1, 1] is one scale a tensor where a side has 256 elements or more. Throws
/// core::Error with exit code 1 that names each tensor that is wrong (no scale, two scales, rank,
/// shape, dtype, a scale without its weight), with found and expected; also where the file has no
/// F8_E4M3 matrix.
[[nodiscard]] std::vector<Fp8Matrix> fp8_matrices(const weights::SafetensorsFile& file);

/// Throws UsageError where `output` is the file `input` under this or another name.
void refuse_same_file(const std::string& option, const std::filesystem::path& output,
                      const std::filesystem::path& input);

/// {"schema", "tool", "argv"} of the interface.
[[nodiscard]] nlohmann::json json_head(const std::string& schema,
                                       const std::vector<std::string>& argv);
/// To the file, or to standard output for "-"; nothing for "". Throws FileError.
void put_json(const std::string& destination, const nlohmann::json& root);
/// Null for NaN and Inf, which JSON has not.
[[nodiscard]] nlohmann::json number_or_null(double value);

/// Runs a command and turns its errors into a message on standard error and an exit code.
[[nodiscard]] int guarded(const std::function<int()>& command);

/// What an interruption is told to have cut short.
[[nodiscard]] std::string writing_text(const std::filesystem::path& output);

/// Writes `changed`, then every tensor of `file` whose name is not in `replaced`, with the file's
/// metadata, whole or not at all. Throws Interrupted between tensors.
void write_changed(const weights::SafetensorsFile& file,
                   std::vector<weights::TensorToWrite> changed,
                   const std::set<std::string>& replaced, const std::filesystem::path& output);

}  // namespace refit::harness
