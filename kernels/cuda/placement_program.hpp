// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What one thread does when it puts arrived bytes where an engine keeps them: rectangles cut out
// for one rank and laid side by side into fused parameters, and scales packed for the
// matrix multiplication.
#pragma once

#include <cstdint>

#include "kernels/cuda/list_lookup.hpp"
#include "kernels/numerics/float8.hpp"
#include "kernels/numerics/host_device.hpp"

namespace refit::kernels::cuda {

/// A rectangle to copy: `rows` rows of `row_bytes` bytes. Rectangles of one launch do not overlap
/// where they are written.
struct PlacedRectangle {
    const std::uint8_t* from = nullptr;
    std::int64_t from_stride = 0;  ///< bytes from row to row
    std::uint8_t* to = nullptr;
    std::int64_t to_stride = 0;
    std::int64_t rows = 0;
    std::int64_t row_bytes = 0;
    std::int64_t first_row = 0;  ///< rows of all rectangles before this one
};

struct alignas(16) SixteenBytes {
    std::uint32_t words[4];
};

/// Copies every `lanes`-th unit of one row, beginning with unit `lane`: bytes up to the first
/// multiple of 16, then 16 bytes at a time, then the rest; bytes alone where source and target are
/// aligned differently.
REFIT_HD inline void place_row(const PlacedRectangle* rectangles, std::int64_t count,
                               std::int64_t row, int lane, int lanes) {
    const PlacedRectangle& rectangle =
        rectangles[item_of(rectangles, count, &PlacedRectangle::first_row, row)];
    const std::int64_t local = row - rectangle.first_row;
    const std::uint8_t* from = rectangle.from + local * rectangle.from_stride;
    std::uint8_t* to = rectangle.to + local * rectangle.to_stride;
    const auto from_bits = reinterpret_cast<std::uintptr_t>(from);
    const auto to_bits = reinterpret_cast<std::uintptr_t>(to);
    std::int64_t head = rectangle.row_bytes;
    std::int64_t wide = 0;
    if ((from_bits ^ to_bits) % 16 == 0) {
        const auto misaligned = static_cast<std::int64_t>(from_bits % 16);
        const std::int64_t before = misaligned == 0 ? 0 : 16 - misaligned;
        head = before < rectangle.row_bytes ? before : rectangle.row_bytes;
        wide = (rectangle.row_bytes - head) / 16;
    }
    for (std::int64_t j = lane; j < head; j += lanes) to[j] = from[j];
    std::int64_t i = lane;
    // Source and target do not overlap: four reads are under way before the first write.
    for (; i + 3 * lanes < wide; i += 4 * lanes) {
        SixteenBytes units[4];
        REFIT_UNROLL
        for (int k = 0; k < 4; ++k) {
            units[k] = *reinterpret_cast<const SixteenBytes*>(
                from + head + 16 * (i + static_cast<std::int64_t>(k) * lanes));
        }
        REFIT_UNROLL
        for (int k = 0; k < 4; ++k) {
            *reinterpret_cast<SixteenBytes*>(
                to + head + 16 * (i + static_cast<std::int64_t>(k) * lanes)) = units[k];
        }
    }
    for (; i < wide; i += lanes) {
        *reinterpret_cast<SixteenBytes*>(to + head + 16 * i) =
            *reinterpret_cast<const SixteenBytes*>(from + head + 16 * i);
    }
    for (std::int64_t j = head + 16 * wide + lane; j < rectangle.row_bytes; j += lanes) {
        to[j] = from[j];
    }
}

/// Scales of a weight as matrix multiplications with UE8M0 scales want them on compute 10.0: one
/// byte an exponent, four neighbouring columns of the grid in a word, the first in the lowest byte;
/// a word for each of the weight's rows, words of one column of words side by side, with room for
/// rows up to a multiple of 4 (16 bytes). What no scale stands behind is 0.
/// Source: DeepGEMM, README.md, "packed UE8M0, MN-major, TMA-aligned"; SGLang and vLLM lay the
/// scales of checkpoints out like this after a load.
struct ScalePackJob {
    const float* scale_inv = nullptr;  ///< [grid_rows, grid_cols], powers of two
    std::uint32_t* words = nullptr;    ///< [ceil_div(grid_cols, 4), packed_stride(rows)]
    std::int64_t rows = 0;             ///< of the weight
    std::int64_t tile_rows = 0;        ///< rows of the weight that share a scale
    std::int64_t grid_cols = 0;
};

[[nodiscard]] REFIT_HD constexpr std::int64_t packed_stride(std::int64_t rows) {
    return (rows + 3) / 4 * 4;
}
[[nodiscard]] REFIT_HD constexpr std::int64_t packed_words(const ScalePackJob& job) {
    return (job.grid_cols + 3) / 4 * packed_stride(job.rows);
}

/// Writes word `index`; returns how many of its scales are no power of two that a byte can hold.
[[nodiscard]] REFIT_HD inline int pack_scales(const ScalePackJob& job, std::int64_t index) {
    const std::int64_t stride = packed_stride(job.rows);
    const std::int64_t row = index % stride;
    const std::int64_t first = index / stride * 4;
    std::uint32_t word = 0;
    int refused = 0;
    for (int i = 0; i < 4 && row < job.rows && first + i < job.grid_cols; ++i) {
        const float scale = job.scale_inv[row / job.tile_rows * job.grid_cols + first + i];
        const std::uint8_t byte = numerics::f32_to_e8m0(scale);
        // A NaN never equals what the byte says.
        refused += numerics::e8m0_to_f32(byte) == scale ? 0 : 1;
        word |= static_cast<std::uint32_t>(byte) << (8 * i);
    }
    job.words[index] = word;
    return refused;
}

}  // namespace refit::kernels::cuda
