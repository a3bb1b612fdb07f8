// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "quant/dequantize.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <vector>

#include "core/shape.hpp"
#include "kernels/backend.hpp"
#include "kernels/numerics/bfloat16.hpp"
#include "quant/element_values.hpp"

namespace refit::quant {
namespace {

constexpr std::size_t kCodes = 256;
/// Tiles of fewer elements do not repay a table of all codes.
constexpr std::int64_t kTableElements = 4 * static_cast<std::int64_t>(kCodes);
/// Tiles whose tables are held at once: they stay in the nearest cache.
constexpr std::int64_t kTables = 16;

float product(std::uint8_t code, float scale) {
    const float value = e4m3_values()[code] * scale;
    // Payloads of NaN differ between processors; the written one must not.
    return std::isnan(value) ? std::bit_cast<float>(0x7fc00000U) : value;
}

struct ToF32 {
    using Value = float;
    static Value of(std::uint8_t code, float scale) { return product(code, scale); }
    static bool finite(Value value) { return std::isfinite(value); }
};

struct ToBf16 {
    using Value = std::uint16_t;
    static Value of(std::uint8_t code, float scale) {
        return numerics::f32_to_bf16(product(code, scale));
    }
    static bool finite(Value bits) { return (bits & 0x7f80U) != 0x7f80U; }
};

/// All codes under one scale.
template <typename To>
struct CodeTable {
    std::array<typename To::Value, kCodes> values;
    bool only_nan_codes = true;  ///< nothing but the two NaN codes gives NaN or Inf

    explicit CodeTable(float scale = 0.0F) {
        for (std::size_t code = 0; code < kCodes; ++code) {
            values[code] = To::of(static_cast<std::uint8_t>(code), scale);
            const bool is_nan_code = (code & 0x7fU) == 0x7fU;
            only_nan_codes = only_nan_codes && (is_nan_code || To::finite(values[code]));
        }
    }
};

template <typename To>
std::int64_t look_up(const CodeTable<To>& table, const std::uint8_t* codes, std::int64_t count,
                     typename To::Value* out) {
    for (std::int64_t i = 0; i < count; ++i) out[i] = table.values[codes[i]];
    if (table.only_nan_codes) {
        static const kernels::Backend& backend = *kernels::find_backend("auto");
        return backend.count_nan_codes(codes, count);
    }
    return std::count_if(out, out + count, [](auto value) { return !To::finite(value); });
}

template <typename To>
std::int64_t multiply(float scale, const std::uint8_t* codes, std::int64_t count,
                      typename To::Value* out) {
    std::int64_t nonfinite = 0;
    for (std::int64_t i = 0; i < count; ++i) {
        out[i] = To::of(codes[i], scale);
        nonfinite += To::finite(out[i]) ? 0 : 1;
    }
    return nonfinite;
}

template <typename To>
std::int64_t dequantize(const CodedMatrix& matrix, typename To::Value* out) {
    const std::int64_t tiles = core::ceil_div(matrix.cols, matrix.tile_cols);
    const bool has_tables =
        std::min(matrix.tile_rows, matrix.rows) * std::min(matrix.tile_cols, matrix.cols) >=
        kTableElements;
    std::vector<CodeTable<To>> tables;
    std::int64_t nonfinite = 0;
    for (std::int64_t top = 0; top < matrix.rows; top += matrix.tile_rows) {
        const std::int64_t bottom = std::min(matrix.rows, top + matrix.tile_rows);
        const float* scales = matrix.scales + top / matrix.tile_rows * tiles;
        for (std::int64_t first = 0; first < tiles; first += kTables) {
            const std::int64_t last = std::min(tiles, first + kTables);
            tables.clear();
            for (std::int64_t t = first; has_tables && t < last; ++t)
                tables.emplace_back(scales[t]);
            for (std::int64_t row = top; row < bottom; ++row) {
                for (std::int64_t t = first; t < last; ++t) {
                    const std::int64_t col = t * matrix.tile_cols;
                    const std::int64_t count = std::min(matrix.tile_cols, matrix.cols - col);
                    const std::int64_t at = row * matrix.cols + col;
                    nonfinite += has_tables
                                     ? look_up(tables[static_cast<std::size_t>(t - first)],
                                               matrix.codes + at, count, out + at)
                                     : multiply<To>(scales[t], matrix.codes + at, count, out + at);
                }
            }
        }
    }
    return nonfinite;
}

}  // namespace

std::int64_t dequantize_f32(const CodedMatrix& matrix, float* out) {
    return dequantize<ToF32>(matrix, out);
}

std::int64_t dequantize_bf16(const CodedMatrix& matrix, std::uint16_t* out) {
    return dequantize<ToBf16>(matrix, out);
}

}  // namespace refit::quant
