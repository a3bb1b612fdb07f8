// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/fp8_file.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <fstream>
#include <map>
#include <new>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <system_error>

#include "core/error.hpp"
#include "harness/declared_blocks.hpp"
#include "harness/interruption.hpp"
#include "record/build_info.hpp"

namespace refit::harness {
namespace {

using core::DType;
using nlohmann::json;

constexpr std::int64_t kBlock = 128;
constexpr std::int64_t kMxGroup = 32;
/// More lines than this tell a reader nothing new.
constexpr std::size_t kShownProblems = 10;

constexpr std::string_view kInverseSuffix = "_scale_inv";
constexpr std::string_view kPlainSuffix = "_scale";

std::string described(const weights::StoredTensor& tensor) {
    return std::string(core::safetensors_name(tensor.dtype)) + " " + core::to_string(tensor.shape);
}

/// Fills the tile fields from the scale's shape; false where no layout has it.
bool set_layout(Fp8Matrix& matrix, const std::vector<checks::BlockSize>& declared) {
    const core::Shape shape = matrix.scale_shape();
    const std::int64_t rows = matrix.rows;
    const std::int64_t cols = matrix.cols;
    const std::int64_t grid_rows = core::ceil_div(rows, kBlock);
    const std::int64_t grid_cols = core::ceil_div(cols, kBlock);
    const auto set = [&matrix, rows](const char* layout, std::int64_t tile_rows,
                                     std::int64_t tile_cols, std::int64_t columns) {
        matrix.layout = layout;
        // An empty matrix has no tiles; the extent 1 keeps divisions defined.
        matrix.tile_rows = std::max<std::int64_t>(tile_rows, 1);
        matrix.tile_cols = std::max<std::int64_t>(tile_cols, 1);
        matrix.grid_rows = core::ceil_div(rows, matrix.tile_rows);
        matrix.grid_cols = columns;
        return true;
    };
    if (matrix.codes->shape.size() == 3 &&
        (matrix.scale->shape.size() != 3 || matrix.scale->shape[0] != matrix.experts)) {
        return false;  // only grids and columns have a form for stacks
    }
    if (matrix.scale->dtype == DType::u8 || matrix.scale->dtype == DType::f8_e8m0) {
        const std::int64_t groups = core::ceil_div(cols, kMxGroup);
        if (shape == core::Shape{rows, groups}) return set("mx", 1, kMxGroup, groups);
        // The type of its own says what the bytes are; U8 in another grid could be anything.
        if (matrix.scale->dtype == DType::u8) return false;
    }
    for (const checks::BlockSize& block : declared) {
        if (block.rows < 1 || block.cols < 1) continue;
        const std::int64_t columns = core::ceil_div(cols, block.cols);
        if (shape == core::Shape{core::ceil_div(rows, block.rows), columns}) {
            return set("block", block.rows, block.cols, columns);
        }
    }
    if (shape == core::Shape{grid_rows, grid_cols} ||
        shape == core::Shape{grid_rows, 1, grid_cols, 1}) {
        return set("block", kBlock, kBlock, grid_cols);
    }
    // A grid that was rounded down has this shape where no side has two whole blocks.
    const bool floored = rows < 2 * kBlock && cols < 2 * kBlock;
    const bool one = shape.empty() || shape == core::Shape{1};
    if (one || (shape == core::Shape{1, 1} && !floored)) return set("tensor", rows, cols, 1);
    if (shape == core::Shape{rows} || shape == core::Shape{rows, 1}) return set("row", 1, cols, 1);
    return false;
}

std::string expected_layouts(const Fp8Matrix& matrix) {
    if (matrix.codes->shape.size() == 3) {
        const auto stacked = [&matrix](std::int64_t rows, std::int64_t cols) {
            return core::to_string(core::Shape{matrix.experts, rows, cols});
        };
        return "scales of each matrix of the stack: F16, F32 or BF16 " +
               stacked(core::ceil_div(matrix.rows, kBlock), core::ceil_div(matrix.cols, kBlock)) +
               " (blocks of 128 x 128) or " + stacked(matrix.rows, 1) + " (rows), or U8 " +
               stacked(matrix.rows, core::ceil_div(matrix.cols, kMxGroup)) +
               " (E8M0 of 32 columns)";
    }
    const std::string rows = std::to_string(matrix.rows);
    const std::string grid_rows = std::to_string(core::ceil_div(matrix.rows, kBlock));
    const std::string grid_cols = std::to_string(core::ceil_div(matrix.cols, kBlock));
    return "F16, F32 or BF16 [" + grid_rows + ", " + grid_cols + "] or [" + grid_rows + ", 1, " +
           grid_cols + ", 1] (blocks of 128 x 128), [" + rows + ", 1] or [" + rows +
           "] (rows), [1] (tensor), or U8 [" + rows + ", " +
           std::to_string(core::ceil_div(matrix.cols, kMxGroup)) +
           "] (E8M0 of 32 columns), or F8_E8M0 in any of these shapes";
}

/// The matrix of an F8_E4M3 tensor; adds to `problems` and leaves `scale` null where it has none.
Fp8Matrix resolve(const weights::SafetensorsFile& file, const weights::StoredTensor& tensor,
                  const std::vector<checks::BlockSize>& declared,
                  std::vector<std::string>& problems) {
    Fp8Matrix matrix;
    matrix.codes = &tensor;
    const std::size_t rank = tensor.shape.size();
    if (rank != 2 && rank != 3) {
        problems.push_back(tensor.name + ": found " + described(tensor) +
                           "; expected a matrix [rows, columns] or stacked matrices [experts, "
                           "rows, columns]");
        return matrix;
    }
    matrix.experts = rank == 3 ? tensor.shape[0] : 1;
    matrix.rows = tensor.shape[rank - 2];
    matrix.cols = tensor.shape[rank - 1];
    const std::string inverse = tensor.name + std::string(kInverseSuffix);
    const std::string plain = tensor.name + std::string(kPlainSuffix);
    const weights::StoredTensor* const inverse_scale = file.find(inverse);
    const weights::StoredTensor* const plain_scale = file.find(plain);
    if (inverse_scale != nullptr && plain_scale != nullptr) {
        problems.push_back(tensor.name + ": found two scales, " + inverse + " and " + plain +
                           "; expected one; remove the stale one");
        return matrix;
    }
    matrix.scale = inverse_scale != nullptr ? inverse_scale : plain_scale;
    if (matrix.scale == nullptr) {
        problems.push_back(tensor.name + ": no scale; expected " + inverse + " or " + plain +
                           " in the same file");
        return matrix;
    }
    const DType dtype = matrix.scale->dtype;
    const bool known = dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16 ||
                       dtype == DType::u8 || dtype == DType::f8_e8m0;
    if (!known || !set_layout(matrix, declared)) {
        problems.push_back(matrix.scale->name + ": found " + described(*matrix.scale) +
                           " for the weight " + core::to_string(tensor.shape) + "; expected " +
                           expected_layouts(matrix));
        matrix.scale = nullptr;
    }
    return matrix;
}

/// The weight's name where `name` is that of a weight scale, else "".
std::string weight_of_scale(const std::string& name) {
    for (const std::string_view suffix : {kInverseSuffix, kPlainSuffix}) {
        if (!name.ends_with("weight" + std::string(suffix))) continue;
        return name.substr(0, name.size() - suffix.size());
    }
    return "";
}

}  // namespace

core::Shape Fp8Matrix::scale_shape() const {
    const core::Shape& all = scale->shape;
    return codes->shape.size() == 3 && !all.empty() ? core::Shape(all.begin() + 1, all.end()) : all;
}

std::vector<Fp8Matrix> fp8_matrices(const weights::SafetensorsFile& file) {
    std::vector<Fp8Matrix> matrices;
    std::vector<std::string> problems;
    const std::vector<checks::BlockSize> declared = declared_blocks_beside(file.path());
    for (const weights::StoredTensor& tensor : file.tensors()) {
        if (tensor.dtype == DType::f8_e4m3) {
            matrices.push_back(resolve(file, tensor, declared, problems));
        } else if (tensor.dtype == DType::f8_e5m2) {
            problems.push_back(tensor.name + ": found " + described(tensor) +
                               "; expected F8_E4M3, the only FP8 weight format here");
        }
        const std::string weight = weight_of_scale(tensor.name);
        const weights::StoredTensor* const owner = weight.empty() ? nullptr : file.find(weight);
        if (!weight.empty() && (owner == nullptr || owner->dtype != DType::f8_e4m3)) {
            problems.push_back(
                tensor.name + ": a scale, but its weight " + weight +
                (owner == nullptr ? " is not in the file" : " is " + described(*owner)) +
                "; expected F8_E4M3; restore the weight or remove the scale");
        }
    }
    if (matrices.empty() && problems.empty()) {
        problems.emplace_back("no F8_E4M3 tensor; expected a quantized file");
    }
    if (problems.empty()) return matrices;
    std::string text = "reading the quantized matrices of " + file.path().string() + ":";
    for (std::size_t i = 0; i < problems.size() && i < kShownProblems; ++i) {
        text += "\n  " + problems[i];
    }
    if (problems.size() > kShownProblems) {
        text += "\n  and " + std::to_string(problems.size() - kShownProblems) + " more";
    }
    throw core::Error(core::ExitCode::verdict, text);
}

void refuse_same_file(const std::string& option, const std::filesystem::path& output,
                      const std::filesystem::path& input) {
    std::error_code problem;
    if (std::filesystem::exists(output, problem) &&
        std::filesystem::equivalent(input, output, problem)) {
        throw core::UsageError(option + " is the input file " + input.string() +
                               "; name another file");
    }
}

json json_head(const std::string& schema, const std::vector<std::string>& argv) {
    return {{"schema", schema},
            {"tool",
             {{"name", "refitbench"},
              {"version", record::tool_version()},
              {"commit", record::tool_commit()}}},
            {"argv", argv}};
}

void put_json(const std::string& destination, const json& root) {
    if (destination.empty()) return;
    // A path in the arguments need not be UTF-8; JSON must.
    const std::string text = root.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
    if (destination == "-") {
        std::fwrite(text.data(), 1, text.size(), stdout);
        return;
    }
    std::ofstream file(destination, std::ios::trunc);
    file << text;
    if (!file.flush()) {
        throw core::FileError("cannot write the result to " + destination +
                              "; is its folder there, and has the disk room?");
    }
}

json number_or_null(double value) {
    return std::isfinite(value) ? json(value) : json(nullptr);
}

int guarded(const std::function<int()>& command) {
    try {
        return command();
    } catch (const core::Error& error) {
        fmt::print(stderr, "refitbench: error: {}\n", error.what());
        return static_cast<int>(error.code());
    } catch (const std::bad_alloc&) {
        fmt::print(stderr, "refitbench: error: not enough memory for the tensors of this file\n");
    } catch (const std::exception& error) {
        fmt::print(stderr, "refitbench: error: {}\n", error.what());
    }
    return static_cast<int>(core::ExitCode::environment);
}

std::string writing_text(const std::filesystem::path& output) {
    return "writing " + output.string() + " (nothing was left behind)";
}

void write_changed(const weights::SafetensorsFile& file,
                   std::vector<weights::TensorToWrite> changed,
                   const std::set<std::string>& replaced, const std::filesystem::path& output) {
    const std::string attempt = writing_text(output);
    for (const weights::StoredTensor& stored : file.tensors()) {
        if (replaced.contains(stored.name)) continue;
        changed.push_back({stored.name, stored.dtype, stored.shape, [&file, &stored, &attempt] {
                               throw_if_interrupted(attempt);
                               return file.bytes(stored);
                           }});
    }
    std::map<std::string, std::string> metadata = file.metadata();
    metadata.try_emplace("format", "pt");
    weights::write_safetensors(output, std::move(changed), metadata);
}

}  // namespace refit::harness
