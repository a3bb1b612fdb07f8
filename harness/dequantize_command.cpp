// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/dequantize_command.hpp"

#include <fmt/core.h>

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <span>

#include "core/aligned_buffer.hpp"
#include "harness/fp8_file.hpp"
#include "harness/interruption.hpp"
#include "harness/run_output.hpp"
#include "quant/dequantize.hpp"
#include "quant/recipe.hpp"

namespace refit::harness {
namespace {

using nlohmann::json;

/// Values of the matrix in the output's dtype; counts those that are NaN or Inf.
core::AlignedBuffer dequantized(const weights::SafetensorsFile& file, const Fp8Matrix& matrix,
                                bool to_bf16, std::int64_t& nonfinite) {
    const std::vector<float> scales =
        quant::read_scales(matrix.scale->dtype, file.bytes(*matrix.scale));
    const auto* codes = reinterpret_cast<const std::uint8_t*>(file.bytes(*matrix.codes).data());
    const std::size_t width = to_bf16 ? sizeof(std::uint16_t) : sizeof(float);
    const std::int64_t elements = matrix.rows * matrix.cols;
    core::AlignedBuffer buffer(static_cast<std::size_t>(matrix.experts * elements) * width);
    nonfinite = 0;
    // Tiles begin anew in each expert of a stack.
    for (std::int64_t expert = 0; expert < matrix.experts; ++expert) {
        const quant::CodedMatrix coded{codes + expert * elements,
                                       scales.data() + expert * matrix.grid_rows * matrix.grid_cols,
                                       matrix.rows,
                                       matrix.cols,
                                       matrix.tile_rows,
                                       matrix.tile_cols};
        std::byte* const out = buffer.data() + static_cast<std::size_t>(expert * elements) * width;
        nonfinite += to_bf16 ? quant::dequantize_bf16(coded, reinterpret_cast<std::uint16_t*>(out))
                             : quant::dequantize_f32(coded, reinterpret_cast<float*>(out));
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
