// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The source's values along one part, stripe by stripe, with the scales that follow from the global
// tensor's own tiles: also where a tile reaches beyond the part.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "checks/audit.hpp"
#include "checks/nearest_codes.hpp"
#include "core/shape.hpp"
#include "model/tensor_spec.hpp"
#include "weights/weight_source.hpp"

namespace refit::checks {

/// Largest finite magnitude of a tile, and whether all of it is finite.
struct TileMaximum {
    std::uint16_t bits = 0;  ///< BF16 without sign
    bool finite = true;
    /// Takes `count` further BF16 values into account.
    void add(const std::uint16_t* values, std::int64_t count);
};

/// The scale that a tile with this maximum has in double precision; 0 for a tile of zeros.
/// amax / 448, at least the floor, then rounded up to a power of two where the scheme says so.
[[nodiscard]] double own_scale(double amax, const SchemeFacts& facts);

/// Maximum of the whole tensor, read in stripes. `on_progress` is called after each.
[[nodiscard]] TileMaximum tensor_maximum(const model::TensorSpec& tensor,
                                         const weights::WeightSource& source,
                                         const std::function<void()>& on_progress);

class SourceTiles {
 public:
    /// part : global region of the tensor seen as a matrix.
    /// whole : maximum of the whole tensor; used where facts.tile_rows is 0.
    SourceTiles(const model::TensorSpec& tensor, const weights::WeightSource& source,
                const SchemeFacts& facts, const core::Region& part, const TileMaximum& whole);

    /// First row of the first stripe: the part's first row, or that of the tile it lies in.
    [[nodiscard]] std::int64_t first_row() const;
    /// Rows from stripe to stripe: whole tiles.
    [[nodiscard]] std::int64_t stripe_rows() const { return stripe_rows_; }
    /// Reads the stripe that begins at `row` and takes its maxima. Passes on what the source
    /// throws.
    void read(std::int64_t row);

    /// Address of an element of the stripe last read; the rest of its row within the part follows.
    [[nodiscard]] const std::uint16_t* at(std::int64_t row, std::int64_t col) const;
    /// Scale of the tile that holds the element.
    [[nodiscard]] double scale(std::int64_t row, std::int64_t col) const;
    [[nodiscard]] bool finite(std::int64_t row, std::int64_t col) const;
    /// The codes that the elements of the tile should have if they were loaded with this scale;
    /// null where the tile is too small for a table. Valid until the next call of read().
    [[nodiscard]] const NearestCodes* nearest(std::int64_t row, std::int64_t col,
                                              double loaded_scale);
    /// One past the last row of the tile that holds `row`.
    [[nodiscard]] std::int64_t tile_end_row(std::int64_t row) const {
        return (row / tile_rows_ + 1) * tile_rows_;
    }
    /// Elements from a row of the stripe to the next one.
    [[nodiscard]] std::int64_t row_stride() const { return stripe_.cols; }
    /// One past the last column of the tile that holds `col`.
    [[nodiscard]] std::int64_t tile_end(std::int64_t col) const;

 private:
    struct Tile {
        double scale = 0.0;
        bool finite = true;
    };
    [[nodiscard]] std::size_t tile_index(std::int64_t row, std::int64_t col) const;
    [[nodiscard]] const Tile& tile(std::int64_t row, std::int64_t col) const;
    [[nodiscard]] Tile finished(const TileMaximum& maximum, bool ragged) const;
    void take_maxima();

    const model::TensorSpec& tensor_;
    const weights::WeightSource& source_;
    const SchemeFacts& facts_;
    core::Region part_;
    std::int64_t rows_ = 0;  ///< of the tensor
    std::int64_t cols_ = 0;
    bool whole_tensor_ = false;
    std::int64_t tile_rows_ = 0;
    std::int64_t tile_cols_ = 0;
    std::int64_t stripe_rows_ = 0;
    core::Region stripe_;  ///< what `values_` holds
    std::int64_t tiles_across_ = 0;
    std::uint16_t last_element_ = 0;  ///< magnitude, where ragged tiles are padded with it; else 0
    std::vector<std::uint16_t> values_;
    std::vector<Tile> tiles_;
    std::vector<NearestCodes> nearest_;  ///< for each of `tiles_`, made when asked for
    NearestCodesCache known_;
};

}  // namespace refit::checks
