// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/dequantize_command.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <span>

#include "core/aligned_buffer.hpp"
#include "harness/fp8_file.hpp"
#include "harness/interruption.hpp"
#include "harness/run_output.hpp"
#include "kernels/numerics/bfloat16.hpp"
#include "kernels/numerics/float8.hpp"
#include "quant/recipe.hpp"

namespace refit::harness {
namespace {

using nlohmann::json;

std::array<float, 256> values_of_codes() {
    std::array<float, 256> values{};
    for (unsigned code = 0; code < 256; ++code) {
        values[code] = numerics::e4m3_to_f32(static_cast<std::uint8_t>(code));
    }
    return values;
}

/// Values of the matrix in the output's dtype; counts those that are NaN or Inf.
core::AlignedBuffer dequantized(const weights::SafetensorsFile& file, const Fp8Matrix& matrix,
                                bool to_bf16, std::int64_t& nonfinite) {
    static const std::array<float, 256> kValues = values_of_codes();
    const std::vector<float> scales =
        quant::read_scales(matrix.scale->dtype, file.bytes(*matrix.scale));
    const auto* codes = reinterpret_cast<const std::uint8_t*>(file.bytes(*matrix.codes).data());
    const std::size_t width = to_bf16 ? sizeof(std::uint16_t) : sizeof(float);
    core::AlignedBuffer buffer(
        static_cast<std::size_t>(matrix.experts * matrix.rows * matrix.cols) * width);
    std::byte* out = buffer.data();
    nonfinite = 0;
    for (std::int64_t row = 0; row < matrix.experts * matrix.rows; ++row) {
        // Tiles begin anew in each expert of a stack.
        const std::int64_t expert = row / matrix.rows;
        const std::int64_t grid_row =
            (expert * matrix.grid_rows + (row % matrix.rows) / matrix.tile_rows) * matrix.grid_cols;
        for (std::int64_t begin = 0; begin < matrix.cols; begin += matrix.tile_cols) {
            const float scale =
                scales[static_cast<std::size_t>(grid_row + begin / matrix.tile_cols)];
            const std::int64_t end = std::min(matrix.cols, begin + matrix.tile_cols);
            for (std::int64_t col = begin; col < end; ++col) {
                float value = kValues[codes[row * matrix.cols + col]] * scale;
                // Payloads of NaN differ between processors; the written one must not.
                if (std::isnan(value)) value = std::bit_cast<float>(0x7fc00000U);
                bool finite = std::isfinite(value);
                if (to_bf16) {
                    const std::uint16_t bits = numerics::f32_to_bf16(value);
                    finite = (bits & 0x7f80U) != 0x7f80U;
                    std::memcpy(out, &bits, sizeof(bits));
                } else {
                    std::memcpy(out, &value, sizeof(value));
                }
                nonfinite += finite ? 0 : 1;
                out += width;
            }
        }
    }
    return buffer;
}

int dequantize(const DequantizeOptions& options, const std::vector<std::string>& argv) {
    refuse_same_file("--output", options.output, options.input);
    if (!options.json.empty()) refuse_same_file("--json", options.json, options.input);
    check_writable(options.json);
    const weights::SafetensorsFile file(options.input);
    const std::vector<Fp8Matrix> matrices = fp8_matrices(file);
    const bool to_bf16 = options.dtype == "bf16";

    std::vector<weights::TensorToWrite> out;
    std::set<std::string> replaced;
    std::vector<std::int64_t> nonfinite(matrices.size());
    core::AlignedBuffer current;  // one matrix at a time
    const std::string attempt = writing_text(options.output);
    for (std::size_t i = 0; i < matrices.size(); ++i) {
        const Fp8Matrix& matrix = matrices[i];
        replaced.insert(matrix.codes->name);
        replaced.insert(matrix.scale->name);
        out.push_back({matrix.codes->name, to_bf16 ? core::DType::bf16 : core::DType::f32,
                       matrix.codes->shape,
                       [&file, &matrix, &current, &attempt, to_bf16, &nonfinite, i] {
                           throw_if_interrupted(attempt);
                           current = core::AlignedBuffer();
                           current = dequantized(file, matrix, to_bf16, nonfinite[i]);
                           return std::span<const std::byte>(current.span());
                       }});
    }
    write_changed(file, std::move(out), replaced, options.output);

    std::int64_t all_nonfinite = 0;
    json rows = json::array();
    for (std::size_t i = 0; i < matrices.size(); ++i) {
        all_nonfinite += nonfinite[i];
        rows.push_back({{"tensor", matrices[i].codes->name},
                        {"scale", matrices[i].scale->name},
                        {"shape", matrices[i].codes->shape},
                        {"scale_shape", matrices[i].scale->shape},
                        {"scale_dtype", core::safetensors_name(matrices[i].scale->dtype)},
                        {"layout", matrices[i].layout},
                        {"nonfinite", nonfinite[i]}});
    }
    json root = json_head("refitbench.dequantize/1", argv);
    root["input"] = options.input.string();
    root["output"] = options.output.string();
    root["dtype"] = options.dtype;
    root["nonfinite"] = all_nonfinite;
    root["tensors"] = rows;
    put_json(options.json, root);
    if (options.json != "-") {
        fmt::print("# {} matrices to {}, {} values NaN or Inf\n# output: {}\n", matrices.size(),
                   options.dtype, all_nonfinite, options.output.string());
    }
    return 0;
}

}  // namespace

int dequantize_command(const DequantizeOptions& options, const std::vector<std::string>& argv) {
    return guarded([&] { return dequantize(options, argv); });
}

}  // namespace refit::harness
