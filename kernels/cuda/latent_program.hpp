// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What one thread does when an engine's own matrices are made from a loaded projection: rows of
// every head as BF16 values, as they stand or transposed. A block of 256 threads takes a tile of
// 32 x 32 values, so that both sides are read and written in rows.
#pragma once

#include <cstdint>

#include "kernels/cuda/tile_program.hpp"
#include "kernels/numerics/bfloat16.hpp"
#include "kernels/numerics/float8.hpp"

namespace refit::kernels::cuda {

/// Rows [first, first + count) of every head of a weight [heads * head_rows, cols], in BF16: code
/// times scale in F32, then to nearest, ties to even; a BF16 weight is copied.
struct DeriveJob {
    const std::uint8_t* weight = nullptr;  ///< E4M3FN codes, or BF16 values without scales
    const float* scale_inv = nullptr;      ///< null: the weight is BF16
    std::int64_t cols = 0;
    std::int64_t block_rows = 0;  ///< of a scale: scale[row / block_rows, col / block_cols]
    std::int64_t block_cols = 0;
    std::int64_t scale_cols = 0;
    std::int64_t heads = 0;
    std::int64_t head_rows = 0;
    std::int64_t first = 0;
    std::int64_t count = 0;
    bool transposed = false;
    std::uint16_t* out = nullptr;  ///< [heads, count, cols], or transposed [heads, cols, count]
};

inline constexpr int kDerivedSide = 32;
inline constexpr int kDerivedPassRows = kBlockThreads / kDerivedSide;

/// One tile, row by row as in the weight. The padding keeps columns in different banks.
struct DerivedTile {
    std::uint16_t values[kDerivedSide][kDerivedSide + 2];
};

/// Where tile `index` begins.
struct DerivedPlace {
    std::int64_t head = 0;
    std::int64_t row = 0;  ///< of the head's rows, from 0
    std::int64_t col = 0;
};

[[nodiscard]] REFIT_HD constexpr std::int64_t derived_tiles(const DeriveJob& job) {
    return job.heads * ((job.count + kDerivedSide - 1) / kDerivedSide) *
           ((job.cols + kDerivedSide - 1) / kDerivedSide);
}

[[nodiscard]] REFIT_HD constexpr DerivedPlace derived_place(const DeriveJob& job,
                                                            std::int64_t index) {
    const std::int64_t across = (job.cols + kDerivedSide - 1) / kDerivedSide;
    const std::int64_t down = (job.count + kDerivedSide - 1) / kDerivedSide;
    return {index / across / down, index / across % down * kDerivedSide,
            index % across * kDerivedSide};
}

[[nodiscard]] REFIT_HD inline std::uint16_t derived_value(const DeriveJob& job, std::int64_t row,
                                                          std::int64_t col) {
    const std::int64_t index = row * job.cols + col;
    if (job.scale_inv == nullptr) {
        return reinterpret_cast<const std::uint16_t*>(job.weight)[index];
    }
    const float scale = job.scale_inv[row / job.block_rows * job.scale_cols + col / job.block_cols];
    return numerics::f32_to_bf16(
        numerics::detail::canonical_nan(numerics::e4m3_to_f32(job.weight[index]) * scale));
}

/// Reads the thread's values of a tile.
REFIT_HD inline void derive_load(const DeriveJob& job, std::int64_t index, int thread,
                                 DerivedTile& tile) {
    const DerivedPlace place = derived_place(job, index);
    const int lane = thread % kDerivedSide;
    if (place.col + lane >= job.cols) return;
    for (int i = thread / kDerivedSide; i < kDerivedSide && place.row + i < job.count;
         i += kDerivedPassRows) {
        tile.values[i][lane] = derived_value(
            job, place.head * job.head_rows + job.first + place.row + i, place.col + lane);
    }
}

/// Writes the thread's values of a tile that all threads have read.
REFIT_HD inline void derive_store(const DeriveJob& job, std::int64_t index, int thread,
                                  const DerivedTile& tile) {
    const DerivedPlace place = derived_place(job, index);
    const int lane = thread % kDerivedSide;
    for (int i = thread / kDerivedSide; i < kDerivedSide; i += kDerivedPassRows) {
        // Neighbouring threads write neighbouring values on either side.
        const std::int64_t row = place.row + (job.transposed ? lane : i);
        const std::int64_t col = place.col + (job.transposed ? i : lane);
        if (row >= job.count || col >= job.cols) continue;
        const std::int64_t to = job.transposed ? (place.head * job.cols + col) * job.count + row
                                               : (place.head * job.count + row) * job.cols + col;
        job.out[to] = tile.values[row - place.row][col - place.col];
    }
}

}  // namespace refit::kernels::cuda
