// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/entry_quantizer.hpp"

namespace refit::trainer {

EntryQuantizer::EntryQuantizer(const kernels::Backend& backend,
                               const numerics::TileScaling& scaling, const EntrySource& source,
                               const ExchangedAmax& exchanged, std::vector<std::uint32_t>& amax,
                               std::vector<float>& scales)
    : backend_(backend),
      scaling_(scaling),
      source_(source),
      exchanged_(exchanged),
      grid_(kernels::tile_grid(scaling, source.meta.rows(), source.meta.cols())),
      first_grid_(source.region.row / grid_.tile_rows),
      panels_(Panel::of(source.region, grid_)) {
    const std::int64_t last_row = source.region.row + source.region.rows - 1;
    const std::int64_t grid_rows = last_row / grid_.tile_rows - first_grid_ + 1;
    std::int64_t words = 0;
    for (const Panel& panel : panels_) words += grid_rows * panel.tiles;
    amax.assign(static_cast<std::size_t>(words), 0);
    scales.resize(amax.size());
    std::size_t next_word = 0;
    for (Panel& panel : panels_) {
        const auto own = static_cast<std::size_t>(grid_rows * panel.tiles);
        panel.amax = std::span(amax).subspan(next_word, own);
        panel.scales = std::span(scales).subspan(next_word, own);
        next_word += own;
    }
}

kernels::Band EntryQuantizer::band(const Panel& panel, const core::RowRange& rows) const {
    const core::Region& region = source_.region;
    const Values from{source_.values.data + (rows.begin - region.row) * source_.values.stride,
                      source_.values.stride};
    return panel.band(from, rows, region.col, source_.meta.rows(), exchanged_.last_element_bits);
}

std::uint8_t* EntryQuantizer::codes(const Panel& panel, std::int64_t row) const {
    const core::Region& region = source_.region;
    return source_.codes + (row - region.row) * region.cols + panel.cols.begin - region.col;
}

template <typename Word>
std::span<Word> EntryQuantizer::words(const Panel& panel, std::span<Word> all,
                                      const core::RowRange& rows) const {
    const std::int64_t first = rows.begin / grid_.tile_rows;
    const std::int64_t count = (rows.end - 1) / grid_.tile_rows - first + 1;
    return all.subspan(static_cast<std::size_t>((first - first_grid_) * panel.tiles),
                       static_cast<std::size_t>(count * panel.tiles));
}

void EntryQuantizer::take_exchanged(const Panel& panel, const core::RowRange& rows) const {
    const std::span<std::uint32_t> amax = words(panel, panel.amax, rows);
    const auto tiles = static_cast<std::size_t>(panel.tiles);
    for (std::size_t g = 0; g * tiles < amax.size(); ++g) {
        exchanged_.copy_row(source_.meta, grid_,
                            rows.begin / grid_.tile_rows + static_cast<std::int64_t>(g),
                            panel.first_tile, amax.subspan(g * tiles, tiles));
    }
}

void EntryQuantizer::encode_shared(const core::RowRange& rows,
                                   const kernels::StripeDone& stripe_done) const {
    for (const Panel& panel : panels_) {
        take_exchanged(panel, rows);
        backend_.scales(scaling_, words<std::uint32_t>(panel, panel.amax, rows),
                        words(panel, panel.scales, rows));
    }
    for (std::int64_t row = rows.begin; row < rows.end;) {
        // Both panels of a stripe before the next one, so that it is hashed in cache.
        const std::int64_t end = std::min(rows.end, (row / kStripeRows + 1) * kStripeRows);
        for (const Panel& panel : panels_) {
            backend_.encode(scaling_, band(panel, {row, end}),
                            words<std::uint32_t>(panel, panel.amax, {row, rows.end}),
                            codes(panel, row), source_.region.cols,
                            [](std::int64_t, std::int64_t) {});
        }
        stripe_done(row, end);
        row = end;
    }
}

void EntryQuantizer::run(const kernels::StripeDone& stripe_done) {
    const std::int64_t last = source_.region.row + source_.region.rows;
    for (std::int64_t row = source_.region.row; row < last;) {
        const bool shared = is_shared(row);
        std::int64_t end = row;
        while (end < last && is_shared(end) == shared)
            end = std::min(last, (end / grid_.tile_rows + 1) * grid_.tile_rows);
        const core::RowRange rows{row, end};
        if (shared) {
            encode_shared(rows, stripe_done);
        } else {
            // A rectangle that begins inside a tile has all its grid rows exchanged.
            const Panel& panel = panels_.front();
            backend_.quantize(scaling_, band(panel, rows), words(panel, panel.amax, rows),
                              words(panel, panel.scales, rows), codes(panel, row),
                              source_.region.cols, stripe_done);
        }
        row = end;
    }
}

}  // namespace refit::trainer
