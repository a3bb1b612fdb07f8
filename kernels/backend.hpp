// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Where arithmetic runs. One interface; the portable backend is the reference that every other one
// equals bit for bit.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/numerics/tile_scaling.hpp"

namespace refit::kernels {

/// Consecutive rows of a [rows, cols] BF16 matrix.
struct Band {
    const std::uint16_t* data = nullptr;  ///< first element of row `row_begin`
    std::int64_t row_stride = 0;          ///< elements from row to row
    std::int64_t row_begin = 0;           ///< global index of the first row
    std::int64_t row_count = 0;
    std::int64_t rows = 0;  ///< of the whole matrix: decides which tiles are ragged
    std::int64_t cols = 0;
    /// |W[rows-1, cols-1]| as F32 bits, for recipes that pad ragged tiles with the last element;
    /// else 0.
    std::uint32_t last_element_bits = 0;
};

/// Tile grid of a matrix under a scaling: [ceil_div(rows, tile_rows), ceil_div(cols, tile_cols)].
/// `first_row(band)` = band.row_begin / tile_rows is the grid row that index 0 of the spans below
/// stands for.
struct TileGrid {
    std::int64_t tile_rows =
        0;  ///< rows of the matrix in one tile (the matrix's rows for tensorwise)
    std::int64_t tile_cols = 0;
    std::int64_t grid_rows = 0;
    std::int64_t grid_cols = 0;
};
[[nodiscard]] TileGrid tile_grid(const numerics::TileScaling& scaling, std::int64_t rows,
                                 std::int64_t cols);
/// Grid rows that a band touches: [first, last].
[[nodiscard]] std::int64_t first_grid_row(const TileGrid& grid, const Band& band);
[[nodiscard]] std::int64_t touched_grid_rows(const TileGrid& grid, const Band& band);

/// Called after each stripe of rows [row_begin, row_end) (global index) while its codes are in
/// cache: digests and transport progress hang here.
using StripeDone = std::function<void(std::int64_t row_begin, std::int64_t row_end)>;

class Backend {
 public:
    virtual ~Backend() = default;
    [[nodiscard]] virtual std::string_view name() const = 0;

    /// amax_bits[i] = max(amax_bits[i], bits(|x|) as F32 for x in tile i that the band holds).
    /// Integer maximum: exact, order-free, NaN wins (but see numerics::hides_nonfinite: where a
    /// recipe drops or replaces NaN, x is what it leaves). Zero the span before the first band.
    /// amax_bits : [touched_grid_rows, grid_cols].
    virtual void tile_amax(const numerics::TileScaling& scaling, const Band& band,
                           std::span<std::uint32_t> amax_bits) const = 0;

    /// scale_inv[i] from amax_bits[i]: the multiplier that dequantizes, already rounded to what
    /// the scaling stores (so a conversion to BF16 or E8M0 is exact).
    virtual void scales(const numerics::TileScaling& scaling,
                        std::span<const std::uint32_t> amax_bits,
                        std::span<float> scale_inv) const = 0;

    /// Codes of the band from tiles whose amax is known.
    /// codes : [row_count, cols] E4M3FN, `code_stride` bytes from row to row.
    virtual void encode(const numerics::TileScaling& scaling, const Band& band,
                        std::span<const std::uint32_t> amax_bits, std::uint8_t* codes,
                        std::int64_t code_stride, const StripeDone& stripe_done) const = 0;

    /// tile_amax, scales and encode in one pass, stripe by stripe, for a band that holds every tile
    /// it touches whole. amax_bits is an output (it tells non-finite tiles: bits >= 0x7f800000,
    /// unless numerics::hides_nonfinite(scaling)).
    virtual void quantize(const numerics::TileScaling& scaling, const Band& band,
                          std::span<std::uint32_t> amax_bits, std::span<float> scale_inv,
                          std::uint8_t* codes, std::int64_t code_stride,
                          const StripeDone& stripe_done) const = 0;

    /// Largest |x| of `count` BF16 values as F32 bits; >= 0x7f800000 when any is NaN or Inf.
    [[nodiscard]] virtual std::uint32_t max_abs_bits(const std::uint16_t* values,
                                                     std::int64_t count) const = 0;

    /// Seconds that the calls of this thread spent so far on carrying rows and results between host
    /// memory and where the arithmetic runs: their wall time without that of the arithmetic and of
    /// stripe_done. 0 where both are one.
    [[nodiscard]] virtual double staging_seconds() const { return 0.0; }

    /// How many of `count` E4M3FN codes are NaN (0x7f or 0xff).
    [[nodiscard]] virtual std::int64_t count_nan_codes(const std::uint8_t* codes,
                                                       std::int64_t count) const = 0;
};

struct BackendRow {
    std::string name;
    bool compiled = false;
    bool viable = false;
    std::string reason;  ///< why not; empty when viable
};

/// Every backend name of the interface, without asking any device.
[[nodiscard]] std::vector<std::string> backend_names();
/// Every backend name of the interface (portable, avx2, avx512, cuda) with its state on this
/// machine.
[[nodiscard]] std::vector<BackendRow> backend_rows();
/// "auto" gives the fastest viable CPU backend. Null for a name that is not viable here; see
/// backend_rows for why.
[[nodiscard]] const Backend* find_backend(std::string_view name);

}  // namespace refit::kernels
