// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What one thread of each kernel does between two barriers: loops, indices and memory, no formula.
// The kernels in device_kernels.cu call these functions; so does a test on the host that plays all
// threads of all blocks one after the other and compares with the portable backend.
//
// A patch is 128 rows x 128 columns of the matrix. A block of 256 threads walks it in 8 passes of
// 16 rows; in each pass a thread holds one chunk of 8 neighbouring BF16 values (16 bytes), so that
// 16 neighbouring threads read 256 neighbouring bytes.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/numerics/host_device.hpp"
#include "kernels/numerics/scale.hpp"
#include "kernels/numerics/tile_scaling.hpp"

namespace refit::kernels::cuda {

inline constexpr int kBlockThreads = 256;
inline constexpr int kChunk = 8;           ///< BF16 values a thread reads at once
inline constexpr int kPatchRows = 128;     ///< rows of a patch
inline constexpr int kPatchCols = 128;     ///< columns of a patch
inline constexpr int kPatchLanes = 16;     ///< threads side by side in a row of a patch
inline constexpr int kPatchPasses = 8;     ///< passes over a patch
inline constexpr int kPatchPassRows = 16;  ///< rows of a patch in one pass
inline constexpr int kRowChunks = 8;       ///< chunks of a long row that a thread keeps
static_assert(kPatchLanes * kChunk == kPatchCols);
static_assert(kPatchLanes * kPatchPassRows == kBlockThreads);
static_assert(kPatchPasses * kPatchPassRows == kPatchRows);

/// A band of a [rows, cols] BF16 matrix and where its results go. All pointers are device memory
/// in a kernel, host memory in the test.
struct Job {
    numerics::TileScaling scaling;
    const std::uint16_t* source = nullptr;  ///< element (row_begin, 0)
    std::int64_t source_stride = 0;         ///< elements from row to row
    std::uint8_t* codes = nullptr;          ///< code of (row_begin, 0)
    std::int64_t code_stride = 0;
    std::int64_t row_begin = 0;
    std::int64_t row_count = 0;
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    std::int64_t tile_rows = 0;  ///< extents of a tile; the matrix's where the scaling says "all"
    std::int64_t tile_cols = 0;
    std::int64_t grid_cols = 0;
    std::int64_t first_grid_row = 0;
    std::uint32_t last_element_bits = 0;  ///< |W[rows-1, cols-1]| as F32 bits, or 0
    std::uint32_t* amax_bits = nullptr;   ///< [touched grid rows, grid_cols]
    float* scale_inv = nullptr;           ///< the same
    float* operands = nullptr;            ///< the same; only of the kernels for any tile
    bool wide_loads = false;              ///< every chunk of the source is aligned to 16 bytes
    bool wide_stores = false;             ///< every chunk of the codes is aligned to 8 bytes
};

/// Which kernels quantize a band of whole tiles. All but `any` read the band once.
enum class Program { block_tiles, whole_rows, groups_of_4, groups_of_16, any };

[[nodiscard]] constexpr Program program_of(const Job& job) {
    if (job.tile_rows == kPatchRows && job.tile_cols == kPatchCols) {
        return Program::block_tiles;
    }
    if (job.tile_rows != 1) {
        return Program::any;
    }
    if (job.grid_cols == 1) {
        return Program::whole_rows;
    }
    if (job.tile_cols == 4 * kChunk) {
        return Program::groups_of_4;
    }
    return job.tile_cols == 16 * kChunk ? Program::groups_of_16 : Program::any;
}

/// Patches side by side, and one below the other where they begin with the band.
[[nodiscard]] constexpr std::int64_t patches_across(const Job& job) {
    return (job.cols + kPatchCols - 1) / kPatchCols;
}
[[nodiscard]] constexpr std::int64_t patches_down(const Job& job) {
    return (job.row_count + kPatchRows - 1) / kPatchRows;
}
/// The same where patches are aligned to the matrix; the band has at least one row.
[[nodiscard]] constexpr std::int64_t aligned_patches_down(const Job& job) {
    const std::int64_t last = (job.row_begin + job.row_count - 1) / kPatchRows;
    return last - job.row_begin / kPatchRows + 1;
}

/// 8 BF16 values, two a word, the first in the lower half.
struct alignas(16) Chunk {
    std::uint32_t words[4];
};
/// 8 codes, four a word.
struct alignas(8) CodeChunk {
    std::uint32_t words[2];
};

[[nodiscard]] REFIT_HD constexpr std::uint16_t chunk_value(const Chunk& chunk, int i) {
    return static_cast<std::uint16_t>(chunk.words[i / 2] >> (16 * (i % 2)));
}

/// 16 aligned bytes.
[[nodiscard]] REFIT_HD inline Chunk wide_chunk(const void* from) {
    Chunk chunk;
#if defined(__CUDA_ARCH__)
    const uint4 four = __ldg(static_cast<const uint4*>(from));
    chunk.words[0] = four.x;
    chunk.words[1] = four.y;
    chunk.words[2] = four.z;
    chunk.words[3] = four.w;
#else
    std::memcpy(&chunk, from, sizeof(chunk));
#endif
    return chunk;
}

/// The chunk that begins at (local_row, col); values beyond the edge of the band are +0, which
/// adds nothing to any amax.
[[nodiscard]] REFIT_HD inline Chunk load_chunk(const Job& job, std::int64_t local_row,
                                               std::int64_t col) {
    Chunk chunk{{0U, 0U, 0U, 0U}};
    if (local_row >= job.row_count || col >= job.cols) {
        return chunk;
    }
    const std::uint16_t* from = job.source + local_row * job.source_stride + col;
    if (job.wide_loads && col + kChunk <= job.cols) {
        return wide_chunk(from);
    }
    for (int i = 0; i < kChunk; ++i) {
        if (col + i < job.cols) {
            chunk.words[i / 2] |= static_cast<std::uint32_t>(from[i]) << (16 * (i % 2));
        }
    }
    return chunk;
}

/// Writes 8 codes to an aligned place.
REFIT_HD inline void wide_store(std::uint8_t* to, const CodeChunk& codes) {
#if defined(__CUDA_ARCH__)
    *reinterpret_cast<uint2*>(to) = make_uint2(codes.words[0], codes.words[1]);
#else
    std::memcpy(to, &codes, sizeof(codes));
#endif
}

/// Writes the codes of the chunk at (local_row, col) that lie inside the band.
REFIT_HD inline void store_codes(const Job& job, std::int64_t local_row, std::int64_t col,
                                 const CodeChunk& codes) {
    if (local_row >= job.row_count || col >= job.cols) {
        return;
    }
    std::uint8_t* to = job.codes + local_row * job.code_stride + col;
    if (job.wide_stores && col + kChunk <= job.cols) {
        wide_store(to, codes);
        return;
    }
    for (int i = 0; i < kChunk; ++i) {
        if (col + i < job.cols) {
            to[i] = static_cast<std::uint8_t>(codes.words[i / 4] >> (8 * (i % 4)));
        }
    }
}

[[nodiscard]] REFIT_HD constexpr std::uint32_t larger(std::uint32_t a, std::uint32_t b) {
    return a > b ? a : b;
}

/// Largest magnitude of the chunk as F32 bits; NaN and Inf count as what they are.
[[nodiscard]] REFIT_HD inline std::uint32_t largest_magnitude(const Chunk& chunk) {
#if defined(__CUDA_ARCH__)
    // Two magnitudes a word; they are ordered as their bits are.
    std::uint32_t pair = 0;
    REFIT_UNROLL
    for (int i = 0; i < 4; ++i) {
        pair = __vmaxu2(pair, chunk.words[i] & 0x7fff7fffU);
    }
    return larger(pair << 16, pair & 0xffff0000U);
#else
    std::uint32_t result = 0;
    for (int i = 0; i < kChunk; ++i) {
        result = larger(result, numerics::abs_bits(chunk_value(chunk, i)));
    }
    return result;
#endif
}

[[nodiscard]] REFIT_HD inline std::uint32_t chunk_amax(const numerics::TileScaling& scaling,
                                                       const Chunk& chunk) {
    if (scaling.nonfinite_input == numerics::NonfiniteInput::propagate) {
        return largest_magnitude(chunk);
    }
    std::uint32_t result = 0;
    REFIT_UNROLL
    for (int i = 0; i < kChunk; ++i) {
        result =
            larger(result, numerics::amax_part(scaling, numerics::abs_bits(chunk_value(chunk, i))));
    }
    return result;
}

/// Codes of two quotients as numerics::f32_to_e4m3 gives them, the first in the lower byte. From
/// compute 8.9 on an instruction does the same: nearest, ties to even, saturating, the sign of zero
/// kept, 0x7f for every NaN.
/// Source: PTX ISA, cvt with .e4m3x2 and .satfinite; cuda_fp8.h takes the same instruction and
/// plays it on hosts, where a test compares all values.
[[nodiscard]] REFIT_HD inline std::uint32_t e4m3_pair(float first, float second) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    std::uint16_t pair = 0;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(second), "f"(first));
    return pair;
#else
    return static_cast<std::uint32_t>(numerics::f32_to_e4m3(first)) |
           static_cast<std::uint32_t>(numerics::f32_to_e4m3(second)) << 8;
#endif
}

/// The number that is cast for an element; what numerics::encode_element gives 0xfe is -448.
[[nodiscard]] REFIT_HD inline float cast_operand(const numerics::TileScaling& scaling,
                                                 std::uint16_t bf16_bits, float operand) {
    const float value = numerics::quotient(
        scaling, numerics::bf16_to_f32(numerics::replaced(scaling, bf16_bits)), operand);
    const bool dropped =
        scaling.nonfinite_input == numerics::NonfiniteInput::drop_nan && value != value;
    return dropped ? -numerics::kE4m3Max : value;
}

[[nodiscard]] REFIT_HD inline CodeChunk encode_chunk(const numerics::TileScaling& scaling,
                                                     const Chunk& chunk, float operand) {
    CodeChunk codes{{0U, 0U}};
    REFIT_UNROLL
    for (int i = 0; i < kChunk; i += 2) {
        const std::uint32_t pair =
            e4m3_pair(cast_operand(scaling, chunk_value(chunk, i), operand),
                      cast_operand(scaling, chunk_value(chunk, i + 1), operand));
        codes.words[i / 4] |= pair << (8 * (i % 4));
    }
    return codes;
}

/// The amax of a tile with what its scaling pads it with where it reaches over the edge.
[[nodiscard]] REFIT_HD constexpr std::uint32_t padded_amax(const Job& job, std::int64_t grid_row,
                                                           std::int64_t grid_col,
                                                           std::uint32_t amax_bits) {
    const bool ragged =
        (grid_row + 1) * job.tile_rows > job.rows || (grid_col + 1) * job.tile_cols > job.cols;
    if (job.scaling.edge != numerics::Edge::pad_last_element || !ragged) {
        return amax_bits;
    }
    return larger(amax_bits, numerics::amax_part(job.scaling, job.last_element_bits));
}

/// Which arithmetic a launch needs, so that the compiler can leave the rest out of the inner loop.
/// `plain`: no second rounding, no + 0, NaN and Inf go through.
enum class Flavour { divide_plain, multiply_plain, any };

[[nodiscard]] constexpr Flavour flavour_of(const numerics::TileScaling& scaling) {
    const bool plain = !scaling.round_quotient_to_bf16 && !scaling.add_zero &&
                       scaling.nonfinite_input == numerics::NonfiniteInput::propagate;
    if (!plain) {
        return Flavour::any;
    }
    return scaling.quotient == numerics::Quotient::divide_by_scale ? Flavour::divide_plain
                                                                   : Flavour::multiply_plain;
}

/// The same scaling with the fields of the flavour as constants that the compiler sees. Both
/// multiplying quotients have one form per element; only the making of the operand tells them
/// apart.
template <Flavour kFlavour>
[[nodiscard]] REFIT_HD constexpr numerics::TileScaling as_flavour(
    const numerics::TileScaling& scaling) {
    numerics::TileScaling result = scaling;
    result.clamp = false;  // the cast saturates
    if constexpr (kFlavour != Flavour::any) {
        result.round_quotient_to_bf16 = false;
        result.add_zero = false;
        result.nonfinite_input = numerics::NonfiniteInput::propagate;
        result.quotient = kFlavour == Flavour::divide_plain
                              ? numerics::Quotient::divide_by_scale
                              : numerics::Quotient::multiply_by_factor;
    }
    return result;
}

// Tiles of 128 x 128: one block a tile, which it reads once and keeps in registers.
//
// The band holds whole tiles, so tile (block_row, block_col) of the band is one patch.

struct BlockTile {
    Chunk chunks[kPatchPasses];
};

/// Whether all of a patch that begins with the band lies in it.
[[nodiscard]] REFIT_HD constexpr bool is_inner_patch(const Job& job, std::int64_t patch_row,
                                                     std::int64_t patch_col) {
    return (patch_row + 1) * kPatchRows <= job.row_count &&
           (patch_col + 1) * kPatchCols <= job.cols;
}

/// Reads the thread's chunks of a patch. Those of an inner one have no branch between them, so that
/// all are under way at once.
REFIT_HD inline void patch_load(const Job& job, std::int64_t patch_row, std::int64_t patch_col,
                                int thread, BlockTile& tile) {
    const std::int64_t row = patch_row * kPatchRows + thread / kPatchLanes;
    const std::int64_t col = patch_col * kPatchCols + (thread % kPatchLanes) * kChunk;
    if (job.wide_loads && is_inner_patch(job, patch_row, patch_col)) {
        const std::uint16_t* from = job.source + row * job.source_stride + col;
        REFIT_UNROLL
        for (int pass = 0; pass < kPatchPasses; ++pass) {
            tile.chunks[pass] = wide_chunk(from + pass * kPatchPassRows * job.source_stride);
        }
        return;
    }
    REFIT_UNROLL
    for (int pass = 0; pass < kPatchPasses; ++pass) {
        tile.chunks[pass] = load_chunk(job, row + pass * kPatchPassRows, col);
    }
}

/// Reads the thread's part of the tile; returns its own amax.
template <Flavour kFlavour>
[[nodiscard]] REFIT_HD inline std::uint32_t block_tile_load(const Job& job, std::int64_t block_row,
                                                            std::int64_t block_col, int thread,
                                                            BlockTile& tile) {
    const numerics::TileScaling scaling = as_flavour<kFlavour>(job.scaling);
    patch_load(job, block_row, block_col, thread, tile);
    std::uint32_t amax = 0;
    REFIT_UNROLL
    for (int pass = 0; pass < kPatchPasses; ++pass) {
        amax = larger(amax, chunk_amax(scaling, tile.chunks[pass]));
    }
    return amax;
}

/// Encodes the thread's part with the amax of all threads; thread 0 writes amax and scale.
template <Flavour kFlavour>
REFIT_HD inline void block_tile_finish(const Job& job, std::int64_t block_row,
                                       std::int64_t block_col, int thread, const BlockTile& tile,
                                       std::uint32_t amax_bits) {
    const numerics::TileScaling scaling = as_flavour<kFlavour>(job.scaling);
    const std::uint32_t amax =
        padded_amax(job, job.first_grid_row + block_row, block_col, amax_bits);
    const numerics::TileFactor factor = numerics::tile_factor(job.scaling, amax);
    if (thread == 0) {
        const std::int64_t index = block_row * job.grid_cols + block_col;
        job.amax_bits[index] = amax;
        job.scale_inv[index] = factor.scale_inv;
    }
    const std::int64_t row = block_row * kPatchRows + thread / kPatchLanes;
    const std::int64_t col = block_col * kPatchCols + (thread % kPatchLanes) * kChunk;
    const bool wide = job.wide_stores && is_inner_patch(job, block_row, block_col);
    REFIT_UNROLL
    for (int pass = 0; pass < kPatchPasses; ++pass) {
        const CodeChunk codes = encode_chunk(scaling, tile.chunks[pass], factor.operand);
        const std::int64_t local = row + pass * kPatchPassRows;
        if (wide) {
            wide_store(job.codes + local * job.code_stride + col, codes);
        } else {
            store_codes(job, local, col, codes);
        }
    }
}

// Tiles of 1 x 32 (MXFP8) and 1 x 128: a group of 4 or 16 neighbouring threads a tile.

/// Encodes the chunk with the amax of its group; the first thread of the group writes amax and
/// scale.
template <Flavour kFlavour, int kLanes>
REFIT_HD inline void group_finish(const Job& job, std::int64_t patch_row, std::int64_t patch_col,
                                  int thread, int pass, const Chunk& chunk,
                                  std::uint32_t amax_bits) {
    const std::int64_t row = patch_row * kPatchRows + pass * kPatchPassRows + thread / kPatchLanes;
    const std::int64_t col = patch_col * kPatchCols + (thread % kPatchLanes) * kChunk;
    if (row >= job.row_count || col >= job.cols) {
        return;
    }
    const std::int64_t grid_col = col / (kLanes * kChunk);
    const std::uint32_t amax = padded_amax(job, job.first_grid_row + row, grid_col, amax_bits);
    const numerics::TileFactor factor = numerics::tile_factor(job.scaling, amax);
    if (thread % kLanes == 0) {
        const std::int64_t index = row * job.grid_cols + grid_col;
        job.amax_bits[index] = amax;
        job.scale_inv[index] = factor.scale_inv;
    }
    store_codes(job, row, col,
                encode_chunk(as_flavour<kFlavour>(job.scaling), chunk, factor.operand));
}

// Tiles of one whole row: one block a row. The first kKept * 256 chunks (at most 16,384 columns)
// stay in registers; what a longer row has beyond them is read again, from the L2 cache.

template <int kKept>
struct WholeRow {
    Chunk chunks[kKept];
};

/// Chunks a thread keeps of a row of `cols` columns: few where rows are short, so that more blocks
/// fit on a multiprocessor.
[[nodiscard]] constexpr int kept_chunks(std::int64_t cols) {
    constexpr std::int64_t kOfOne = static_cast<std::int64_t>(kBlockThreads) * kChunk;
    return cols <= 2 * kOfOne ? 2 : (cols <= 4 * kOfOne ? 4 : kRowChunks);
}

[[nodiscard]] REFIT_HD constexpr std::int64_t row_col(int chunk, int thread) {
    return (static_cast<std::int64_t>(chunk) * kBlockThreads + thread) * kChunk;
}

template <Flavour kFlavour, int kKept>
[[nodiscard]] REFIT_HD inline std::uint32_t whole_row_load(const Job& job, std::int64_t row,
                                                           int thread, WholeRow<kKept>& kept) {
    const numerics::TileScaling scaling = as_flavour<kFlavour>(job.scaling);
    if (job.wide_loads && job.cols % kChunk == 0) {
        const std::uint16_t* from = job.source + row * job.source_stride;
        REFIT_UNROLL
        for (int i = 0; i < kKept; ++i) {
            const std::int64_t col = row_col(i, thread);
            kept.chunks[i] = col < job.cols ? wide_chunk(from + col) : Chunk{{0U, 0U, 0U, 0U}};
        }
    } else {
        REFIT_UNROLL
        for (int i = 0; i < kKept; ++i) {
            kept.chunks[i] = load_chunk(job, row, row_col(i, thread));
        }
    }
    std::uint32_t amax = 0;
    REFIT_UNROLL
    for (int i = 0; i < kKept; ++i) {
        amax = larger(amax, chunk_amax(scaling, kept.chunks[i]));
    }
    for (std::int64_t col = row_col(kKept, thread); col < job.cols; col += row_col(1, 0)) {
        amax = larger(amax, chunk_amax(scaling, load_chunk(job, row, col)));
    }
    return amax;
}

template <Flavour kFlavour, int kKept>
REFIT_HD inline void whole_row_finish(const Job& job, std::int64_t row, int thread,
                                      const WholeRow<kKept>& kept, std::uint32_t amax_bits) {
    const numerics::TileScaling scaling = as_flavour<kFlavour>(job.scaling);
    const std::uint32_t amax = padded_amax(job, job.first_grid_row + row, 0, amax_bits);
    const numerics::TileFactor factor = numerics::tile_factor(job.scaling, amax);
    if (thread == 0) {
        job.amax_bits[row * job.grid_cols] = amax;
        job.scale_inv[row * job.grid_cols] = factor.scale_inv;
    }
    REFIT_UNROLL
    for (int i = 0; i < kKept; ++i) {
        const std::int64_t col = row_col(i, thread);
        if (col < job.cols) {
            store_codes(job, row, col, encode_chunk(scaling, kept.chunks[i], factor.operand));
        }
    }
    for (std::int64_t col = row_col(kKept, thread); col < job.cols; col += row_col(1, 0)) {
        store_codes(job, row, col,
                    encode_chunk(scaling, load_chunk(job, row, col), factor.operand));
    }
}

// Any tile, and bands that cut tiles: amax, factors and codes are three launches. Patches are
// aligned to multiples of 128 rows of the matrix, not of the band, so that a patch never meets two
// tiles of 128 rows.

/// How far the maxima of a patch may be brought together before they meet the tile's amax.
enum class Meet { patch, chunk, element };

[[nodiscard]] constexpr Meet meet_of(std::int64_t tile_rows, std::int64_t tile_cols,
                                     std::int64_t rows, std::int64_t cols) {
    const bool rows_fit = tile_rows % kPatchRows == 0 || tile_rows >= rows;
    const bool cols_fit = tile_cols % kPatchCols == 0 || tile_cols >= cols;
    if (rows_fit && cols_fit) {
        return Meet::patch;
    }
    return tile_cols % kChunk == 0 || tile_cols >= cols ? Meet::chunk : Meet::element;
}

/// Local row of a thread in a pass of a patch, negative above the band.
[[nodiscard]] REFIT_HD constexpr std::int64_t patch_local_row(const Job& job,
                                                              std::int64_t patch_row, int thread,
                                                              int pass) {
    const std::int64_t first = job.row_begin / kPatchRows + patch_row;
    return first * kPatchRows + pass * kPatchPassRows + thread / kPatchLanes - job.row_begin;
}

/// Index of the tile of (local_row, col) in the job's spans.
[[nodiscard]] REFIT_HD constexpr std::int64_t tile_index(const Job& job, std::int64_t local_row,
                                                         std::int64_t col) {
    const std::int64_t grid_row = (job.row_begin + local_row) / job.tile_rows;
    return (grid_row - job.first_grid_row) * job.grid_cols + col / job.tile_cols;
}

/// The thread's part of the patch's amax. Where the maxima meet by chunk or element, `raise(index,
/// bits)` is called for each and 0 is returned; where by patch, the maximum is returned.
template <class Raise>
[[nodiscard]] REFIT_HD inline std::uint32_t patch_amax(const Job& job, Meet meet,
                                                       std::int64_t patch_row,
                                                       std::int64_t patch_col, int thread,
                                                       const Raise& raise) {
    const std::int64_t col = patch_col * kPatchCols + (thread % kPatchLanes) * kChunk;
    std::uint32_t amax = 0;
    for (int pass = 0; pass < kPatchPasses; ++pass) {
        const std::int64_t row = patch_local_row(job, patch_row, thread, pass);
        if (row < 0 || row >= job.row_count || col >= job.cols) {
            continue;
        }
        const Chunk chunk = load_chunk(job, row, col);
        if (meet == Meet::patch) {
            amax = larger(amax, chunk_amax(job.scaling, chunk));
        } else if (meet == Meet::chunk) {
            raise(tile_index(job, row, col), chunk_amax(job.scaling, chunk));
        } else {
            for (int i = 0; i < kChunk && col + i < job.cols; ++i) {
                raise(tile_index(job, row, col + i),
                      numerics::amax_part(job.scaling, numerics::abs_bits(chunk_value(chunk, i))));
            }
        }
    }
    return amax;
}

/// First local row of the patch that the band holds: its tile is the patch's where Meet::patch.
[[nodiscard]] REFIT_HD constexpr std::int64_t patch_tile(const Job& job, std::int64_t patch_row,
                                                         std::int64_t patch_col) {
    const std::int64_t row = patch_local_row(job, patch_row, 0, 0);
    return tile_index(job, row < 0 ? 0 : row, patch_col * kPatchCols);
}

/// Pads the amax of one touched tile. `index` counts the job's tiles.
REFIT_HD inline void pad_tile(const Job& job, std::int64_t index) {
    job.amax_bits[index] = padded_amax(job, job.first_grid_row + index / job.grid_cols,
                                       index % job.grid_cols, job.amax_bits[index]);
}

/// Scale and operand of one touched tile from its amax.
REFIT_HD inline void make_factor(const Job& job, std::int64_t index) {
    const numerics::TileFactor factor = numerics::tile_factor(job.scaling, job.amax_bits[index]);
    job.scale_inv[index] = factor.scale_inv;
    job.operands[index] = factor.operand;
}

/// Codes of the thread's chunks of a patch, from the operands of their tiles.
template <Flavour kFlavour>
REFIT_HD inline void patch_encode(const Job& job, Meet meet, std::int64_t patch_row,
                                  std::int64_t patch_col, int thread) {
    const numerics::TileScaling scaling = as_flavour<kFlavour>(job.scaling);
    const std::int64_t col = patch_col * kPatchCols + (thread % kPatchLanes) * kChunk;
    for (int pass = 0; pass < kPatchPasses; ++pass) {
        const std::int64_t row = patch_local_row(job, patch_row, thread, pass);
        if (row < 0 || row >= job.row_count || col >= job.cols) {
            continue;
        }
        const Chunk chunk = load_chunk(job, row, col);
        if (meet != Meet::element) {
            store_codes(job, row, col,
                        encode_chunk(scaling, chunk, job.operands[tile_index(job, row, col)]));
            continue;
        }
        CodeChunk codes{{0U, 0U}};
        for (int i = 0; i < kChunk && col + i < job.cols; ++i) {
            const std::uint32_t code = numerics::encode_element(
                scaling, chunk_value(chunk, i), job.operands[tile_index(job, row, col + i)]);
            codes.words[i / 4] |= code << (8 * (i % 4));
        }
        store_codes(job, row, col, codes);
    }
}

}  // namespace refit::kernels::cuda
