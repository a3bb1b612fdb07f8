// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// How the CUDA backend cuts a band into stripes that it stages through the device, and what memory
// that takes. Numbers alone, without CUDA, so that they are known before a device is asked for.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/backend.hpp"
#include "kernels/cuda/tile_program.hpp"

namespace refit::kernels::cuda {

/// BF16 bytes of a staged stripe: large enough that a copy reaches the speed of the link, small
/// enough that two slots overlap within one bucket.
inline constexpr std::int64_t kStripeBytes = std::int64_t{16} << 20;
/// Rows between two calls of stripe_done, as the interface has it.
inline constexpr std::int64_t kReportedRows = 128;
/// Stripes under way at once.
inline constexpr std::int64_t kStagingSlots = 2;

/// Bytes of scratch memory that one launch of digests takes at most, 64 for each block of 1 KiB;
/// only a single tensor of more than 256 MiB takes more.
inline constexpr std::int64_t kDigestScratch = std::int64_t{16} << 20;

/// Elements from row to row on the device: rows begin at multiples of 16 bytes, so that chunks are
/// aligned whatever the number of columns.
[[nodiscard]] constexpr std::int64_t device_stride(std::int64_t cols) {
    return (cols + kChunk - 1) / kChunk * kChunk;
}

/// Rows of a stripe: whole tiles where tiles are shorter than a stripe, and whole patches.
[[nodiscard]] constexpr std::int64_t stripe_rows(const TileGrid& grid, std::int64_t cols) {
    const std::int64_t rows = std::max<std::int64_t>(
        1, kStripeBytes / std::max<std::int64_t>(2, 2 * device_stride(cols)));
    const std::int64_t unit = grid.tile_rows < kReportedRows
                                  ? kReportedRows / grid.tile_rows * grid.tile_rows
                                  : (grid.tile_rows <= rows ? grid.tile_rows : kReportedRows);
    return std::max(unit, rows / unit * unit);
}

/// Local rows [row, row + rows) of a band that begins at `row_begin` are one stripe. Stripes end at
/// multiples of `step` of the matrix, so that they hold whole tiles.
[[nodiscard]] constexpr std::int64_t rows_of_stripe(std::int64_t row_begin, std::int64_t row,
                                                    std::int64_t row_count, std::int64_t step) {
    const std::int64_t global = row_begin + row;
    return std::min(row_count - row, (global / step + 1) * step - global);
}

/// Memory of the slots of one process, which keeps the largest that any of its calls needed.
/// Beside it the driver has memory of its own, which nothing tells beforehand.
class StagingMemory {
 public:
    /// Calls that quantize bands of a [rows, cols] matrix, or of some of its columns.
    void add_quantized(const numerics::TileScaling& scaling, std::int64_t rows, std::int64_t cols) {
        if (rows <= 0 || cols <= 0) return;
        const TileGrid grid = tile_grid(scaling, rows, cols);
        const std::int64_t stride = device_stride(cols);
        // A band of fewer columns has more rows in a stripe, at most as many as fill it.
        const std::int64_t shortest = grid.tile_rows < kReportedRows
                                          ? kReportedRows / grid.tile_rows * grid.tile_rows
                                          : kReportedRows;
        const std::int64_t stripe = std::max(kStripeBytes / 2, shortest * stride);
        elements_ = std::max(elements_, std::min(rows * stride, stripe));
        // Of a band whose edges cut tiles, the cut ones count too.
        const std::int64_t held = std::min(rows * cols, stripe);
        const std::int64_t whole = held / (grid.tile_rows * grid.tile_cols);
        tiles_ = std::max(tiles_, std::min((grid.grid_rows + 1) * (grid.grid_cols + 1),
                                           whole + rows / grid.tile_rows + 2 * grid.grid_cols + 2));
    }
    /// Calls that look for NaN and Inf in `count` BF16 values.
    void add_scan(std::int64_t count) {
        scanned_ = std::max(scanned_, std::min(count, kStripeBytes / 2));
    }
    /// Locked memory of the host: BF16, codes, amax and scale of every slot.
    [[nodiscard]] std::int64_t host_bytes() const {
        return kStagingSlots * (3 * elements_ + 8 * tiles_);
    }
    /// Memory of the device: the same with the operands, and the scans of the first slot.
    [[nodiscard]] std::int64_t device_bytes() const {
        return kStagingSlots * (3 * elements_ + 12 * tiles_) +
               2 * std::max<std::int64_t>(0, scanned_ - elements_);
    }

 private:
    std::int64_t elements_ = 0;  ///< of one slot, at the device's stride
    std::int64_t tiles_ = 0;     ///< of one slot
    std::int64_t scanned_ = 0;   ///< elements, slot 0 only
};

/// What of a call's wall time was staging: not its kernels, and not what it called back. Where a
/// kernel ran behind a callback or another stripe's kernel, it counts once more than it took, and
/// the rest would be negative: then nothing was.
[[nodiscard]] constexpr double staging_of(double wall_s, double callbacks_s, double kernels_s) {
    return std::max(0.0, wall_s - callbacks_s - kernels_s);
}

}  // namespace refit::kernels::cuda
