// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Tiles of 128 x 128 from memory: the amax of a tile is known only when its last row is there, so
// each element is read twice. The pipeline encodes one stripe of 128 rows, 128 columns at a time,
// and between two such steps looks at 128 columns of the stripe after it: arithmetic, the second
// read (from cache) and the first read of the next stripe (from memory) overlap.
//
// Whole rows are read, because memory likes long runs and rows of a power-of-two stride would evict
// each other from a nearer cache if a narrow panel were kept there instead. Both reads are fetched
// ahead. See simd_backend.hpp for what code in this file must not do.
#pragma once

#include <cstdint>

#include "kernels/cpu/tile_walk.hpp"

namespace refit::kernels::cpu {
namespace {

/// Tiles with fewer elements than this in a patch do not repay the table.
constexpr std::int64_t kTableElements = 512;
constexpr std::uint32_t kInfBits = 0x7f800000;
/// Tiles of a panel: wider stripes (more than 8,192 columns, 2 MiB) would leave the cache before
/// they are read again.
constexpr std::int64_t kMaxPanelTiles = 64;
/// How many steps of 128 columns the reads are ahead of their use.
constexpr std::int64_t kScanAhead = 16;
constexpr std::int64_t kEncodeAhead = 8;

constexpr std::int64_t smaller(std::int64_t a, std::int64_t b) {
    return a < b ? a : b;
}

/// numerics::hides_nonfinite, which must not be emitted from here.
constexpr bool can_hide_nonfinite(const numerics::TileScaling& scaling) {
    return scaling.nonfinite_input != numerics::NonfiniteInput::propagate;
}

/// The panels of a call, stripe after stripe and from left to right.
struct PanelOrder {
    const std::uint16_t* source = nullptr;  ///< first element of the first stripe
    std::int64_t row_stride = 0;
    std::int64_t rows = 0;   ///< of all stripes
    std::int64_t tiles = 0;  ///< whole tiles of a row
    std::int64_t panels_per_stripe = 1;
    std::int64_t panels = 0;

    struct Panel {
        const std::uint16_t* source = nullptr;
        std::int64_t stripe = 0;
        std::int64_t first_tile = 0;
        std::int64_t tiles = 0;
        std::int64_t rows = 0;
    };

    /// Empty behind the last one.
    [[nodiscard]] Panel panel(std::int64_t index) const {
        if (index >= panels) {
            return {};
        }
        const std::int64_t stripe = index / panels_per_stripe;
        const std::int64_t place = index % panels_per_stripe;
        const std::int64_t begin = tiles * place / panels_per_stripe;
        const std::int64_t end = tiles * (place + 1) / panels_per_stripe;
        return {source + stripe * 128 * row_stride + begin * 128, stripe, begin, end - begin,
                smaller(128, rows - stripe * 128)};
    }
};

/// One row of a panel, whose steps fetch what comes `ahead` steps later, at the end from the row
/// after it.
class FetchedRow {
 public:
    FetchedRow(const std::uint16_t* row, const std::uint16_t* next_row, std::int64_t tiles,
               std::int64_t ahead)
        : row_(row),
          ahead_(smaller(ahead, tiles)),
          same_row_(tiles - ahead_),
          row_at_(reinterpret_cast<std::uintptr_t>(row) + bytes(ahead_)),
          next_at_(reinterpret_cast<std::uintptr_t>(next_row) - bytes(same_row_)) {}

    /// 128 columns.
    [[gnu::always_inline]] const std::uint16_t* step(std::int64_t tile) const {
        const std::uintptr_t at = (tile < same_row_ ? row_at_ : next_at_) + bytes(tile);
        for (std::uintptr_t line = 0; line < bytes(1); line += 64) {
            __builtin_prefetch(reinterpret_cast<const void*>(at + line));
        }
        return row_ + tile * 128;
    }

 private:
    const std::uint16_t* row_;
    std::int64_t ahead_;
    std::int64_t same_row_;  ///< steps that fetch from the row itself
    std::uintptr_t row_at_;
    std::uintptr_t next_at_;

    static constexpr std::uintptr_t bytes(std::int64_t tiles) {
        return static_cast<std::uintptr_t>(tiles) * 128 * sizeof(std::uint16_t);
    }
};

/// Isa as described in simd_backend.hpp. All grid rows of a call, one quantize_stripe() each, over
/// the whole tiles of its columns.
template <typename Isa>
class StripePipeline {
    using Words = typename Isa::Words;
    using Plain = typename Isa::Plain;
    using Table = typename Isa::Table;
    using Encoder = typename Isa::Encoder;

 public:
    StripePipeline(const numerics::TileScaling& scaling, const TileGrid& grid, const Band& band,
                   const Quantized& out, std::int64_t first, std::int64_t last)
        : scaling_(scaling),
          grid_(grid),
          band_(band),
          out_(out),
          first_(first),
          order_(order_of(grid, band, first, last)) {
        for (std::uint32_t& amax_bits : known_amax_) {
            amax_bits = 0xffffffff;  // of no tile
        }
        run<false>({}, order_.panel(0), 0);
    }

    template <bool kStreaming>
    void quantize_stripe() {
        for (std::int64_t i = 0; i < order_.panels_per_stripe; ++i, ++panel_) {
            const PanelOrder::Panel now = order_.panel(panel_);
            prepare(now);
            run<kStreaming>(now, order_.panel(panel_ + 1), panel_ + 1);
        }
    }

 private:
    const numerics::TileScaling& scaling_;
    const TileGrid& grid_;
    const Band& band_;
    const Quantized& out_;
    std::int64_t first_;
    PanelOrder order_;
    std::int64_t panel_ = 0;
    /// What an amax makes of a tile. Weights have few: 128 significands times some exponents.
    struct Known {
        float scale_inv;
        Plain plain;
        Table table;
    };
    static constexpr std::size_t kKnown = 256;
    std::uint32_t known_amax_[kKnown];
    Known known_[kKnown];
    Words largest_[kMaxPanelTiles];
    Table tables_[kMaxPanelTiles];
    Plain plain_[kMaxPanelTiles];
    /// Rows whose smallest magnitude is below take the slow path; 0x8000: all rows do.
    std::int32_t least_covered_[kMaxPanelTiles];
    /// [rows, tiles] of the panel being encoded and of the one being scanned.
    std::uint16_t smallest_[2][128 * kMaxPanelTiles];

    static PanelOrder order_of(const TileGrid& grid, const Band& band, std::int64_t first,
                               std::int64_t last) {
        PanelOrder order;
        order.row_stride = band.row_stride;
        order.source = band.data + (first * grid.tile_rows - band.row_begin) * band.row_stride;
        order.rows = smaller(band.row_begin + band.row_count, last * grid.tile_rows) -
                     first * grid.tile_rows;
        order.tiles = band.cols / 128;
        order.panels_per_stripe = (order.tiles + kMaxPanelTiles - 1) / kMaxPanelTiles;
        order.panels = (last - first) * order.panels_per_stripe;
        return order;
    }

    [[nodiscard]] const Known& known_of(std::uint32_t amax_bits) {
        const std::size_t place = (amax_bits >> 16) % kKnown;
        Known& known = known_[place];
        if (known_amax_[place] != amax_bits) {
            known_amax_[place] = amax_bits;
            const numerics::TileFactor factor = tile_factor_of(scaling_, amax_bits);
            known.scale_inv = factor.scale_inv;
            known.plain = Isa::make_plain(scaling_, factor);
            known.table.smallest = 0x7fff;
            if (amax_bits < kInfBits) {
                Isa::build_table(known.plain, amax_bits, known.table);
            }
        }
        return known;
    }

    /// Amax, scales and tables of a panel that is scanned.
    void prepare(const PanelOrder::Panel& panel) {
        const GridRow row = grid_row(grid_, band_, out_, first_, first_ + panel.stripe);
        bool finite[kMaxPanelTiles];
        for (std::int64_t t = 0; t < panel.tiles; ++t) {
            std::uint32_t bits = Isa::largest_word(largest_[t]) << 16;
            finite[t] = bits < kInfBits;
            if (!finite[t] && can_hide_nonfinite(scaling_)) [[unlikely]] {
                bits = amax_part(panel, t);
            }
            row.amax_bits[panel.first_tile + t] = bits;
        }
        pad_edge(scaling_, grid_, band_, row.index, panel.first_tile,
                 panel.first_tile + panel.tiles, row.amax_bits);
        for (std::int64_t t = 0; t < panel.tiles; ++t) {
            const std::uint32_t amax = row.amax_bits[panel.first_tile + t];
            const Known& known = known_of(amax);
            row.scale_inv[panel.first_tile + t] = known.scale_inv;
            plain_[t] = known.plain;
            tables_[t].smallest = 0x7fff;
            if (panel.rows * 128 >= kTableElements && finite[t]) {
                tables_[t] = known.table;
            }
            least_covered_[t] = tables_[t].smallest == 0x7fff ? 0x8000 : tables_[t].smallest;
        }
    }

    [[nodiscard]] std::uint32_t amax_part(const PanelOrder::Panel& panel, std::int64_t tile) const {
        std::uint32_t bits = 0;
        for (std::int64_t row = 0; row < panel.rows; ++row) {
            const std::uint32_t part =
                max_amax_part(scaling_, panel.source + row * order_.row_stride + tile * 128, 128);
            bits = part > bits ? part : bits;
        }
        return bits;
    }

    /// Row `row` of a panel; behind the last one comes the first of `after`.
    [[nodiscard]] FetchedRow row_of(const PanelOrder::Panel& panel, std::int64_t row,
                                    const PanelOrder::Panel& after, std::int64_t ahead) const {
        if (row >= panel.rows) {
            return {nullptr, nullptr, 0, 0};
        }
        const std::uint16_t* at = panel.source + row * order_.row_stride;
        const std::uint16_t* next = at;
        if (row + 1 < panel.rows) {
            next = at + order_.row_stride;
        } else if (after.rows > 0) {
            next = after.source;
        }
        return {at, next, panel.tiles, ahead};
    }

    /// Encodes `now` and scans `next`, which has number `next_index`, step by step in turn. Either
    /// may be empty; they may differ by a tile, and the last stripe may have fewer rows.
    template <bool kStreaming>
    void run(const PanelOrder::Panel& now, const PanelOrder::Panel& next, std::int64_t next_index) {
        for (Words& value : largest_) {
            value = Isa::zero();
        }
        const PanelOrder::Panel behind = order_.panel(next_index + 1);
        const std::uint16_t* smallest = smallest_[(next_index + 1) % 2];
        std::uint16_t* scanned = smallest_[next_index % 2];
        std::uint8_t* codes = out_.codes +
                              ((first_ + now.stripe) * 128 - band_.row_begin) * out_.code_stride +
                              now.first_tile * 128;
        const std::int64_t rows = now.rows > next.rows ? now.rows : next.rows;
        for (std::int64_t row = 0; row < rows; ++row) {
            const std::int64_t encodes = row < now.rows ? now.tiles : 0;
            const std::int64_t scans = row < next.rows ? next.tiles : 0;
            const FetchedRow from = row_of(now, row, next, kEncodeAhead);
            const FetchedRow ahead = row_of(next, row, behind, kScanAhead);
            const std::int64_t both = smaller(encodes, scans);
            std::int64_t t = 0;
            for (; t < both; ++t) {
                scanned[t] = Isa::scan128(ahead.step(t), largest_[t]);
                encode_step<kStreaming>(t, smallest[t], from.step(t), codes + t * 128);
            }
            for (; t < scans; ++t) {
                scanned[t] = Isa::scan128(ahead.step(t), largest_[t]);
            }
            for (; t < encodes; ++t) {
                encode_step<kStreaming>(t, smallest[t], from.step(t), codes + t * 128);
            }
            smallest += now.tiles;
            scanned += next.tiles;
            codes += out_.code_stride;
        }
    }

    template <bool kStreaming>
    [[gnu::always_inline]] void encode_step(std::int64_t t, std::uint16_t smallest,
                                            const std::uint16_t* source,
                                            std::uint8_t* target) const {
        // Most rows have no value below the table: one question for all 128 columns.
        if (smallest >= least_covered_[t]) [[likely]] {
            const Encoder encoder(tables_[t]);
#pragma GCC unroll 4
            for (int i = 0; i < 128; i += Isa::kCodes) {
                Isa::template store<kStreaming>(target + i, encoder.look_up(source + i));
            }
        } else {
            encode_some<kStreaming>(t, source, target);
        }
    }

    /// 128 columns of which the table does not cover all.
    template <bool kStreaming>
    [[gnu::noinline]] void encode_some(std::int64_t tile, const std::uint16_t* x,
                                       std::uint8_t* y) const {
        const bool has_table = tables_[tile].smallest != 0x7fff;
        const Encoder encoder(tables_[tile]);
        for (int i = 0; i < 128; i += Isa::kCodes) {
            Isa::template store<kStreaming>(y + i, has_table ? encoder.encode(x + i, plain_[tile])
                                                             : plain_[tile].encode(x + i));
        }
    }
};

}  // namespace
}  // namespace refit::kernels::cpu
