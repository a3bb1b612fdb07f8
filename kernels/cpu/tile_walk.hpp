// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The order in which CPU backends visit a matrix; they supply the inner loops. Stripes of at most
// kStripeRows rows, column panels inside a stripe, so that what amax has read is still in L2 when
// it is encoded.
#pragma once

#include "kernels/backend.hpp"
#include "kernels/numerics/scale.hpp"

namespace refit::kernels::cpu {

/// A stripe of this many rows is finished before stripe_done hears of it.
inline constexpr std::int64_t kStripeRows = 128;
/// 128 rows x 1024 columns of BF16 are 256 KiB: half of the smallest L2 that matters.
inline constexpr std::int64_t kPanelCols = 1024;

/// Rows [row_begin, row_end) (global) and tile columns [tile_begin, tile_end) inside one grid row.
struct Patch {
    std::int64_t row_begin = 0;
    std::int64_t row_end = 0;
    std::int64_t tile_begin = 0;
    std::int64_t tile_end = 0;
};

/// Where quantize() writes. amax_bits and scale_inv begin at the first grid row of the call.
struct Quantized {
    std::uint32_t* amax_bits = nullptr;  ///< [grid rows of the call, grid_cols], zero before
    float* scale_inv = nullptr;          ///< the same shape
    std::uint8_t* codes = nullptr;       ///< at the band's first row
    std::int64_t code_stride = 0;
    bool streaming = false;  ///< nobody reads the codes soon
};

/// One row of tiles.
struct GridRow {
    std::int64_t index = 0;  ///< in the matrix
    std::int64_t row_begin = 0;
    std::int64_t row_end = 0;
    std::uint32_t* amax_bits = nullptr;
    float* scale_inv = nullptr;
};

/// Grid row `index` of a call that begins at grid row `first`.
[[nodiscard]] GridRow grid_row(const TileGrid& grid, const Band& band, const Quantized& out,
                               std::int64_t first, std::int64_t index);

/// stripe_done(row_begin, row_end), if there is one.
void report_stripe(const StripeDone& stripe_done, std::int64_t row_begin, std::int64_t row_end);

/// tile_amax, scales, encode and quantize in terms of two loops over a patch.
class TileWalk : public Backend {
 public:
    void tile_amax(const numerics::TileScaling& scaling, const Band& band,
                   std::span<std::uint32_t> amax_bits) const final;
    void scales(const numerics::TileScaling& scaling, std::span<const std::uint32_t> amax_bits,
                std::span<float> scale_inv) const final;
    void encode(const numerics::TileScaling& scaling, const Band& band,
                std::span<const std::uint32_t> amax_bits, std::uint8_t* codes,
                std::int64_t code_stride, const StripeDone& stripe_done) const final;
    void quantize(const numerics::TileScaling& scaling, const Band& band,
                  std::span<std::uint32_t> amax_bits, std::span<float> scale_inv,
                  std::uint8_t* codes, std::int64_t code_stride,
                  const StripeDone& stripe_done) const final;

 protected:
    /// Raises amax_row[t], t in [tile_begin, tile_end), by the patch's own elements.
    virtual void patch_amax(const numerics::TileScaling& scaling, const TileGrid& grid,
                            const Band& band, const Patch& patch,
                            std::uint32_t* amax_row) const = 0;
    /// amax, scales and codes of the grid rows [first, last), reported in stripes of kStripeRows.
    /// The default goes row by row.
    virtual void quantize_grid_rows(const numerics::TileScaling& scaling, const TileGrid& grid,
                                    const Band& band, const Quantized& out, std::int64_t first,
                                    std::int64_t last, const StripeDone& stripe_done) const;
    /// amax, scales and codes of one grid row. The default goes panel by panel.
    virtual void quantize_grid_row(const numerics::TileScaling& scaling, const TileGrid& grid,
                                   const Band& band, const Quantized& out,
                                   const GridRow& row) const;
    /// Writes the codes of the patch; amax_row as above. `streaming`: nobody reads the codes soon.
    virtual void patch_encode(const numerics::TileScaling& scaling, const TileGrid& grid,
                              const Band& band, const Patch& patch, const std::uint32_t* amax_row,
                              std::uint8_t* codes, std::int64_t code_stride,
                              bool streaming) const = 0;
};

/// numerics::tile_factor and a loop over numerics::encode_element, compiled for the base processor:
/// a file with flags of its own must not emit inline functions that the linker may pick for others.
[[nodiscard]] numerics::TileFactor tile_factor_of(const numerics::TileScaling& scaling,
                                                  std::uint32_t amax_bits);
void encode_elements(const numerics::TileScaling& scaling, float operand,
                     const std::uint16_t* source, std::int64_t count, std::uint8_t* codes);

// What every backend requires of its arguments; they throw std::invalid_argument with what was
// found and what was expected: a span of at least `expected` values; rows inside the matrix; whole
// tiles.
void require_span(const char* what, std::size_t found, std::int64_t expected);
void require_band(const Band& band);
void require_whole_tiles(const TileGrid& grid, const Band& band);

/// Amax of `count` elements under the recipe's treatment of NaN and Inf, one by one.
[[nodiscard]] std::uint32_t max_amax_part(const numerics::TileScaling& scaling,
                                          const std::uint16_t* source, std::int64_t count);

/// Raises the amax of tiles that reach over the edge by the last element, where the recipe pads so.
void pad_edge(const numerics::TileScaling& scaling, const TileGrid& grid, const Band& band,
              std::int64_t grid_row, std::int64_t tile_begin, std::int64_t tile_end,
              std::uint32_t* amax_row);

/// The CPU backends. avx2_backend and avx512_backend are null where they are not built.
[[nodiscard]] const Backend* portable_backend();
[[nodiscard]] const Backend* avx2_backend();
[[nodiscard]] const Backend* avx512_backend();

}  // namespace refit::kernels::cpu
