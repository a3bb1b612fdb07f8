// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Quantizes what one trainer holds of one tensor: the tiles that are its own in one pass, those
// that it shares with other trainers under the amax of all.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "core/shape.hpp"
#include "kernels/backend.hpp"
#include "trainer/amax_exchange.hpp"
#include "trainer/refit_plan.hpp"
#include "trainer/weight_rows.hpp"
#include "wire/manifest.hpp"

namespace refit::trainer {

/// Rows that are encoded before they are hashed.
inline constexpr std::int64_t kStripeRows = 128;

/// Columns of a rectangle that begin at a tile boundary, or stay within one tile: to a backend a
/// matrix of their own, whose tiles are the global ones.
struct Panel {
    core::RowRange cols;          ///< global
    std::int64_t first_tile = 0;  ///< global grid column
    std::int64_t tiles = 0;
    std::span<std::uint32_t> amax;  ///< [touched grid rows, tiles]
    std::span<float> scales;        ///< the same

    /// One panel, or two where the rectangle begins inside a tile and leaves it.
    static std::vector<Panel> of(const core::Region& region, const kernels::TileGrid& grid) {
        std::vector<Panel> panels;
        const std::int64_t end = region.col + region.cols;
        const std::int64_t boundary =
            std::min(end, core::ceil_div(region.col, grid.tile_cols) * grid.tile_cols);
        auto add = [&](std::int64_t from, std::int64_t to) {
            if (from >= to) return;
            const std::int64_t first = from / grid.tile_cols;
            panels.push_back(
                {{from, to}, first, core::ceil_div(to, grid.tile_cols) - first, {}, {}});
        };
        add(region.col, boundary);
        add(boundary, end);
        return panels;
    }

    /// The panel's part of a band whose first element is `values` at (rows.begin, first_col).
    [[nodiscard]] kernels::Band band(const Values& values, const core::RowRange& rows,
                                     std::int64_t first_col, std::int64_t matrix_rows,
                                     std::uint32_t last_element_bits) const {
        return {values.data + cols.begin - first_col,
                values.stride,
                rows.begin,
                rows.count(),
                matrix_rows,
                cols.count(),
                last_element_bits};
    }
};

/// What is quantized. `values` : the rectangle `region` of the parameter `meta`; `codes` :
/// [region.rows, region.cols] without gaps.
struct EntrySource {
    const wire::ParameterMeta& meta;
    core::Region region;
    Values values;
    std::uint8_t* codes = nullptr;
};

class EntryQuantizer {
 public:
    /// `amax` and `scales` are sized here and hold what the panels refer to; all references live as
    /// long as the quantizer.
    EntryQuantizer(const kernels::Backend& backend, const numerics::TileScaling& scaling,
                   const EntrySource& source, const ExchangedAmax& exchanged,
                   std::vector<std::uint32_t>& amax, std::vector<float>& scales);

    /// Writes codes, amax and scales. `stripe_done` is called with global rows as soon as their
    /// codes are written, in their order.
    void run(const kernels::StripeDone& stripe_done);

    [[nodiscard]] std::int64_t first_grid_row() const { return first_grid_; }
    /// The scale of the tile in which the rectangle begins.
    [[nodiscard]] float& first_scale() { return panels_.front().scales[0]; }
    /// That which begins at a tile boundary, where there is one.
    [[nodiscard]] const Panel& last_panel() const { return panels_.back(); }

 private:
    const kernels::Backend& backend_;
    const numerics::TileScaling& scaling_;
    EntrySource source_;
    ExchangedAmax exchanged_;
    kernels::TileGrid grid_;
    std::int64_t first_grid_;
    std::vector<Panel> panels_;

    [[nodiscard]] bool is_shared(std::int64_t row) const {
        return exchanged_.covers(row / grid_.tile_rows);
    }
    [[nodiscard]] kernels::Band band(const Panel& panel, const core::RowRange& rows) const;
    [[nodiscard]] std::uint8_t* codes(const Panel& panel, std::int64_t row) const;
    /// The words of a panel for the grid rows of [rows.begin, rows.end).
    template <typename Word>
    [[nodiscard]] std::span<Word> words(const Panel& panel, std::span<Word> all,
                                        const core::RowRange& rows) const;
    void take_exchanged(const Panel& panel, const core::RowRange& rows) const;
    void encode_shared(const core::RowRange& rows, const kernels::StripeDone& stripe_done) const;
};

}  // namespace refit::trainer
