// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Codes and scales back to values.
#pragma once

#include <cstdint>

namespace refit::quant {

/// E4M3FN codes with the scales of their tiles, the last of which may be ragged.
struct CodedMatrix {
    const std::uint8_t* codes = nullptr;  ///< [rows, cols]
    const float* scales = nullptr;        ///< [ceil(rows / tile_rows), ceil(cols / tile_cols)]
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    std::int64_t tile_rows = 1;
    std::int64_t tile_cols = 1;
};

/// fl32(code * scale), to `out` [rows, cols]. A NaN is 0x7fc00000 whatever it came from. Returns
/// how many values are NaN or Inf.
[[nodiscard]] std::int64_t dequantize_f32(const CodedMatrix& matrix, float* out);

/// The same, then to the nearest BF16, ties to even.
[[nodiscard]] std::int64_t dequantize_bf16(const CodedMatrix& matrix, std::uint16_t* out);

}  // namespace refit::quant
