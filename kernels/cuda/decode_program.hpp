// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What one thread does when codes become values again.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "kernels/cuda/tile_program.hpp"
#include "kernels/numerics/bfloat16.hpp"
#include "kernels/numerics/float8.hpp"

namespace refit::kernels::cuda {

/// Codes of a whole [rows, cols] matrix and their scales, to BF16 (`to_bf16`) or F32.
struct DequantizeJob {
    const std::uint8_t* codes = nullptr;
    const float* scale_inv = nullptr;  ///< [grid_rows, grid_cols]
    std::uint16_t* bf16 = nullptr;     ///< one of the two is set
    float* f32 = nullptr;
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    std::int64_t tile_rows = 0;
    std::int64_t tile_cols = 0;
    std::int64_t grid_cols = 0;
};

/// Value of element `index` (row-major): one product, one rounding, NaN as 0x7fc00000.
REFIT_HD inline void dequantize_element(const DequantizeJob& job, std::int64_t index) {
    const std::int64_t row = index / job.cols;
    const std::int64_t tile =
        (row / job.tile_rows) * job.grid_cols + (index % job.cols) / job.tile_cols;
    const float value = numerics::detail::canonical_nan(numerics::e4m3_to_f32(job.codes[index]) *
                                                        job.scale_inv[tile]);
    if (job.bf16 != nullptr) {
        job.bf16[index] = numerics::f32_to_bf16(value);
    } else {
        job.f32[index] = value;
    }
}

/// The quotient of two numbers that are not negative; 32 bits wide where both fit, since a device
/// divides those in a quarter of the instructions.
[[nodiscard]] REFIT_HD constexpr std::int64_t quotient_of(std::int64_t number,
                                                          std::int64_t divisor) {
    if (((number | divisor) >> 32) == 0) {
        return static_cast<std::int64_t>(static_cast<std::uint32_t>(number) /
                                         static_cast<std::uint32_t>(divisor));
    }
    return number / divisor;
}

/// Whether a chunk of 8 columns never meets two tiles.
[[nodiscard]] REFIT_HD constexpr bool chunks_fit_tiles(std::int64_t tile_cols, std::int64_t cols) {
    return tile_cols % kChunk == 0 || tile_cols >= cols;
}

/// numerics::e4m3_to_f32 without a branch: exponent and mantissa in the place of those of an F32
/// number, times 2^120, which is exact for subnormal codes too.
[[nodiscard]] REFIT_HD constexpr float decoded(std::uint32_t code) {
    const float magnitude = std::bit_cast<float>((code & 0x7fU) << 20) * 0x1p120F;
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(magnitude) | (code & 0x80U) << 24;
    return std::bit_cast<float>((code & 0x7fU) == 0x7fU ? 0x7fc00000U : bits);
}

/// The thread's elements of a patch, as dequantize_element gives them.
REFIT_HD inline void dequantize_patch(const DequantizeJob& job, std::int64_t patch_row,
                                      std::int64_t patch_col, int thread) {
    const std::int64_t first_row = patch_row * kPatchRows + thread / kPatchLanes;
    const std::int64_t col = patch_col * kPatchCols + (thread % kPatchLanes) * kChunk;
    if (col >= job.cols) return;
    // Rows of a multiple of 8 elements: every chunk is whole and aligned if the first is.
    const void* const values = job.bf16 != nullptr ? static_cast<const void*>(job.bf16)
                                                   : static_cast<const void*>(job.f32);
    const bool wide = job.cols % kChunk == 0 && chunks_fit_tiles(job.tile_cols, job.cols) &&
                      reinterpret_cast<std::uintptr_t>(job.codes) % 8 == 0 &&
                      reinterpret_cast<std::uintptr_t>(values) % 16 == 0;
    const std::int64_t grid_col = quotient_of(col, job.tile_cols);
    if (!wide) {
        REFIT_NO_UNROLL
        for (std::int64_t row = first_row;
             row < patch_row * kPatchRows + kPatchRows && row < job.rows; row += kPatchPassRows) {
            REFIT_NO_UNROLL
            for (std::int64_t at = col; at < col + kChunk && at < job.cols; ++at)
                dequantize_element(job, row * job.cols + at);
        }
        return;
    }
    REFIT_UNROLL
    for (int pass = 0; pass < kPatchPasses; ++pass) {
        const std::int64_t row = first_row + pass * kPatchPassRows;
        if (row >= job.rows) continue;
        const std::int64_t index = row * job.cols + col;
        CodeChunk codes;
#if defined(__CUDA_ARCH__)
        const uint2 two = __ldg(reinterpret_cast<const uint2*>(job.codes + index));
        codes.words[0] = two.x;
        codes.words[1] = two.y;
#else
        std::memcpy(&codes, job.codes + index, sizeof(codes));
#endif
        const float scale =
            job.scale_inv[quotient_of(row, job.tile_rows) * job.grid_cols + grid_col];
        float out[kChunk];
        REFIT_UNROLL
        for (int i = 0; i < kChunk; ++i) {
            out[i] = numerics::detail::canonical_nan(
                decoded(codes.words[i / 4] >> (8 * (i % 4)) & 0xffU) * scale);
        }
        if (job.bf16 == nullptr) {
            Chunk words[2];
            REFIT_UNROLL
            for (int i = 0; i < kChunk; ++i)
                words[i / 4].words[i % 4] = std::bit_cast<std::uint32_t>(out[i]);
            reinterpret_cast<Chunk*>(job.f32 + index)[0] = words[0];
            reinterpret_cast<Chunk*>(job.f32 + index)[1] = words[1];
            continue;
        }
        Chunk words{{0U, 0U, 0U, 0U}};
        REFIT_UNROLL
        for (int i = 0; i < kChunk; ++i) {
            words.words[i / 2] |= static_cast<std::uint32_t>(numerics::f32_to_bf16(out[i]))
                                  << (16 * (i % 2));
        }
        *reinterpret_cast<Chunk*>(job.bf16 + index) = words;
    }
}

/// Where two byte strings differ.
struct ByteDifference {
    std::uint64_t differing = 0;  ///< how many bytes
    std::uint64_t first = ~std::uint64_t{0};
};

}  // namespace refit::kernels::cuda
