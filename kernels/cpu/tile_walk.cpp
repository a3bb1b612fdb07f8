// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/tile_walk.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "kernels/numerics/scale.hpp"

namespace refit::kernels {

TileGrid tile_grid(const numerics::TileScaling& scaling, std::int64_t rows, std::int64_t cols) {
    TileGrid grid;
    // An empty dimension has no tiles; the extent 1 keeps the divisions below defined.
    grid.tile_rows = scaling.tile_rows > 0 ? scaling.tile_rows : std::max<std::int64_t>(rows, 1);
    grid.tile_cols = scaling.tile_cols > 0 ? scaling.tile_cols : std::max<std::int64_t>(cols, 1);
    grid.grid_rows = (rows + grid.tile_rows - 1) / grid.tile_rows;
    grid.grid_cols = (cols + grid.tile_cols - 1) / grid.tile_cols;
    return grid;
}

std::int64_t first_grid_row(const TileGrid& grid, const Band& band) {
    return band.row_begin / grid.tile_rows;
}

std::int64_t touched_grid_rows(const TileGrid& grid, const Band& band) {
    if (band.row_count <= 0) {
        return 0;
    }
    return (band.row_begin + band.row_count - 1) / grid.tile_rows - first_grid_row(grid, band) + 1;
}

namespace cpu {

void require_span(const char* what, std::size_t found, std::int64_t expected) {
    if (found < static_cast<std::size_t>(expected)) {
        throw std::invalid_argument(std::string("quantization of a band: ") + what + " holds " +
                                    std::to_string(found) + " values, but the band touches " +
                                    std::to_string(expected) +
                                    " tiles; size it as touched_grid_rows x grid_cols");
    }
}

void require_band(const Band& band) {
    if (band.row_begin < 0 || band.row_count < 0 || band.row_begin + band.row_count > band.rows ||
        band.cols < 0 || (band.row_count > 1 && band.row_stride < band.cols)) {
        throw std::invalid_argument(
            "quantization of a band: rows [" + std::to_string(band.row_begin) + ", " +
            std::to_string(band.row_begin + band.row_count) + ") of a [" +
            std::to_string(band.rows) + ", " + std::to_string(band.cols) +
            "] matrix with row stride " + std::to_string(band.row_stride) +
            "; expected rows inside the matrix and a stride of at least its columns");
    }
}

void require_whole_tiles(const TileGrid& grid, const Band& band) {
    const std::int64_t end = band.row_begin + band.row_count;
    if (band.row_count > 0 &&
        (band.row_begin % grid.tile_rows != 0 || (end % grid.tile_rows != 0 && end != band.rows))) {
        throw std::invalid_argument("quantize of rows [" + std::to_string(band.row_begin) + ", " +
                                    std::to_string(end) + ") cuts a tile of " +
                                    std::to_string(grid.tile_rows) +
                                    " rows; use tile_amax over all bands of the tile, then encode");
    }
}

namespace {

/// Codes larger than this do not stay in cache until somebody reads them.
constexpr std::int64_t kStreamingBytes = 4 << 20;

}  // namespace

void pad_edge(const numerics::TileScaling& scaling, const TileGrid& grid, const Band& band,
              std::int64_t grid_row, std::int64_t tile_begin, std::int64_t tile_end,
              std::uint32_t* amax_row) {
    if (scaling.edge != numerics::Edge::pad_last_element) {
        return;
    }
    const bool ragged_row = (grid_row + 1) * grid.tile_rows > band.rows;
    const std::uint32_t last = numerics::amax_part(scaling, band.last_element_bits);
    for (std::int64_t t = tile_begin; t < tile_end; ++t) {
        if (ragged_row || (t + 1) * grid.tile_cols > band.cols) {
            amax_row[t] = std::max(amax_row[t], last);
        }
    }
}

void TileWalk::tile_amax(const numerics::TileScaling& scaling, const Band& band,
                         std::span<std::uint32_t> amax_bits) const {
    require_band(band);
    const TileGrid grid = tile_grid(scaling, band.rows, band.cols);
    const std::int64_t first = first_grid_row(grid, band);
    const std::int64_t touched = touched_grid_rows(grid, band);
    require_span("amax_bits", amax_bits.size(), touched * grid.grid_cols);
    for (std::int64_t g = first; g < first + touched; ++g) {
        std::uint32_t* amax_row = amax_bits.data() + (g - first) * grid.grid_cols;
        Patch patch;
        patch.row_begin = std::max(band.row_begin, g * grid.tile_rows);
        patch.row_end = std::min(band.row_begin + band.row_count, (g + 1) * grid.tile_rows);
        patch.tile_end = grid.grid_cols;
        patch_amax(scaling, grid, band, patch, amax_row);
        pad_edge(scaling, grid, band, g, 0, grid.grid_cols, amax_row);
    }
}

void TileWalk::scales(const numerics::TileScaling& scaling,
                      std::span<const std::uint32_t> amax_bits, std::span<float> scale_inv) const {
    require_span("scale_inv", scale_inv.size(), static_cast<std::int64_t>(amax_bits.size()));
    for (std::size_t i = 0; i < amax_bits.size(); ++i) {
        scale_inv[i] = numerics::tile_factor(scaling, amax_bits[i]).scale_inv;
    }
}

void TileWalk::encode(const numerics::TileScaling& scaling, const Band& band,
                      std::span<const std::uint32_t> amax_bits, std::uint8_t* codes,
                      std::int64_t code_stride, const StripeDone& stripe_done) const {
    require_band(band);
    const TileGrid grid = tile_grid(scaling, band.rows, band.cols);
    const std::int64_t first = first_grid_row(grid, band);
    require_span("amax_bits", amax_bits.size(), touched_grid_rows(grid, band) * grid.grid_cols);
    const std::int64_t end = band.row_begin + band.row_count;
    const bool streaming = !stripe_done && band.row_count * band.cols >= kStreamingBytes;
    for (std::int64_t row = band.row_begin; row < end;) {
        const std::int64_t stripe_end = std::min(end, (row / kStripeRows + 1) * kStripeRows);
        const std::int64_t stripe_begin = row;
        while (row < stripe_end) {
            const std::int64_t g = row / grid.tile_rows;
            Patch patch;
            patch.row_begin = row;
            patch.row_end = std::min(stripe_end, (g + 1) * grid.tile_rows);
            patch.tile_end = grid.grid_cols;
            patch_encode(scaling, grid, band, patch,
                         amax_bits.data() + (g - first) * grid.grid_cols, codes, code_stride,
                         streaming);
            row = patch.row_end;
        }
        if (stripe_done) {
            stripe_done(stripe_begin, stripe_end);
        }
    }
}

void TileWalk::quantize(const numerics::TileScaling& scaling, const Band& band,
                        std::span<std::uint32_t> amax_bits, std::span<float> scale_inv,
                        std::uint8_t* codes, std::int64_t code_stride,
                        const StripeDone& stripe_done) const {
    require_band(band);
    const TileGrid grid = tile_grid(scaling, band.rows, band.cols);
    const std::int64_t first = first_grid_row(grid, band);
    const std::int64_t tiles = touched_grid_rows(grid, band) * grid.grid_cols;
    require_span("amax_bits", amax_bits.size(), tiles);
    require_span("scale_inv", scale_inv.size(), tiles);
    require_whole_tiles(grid, band);
    const auto used_amax = amax_bits.first(static_cast<std::size_t>(tiles));
    std::fill(used_amax.begin(), used_amax.end(), 0U);
    if (grid.tile_rows > kStripeRows) {
        tile_amax(scaling, band, used_amax);
        scales(scaling, used_amax, scale_inv);
        encode(scaling, band, used_amax, codes, code_stride, stripe_done);
        return;
    }
    const Quantized out{used_amax.data(), scale_inv.data(), codes, code_stride,
                        !stripe_done && band.row_count * band.cols >= kStreamingBytes};
    quantize_grid_rows(scaling, grid, band, out, first, first + touched_grid_rows(grid, band),
                       stripe_done);
}

GridRow grid_row(const TileGrid& grid, const Band& band, const Quantized& out, std::int64_t first,
                 std::int64_t index) {
    GridRow row;
    row.index = index;
    row.row_begin = index * grid.tile_rows;
    row.row_end = std::min(band.row_begin + band.row_count, row.row_begin + grid.tile_rows);
    row.amax_bits = out.amax_bits + (index - first) * grid.grid_cols;
    row.scale_inv = out.scale_inv + (index - first) * grid.grid_cols;
    return row;
}

void report_stripe(const StripeDone& stripe_done, std::int64_t row_begin, std::int64_t row_end) {
    if (stripe_done) {
        stripe_done(row_begin, row_end);
    }
}

void TileWalk::quantize_grid_rows(const numerics::TileScaling& scaling, const TileGrid& grid,
                                  const Band& band, const Quantized& out, std::int64_t first,
                                  std::int64_t last, const StripeDone& stripe_done) const {
    const std::int64_t stripe_tile_rows = kStripeRows / grid.tile_rows;
    for (std::int64_t g = first; g < last;) {
        const std::int64_t stripe_begin = g * grid.tile_rows;
        const std::int64_t stripe_last = std::min(last, g + stripe_tile_rows);
        std::int64_t stripe_end = stripe_begin;
        for (; g < stripe_last; ++g) {
            const GridRow row = grid_row(grid, band, out, first, g);
            quantize_grid_row(scaling, grid, band, out, row);
            stripe_end = row.row_end;
        }
        report_stripe(stripe_done, stripe_begin, stripe_end);
    }
}

void TileWalk::quantize_grid_row(const numerics::TileScaling& scaling, const TileGrid& grid,
                                 const Band& band, const Quantized& out, const GridRow& row) const {
    const std::int64_t panel_tiles = std::max<std::int64_t>(1, kPanelCols / grid.tile_cols);
    Patch patch;
    patch.row_begin = row.row_begin;
    patch.row_end = row.row_end;
    for (std::int64_t t = 0; t < grid.grid_cols; t += panel_tiles) {
        patch.tile_begin = t;
        patch.tile_end = std::min(grid.grid_cols, t + panel_tiles);
        patch_amax(scaling, grid, band, patch, row.amax_bits);
        pad_edge(scaling, grid, band, row.index, patch.tile_begin, patch.tile_end, row.amax_bits);
        for (std::int64_t i = patch.tile_begin; i < patch.tile_end; ++i) {
            row.scale_inv[i] = numerics::tile_factor(scaling, row.amax_bits[i]).scale_inv;
        }
        patch_encode(scaling, grid, band, patch, row.amax_bits, out.codes, out.code_stride,
                     out.streaming);
    }
}

}  // namespace cpu
}  // namespace refit::kernels
