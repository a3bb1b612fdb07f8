// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/quantize_command.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "checks/audit.hpp"
#include "checks/decode.hpp"
#include "core/aligned_buffer.hpp"
#include "core/error.hpp"
#include "harness/fp8_file.hpp"
#include "harness/interruption.hpp"
#include "harness/matrix_quantizer.hpp"
#include "harness/run_output.hpp"
#include "kernels/backend.hpp"
#include "quant/recipe.hpp"
#include "weights/safetensors_file.hpp"

namespace refit::harness {
namespace {

using nlohmann::json;

constexpr std::uint32_t kInfBits = 0x7f800000;

struct Quantized {
    std::string name;
    std::string scale_name;
    core::Shape shape;
    core::Shape scale_shape;
    core::DType scale_dtype = core::DType::f32;
    const weights::StoredTensor* stored = nullptr;
    core::AlignedBuffer codes;
    std::vector<float> scales;
    std::vector<std::byte> stored_scales;
    double sum_x2 = 0.0;
    double sum_error2 = 0.0;

    /// Matrices of the tensor: 1, or the experts of [experts, rows, cols].
    [[nodiscard]] std::int64_t experts() const { return shape.size() == 3 ? shape[0] : 1; }
    [[nodiscard]] std::int64_t rows() const { return shape[shape.size() - 2]; }
    [[nodiscard]] std::int64_t cols() const { return shape.back(); }
};

/// "X.weight" + ".weight_scale_inv" of the recipe's system: the suffix without its leading "weight"
/// follows the name.
std::string scale_name_of(const std::string& name, const quant::Recipe& recipe) {
    return name + recipe.scale_suffix.substr(std::string("weight").size());
}

/// Sums for the SQNR with the checks' own decoder.
void measure(Quantized& tensor, const std::vector<std::uint16_t>& values, const float* scales,
             const std::uint8_t* codes, const kernels::TileGrid& grid) {
    std::array<double, 256> value_of_code{};
    for (int code = 0; code < 256; ++code)
        value_of_code[static_cast<std::size_t>(code)] =
            checks::decode_e4m3(static_cast<std::uint8_t>(code));
    const std::int64_t rows = tensor.rows();
    const std::int64_t cols = tensor.cols();
    for (std::int64_t r = 0; r < rows; ++r) {
        double x2 = 0.0;
        double error2 = 0.0;
        for (std::int64_t c = 0; c < cols; ++c) {
            const auto i = static_cast<std::size_t>(r * cols + c);
            const double x = checks::decode_bf16(values[i]);
            const double scale = scales[(r / grid.tile_rows) * grid.grid_cols + c / grid.tile_cols];
            const double d = value_of_code[codes[i]] * scale;
            if (!std::isfinite(x) || !std::isfinite(d)) continue;
            x2 += x * x;
            error2 += (x - d) * (x - d);
        }
        tensor.sum_x2 += x2;
        tensor.sum_error2 += error2;
    }
}

/// Matrix `expert` of the tensor into its place among the codes and scales.
void quantize_matrix(Quantized& tensor, std::int64_t expert, const weights::SafetensorsFile& file,
                     const quant::Recipe& recipe, const kernels::Backend& backend,
                     const std::string& nonfinite) {
    const std::int64_t rows = tensor.rows();
    const std::int64_t cols = tensor.cols();
    const auto matrix_bytes = static_cast<std::size_t>(rows * cols) * sizeof(std::uint16_t);
    const std::span<const std::byte> bytes =
        file.bytes(*tensor.stored)
            .subspan(static_cast<std::size_t>(expert) * matrix_bytes, matrix_bytes);
    // A tensor of a file may lie at an odd offset: copy it to where 16-bit loads are allowed.
    std::vector<std::uint16_t> values(bytes.size() / sizeof(std::uint16_t));
    if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    const kernels::TileGrid grid = kernels::tile_grid(recipe.scaling, rows, cols);
    const bool finite =
        backend.max_abs_bits(values.data(), static_cast<std::int64_t>(values.size())) < kInfBits;
    if (!finite && nonfinite == "reject") {
        throw core::Error(
            core::ExitCode::verdict,
            (tensor.shape.size() == 3 ? "expert " + std::to_string(expert) + " of " : "") +
                "tensor " + tensor.name + " of " + file.path().string() + " holds " +
                describe_nonfinite(values, cols, 0, grid) +
                "; mend it, or choose --nonfinite recipe | propagate | sanitize");
    }
    if (!finite && nonfinite == "sanitize") {
        for (std::uint16_t& value : values) {
            if ((value & 0x7f80) != 0x7f80) continue;
            // NaN becomes 0 and Inf becomes +-448, as NeMo-RL #2037 does.
            value = (value & 0x7f) != 0 ? std::uint16_t{0}
                                        : static_cast<std::uint16_t>(0x43e0 | (value & 0x8000));
        }
    }
    const auto tiles = static_cast<std::size_t>(grid.grid_rows * grid.grid_cols);
    std::vector<std::uint32_t> amax(tiles);
    if (values.empty()) return;
    const std::span<float> scales =
        std::span(tensor.scales).subspan(static_cast<std::size_t>(expert) * tiles, tiles);
    auto* codes = reinterpret_cast<std::uint8_t*>(tensor.codes.data()) + expert * rows * cols;
    const std::uint32_t last = (std::uint32_t{values.back()} & 0x7fffU) << 16;
    const kernels::Band band{values.data(), cols, 0, rows, rows, cols, last};
    backend.quantize(recipe.scaling, band, amax, scales, codes, cols,
                     [](std::int64_t, std::int64_t) {});
    if (!finite && nonfinite == "propagate") {
        // The recipe may drop or replace NaN: ask for the amax that does not.
        numerics::TileScaling plain = recipe.scaling;
        plain.nonfinite_input = numerics::NonfiniteInput::propagate;
        std::fill(amax.begin(), amax.end(), 0U);
        backend.tile_amax(plain, band, amax);
        for (std::size_t i = 0; i < tiles; ++i) {
            if (amax[i] >= kInfBits) scales[i] = std::numeric_limits<float>::quiet_NaN();
        }
    }
    measure(tensor, values, scales.data(), codes, grid);
}

/// Tiles begin anew in each expert, as trainers quantize stacked experts one by one.
void quantize_one(Quantized& tensor, const weights::SafetensorsFile& file,
                  const quant::Recipe& recipe, const kernels::Backend& backend,
                  const std::string& nonfinite) {
    const kernels::TileGrid grid = kernels::tile_grid(recipe.scaling, tensor.rows(), tensor.cols());
    tensor.codes = core::AlignedBuffer(
        static_cast<std::size_t>(tensor.experts() * tensor.rows() * tensor.cols()));
    tensor.scales.assign(
        static_cast<std::size_t>(tensor.experts() * grid.grid_rows * grid.grid_cols), 0.0F);
    for (std::int64_t expert = 0; expert < tensor.experts(); ++expert) {
        quantize_matrix(tensor, expert, file, recipe, backend, nonfinite);
    }
    tensor.stored_scales = quant::stored_scales(recipe, tensor.scales);
}

/// Whether the tensor is a stack of expert matrices: [experts, rows, cols] below a module
/// "experts". Other tensors of rank 3, such as convolutions, stay as they are.
bool is_stacked(const weights::StoredTensor& stored) {
    return stored.shape.size() == 3 && ("." + stored.name).find(".experts.") != std::string::npos;
}

/// [experts, ...] of the scales of a stack. Only grids and columns of scales have a stacked form
/// that does not leave open which dimension of the weight they belong to.
core::Shape stacked_scale_shape(const quant::Recipe& recipe, const weights::StoredTensor& stored,
                                const std::filesystem::path& path) {
    if (recipe.scale_rank != 2) {
        throw core::Error(core::ExitCode::verdict,
                          "recipe " + recipe.name + " has no stacked form: its scale has rank " +
                              std::to_string(recipe.scale_rank) + ", and tensor " + stored.name +
                              " of " + path.string() + " is " + core::to_string(stored.shape) +
                              "; split the experts, or choose a recipe with scales of rank 2");
    }
    core::Shape shape =
        quant::scale_shape(recipe, {stored.shape[1], stored.shape[2]}, recipe.scale_rank);
    shape.insert(shape.begin(), stored.shape[0]);
    return shape;
}

std::vector<Quantized> list_matrices(const weights::SafetensorsFile& file,
                                     const quant::Recipe& recipe) {
    std::vector<Quantized> matrices;
    for (const weights::StoredTensor& stored : file.tensors()) {
        if (stored.shape.size() != 2 && !is_stacked(stored)) continue;
        if (stored.dtype != core::DType::bf16) {
            throw core::Error(core::ExitCode::verdict,
                              "recipe " + recipe.name + " takes BF16 matrices; tensor " +
                                  stored.name + " of " + file.path().string() + " is " +
                                  std::string(core::safetensors_name(stored.dtype)) + " " +
                                  core::to_string(stored.shape) + "; convert it to BF16 first");
        }
        Quantized tensor;
        tensor.name = stored.name;
        tensor.scale_name = scale_name_of(stored.name, recipe);
        if (file.find(tensor.scale_name) != nullptr) {
            throw core::Error(core::ExitCode::verdict, "the file " + file.path().string() +
                                                           " already holds " + tensor.scale_name +
                                                           "; it seems to be quantized");
        }
        tensor.shape = stored.shape;
        tensor.scale_shape = is_stacked(stored)
                                 ? stacked_scale_shape(recipe, stored, file.path())
                                 : quant::scale_shape(recipe, stored.shape, recipe.scale_rank);
        tensor.scale_dtype = quant::scale_dtype(recipe);
        tensor.stored = &stored;
        matrices.push_back(std::move(tensor));
    }
    return matrices;
}

void write_output(const QuantizeOptions& options, const weights::SafetensorsFile& file,
                  const std::vector<Quantized>& matrices) {
    std::vector<weights::TensorToWrite> out;
    std::set<std::string> replaced;
    const std::string attempt = writing_text(options.output);
    for (const Quantized& tensor : matrices) {
        replaced.insert(tensor.name);
        out.push_back({tensor.name, core::DType::f8_e4m3, tensor.shape, [&tensor, &attempt] {
                           throw_if_interrupted(attempt);
                           return tensor.codes.span();
                       }});
        out.push_back({tensor.scale_name, tensor.scale_dtype, tensor.scale_shape,
                       [&tensor] { return std::span<const std::byte>(tensor.stored_scales); }});
    }
    write_changed(file, std::move(out), replaced, options.output);
}

void report(const QuantizeOptions& options, const std::vector<std::string>& argv,
            const std::string& backend, const std::vector<Quantized>& matrices) {
    double x2 = 0.0;
    double error2 = 0.0;
    json rows = json::array();
    for (const Quantized& tensor : matrices) {
        x2 += tensor.sum_x2;
        error2 += tensor.sum_error2;
        rows.push_back(
            {{"tensor", tensor.name},
             {"scale", tensor.scale_name},
             {"shape", tensor.shape},
             {"scale_shape", tensor.scale_shape},
             {"scale_dtype", core::safetensors_name(tensor.scale_dtype)},
             {"sqnr_db", number_or_null(checks::sqnr_db(tensor.sum_x2, tensor.sum_error2))}});
    }
    const double pooled = checks::sqnr_db(x2, error2);
    json root = json_head("refitbench.quantize/1", argv);
    root["recipe"] = options.recipe;
    root["backend"] = backend;
    root["nonfinite"] = options.nonfinite;
    root["input"] = options.input.string();
    root["output"] = options.output.string();
    root["sqnr_db"] = number_or_null(pooled);
    root["tensors"] = rows;
    put_json(options.json, root);
    if (options.json != "-") {
        fmt::print(
            "# recipe {}, backend {}: {} matrices quantized, pooled SQNR {:.2f} dB\n# output: {}\n",
            options.recipe, backend, matrices.size(), pooled, options.output.string());
    }
}

int quantize(const QuantizeOptions& options, const std::vector<std::string>& argv) {
    const quant::Recipe& recipe = quant::find_recipe(options.recipe);
    const kernels::Backend& backend = viable_backend(options.backend);
    refuse_same_file("--output", options.output, options.input);
    if (!options.json.empty()) refuse_same_file("--json", options.json, options.input);
    check_writable(options.json);
    const weights::SafetensorsFile file(options.input);
    std::vector<Quantized> matrices = list_matrices(file, recipe);
    std::vector<std::exception_ptr> problems(matrices.size());
    std::atomic<std::size_t> next{0};
    const std::string attempt = writing_text(options.output);
    auto work = [&] {
        for (std::size_t i = next++; i < matrices.size(); i = next++) {
            try {
                throw_if_interrupted(attempt);
                quantize_one(matrices[i], file, recipe, backend, options.nonfinite);
            } catch (...) {
                problems[i] = std::current_exception();
            }
        }
    };
    std::vector<std::thread> threads;
    for (int t = 1; t < options.threads; ++t) threads.emplace_back(work);
    work();
    for (std::thread& thread : threads) thread.join();
    for (const std::exception_ptr& problem : problems) {
        if (problem) std::rethrow_exception(problem);
    }
    write_output(options, file, matrices);
    report(options, argv, std::string(backend.name()), matrices);
    return 0;
}

}  // namespace

int quantize_command(const QuantizeOptions& options, const std::vector<std::string>& argv) {
    return guarded([&] { return quantize(options, argv); });
}

}  // namespace refit::harness
