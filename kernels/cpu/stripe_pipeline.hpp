// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Tiles of 128 x 128 from memory: the amax of a tile is known only when its last row is there, so
// each element is read twice. The pipeline encodes one stripe of 128 rows, 128 columns at a time,
// and between two such steps looks at 128 columns of the stripe after it: arithmetic, the second
// read (from cache) and the first read of the next stripe (from memory) overlap.
//
// Whole rows are read, because memory likes long runs and rows of a power-of-two stride would evict
// each other from a nearer cache if a narrow panel were kept there instead. See simd_backend.hpp
// for what code in this file must not do.
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
        const std::uint16_t* source;
        std::int64_t stripe;
        std::int64_t first_tile;
        std::int64_t tiles;
        std::int64_t rows;
    };

    [[nodiscard]] Panel panel(std::int64_t index) const {
        const std::int64_t stripe = index / panels_per_stripe;
        const std::int64_t place = index % panels_per_stripe;
        const std::int64_t begin = tiles * place / panels_per_stripe;
        const std::int64_t end = tiles * (place + 1) / panels_per_stripe;
        return {source + stripe * 128 * row_stride + begin * 128, stripe, begin, end - begin,
                smaller(128, rows - stripe * 128)};
    }
};

/// Steps of 128 columns through all panels; stays at the last one.
class PanelWalk {
 public:
    PanelWalk(const PanelOrder& order, std::int64_t ahead) : order_(order) {
        open(0);
        for (std::int64_t i = 0; i < ahead; ++i) {
            next();
        }
    }

    [[gnu::always_inline]] const std::uint16_t* next() {
        const std::uint16_t* at = row_ + tile_ * 128;
        if (++tile_ == tiles_) [[unlikely]] {
            wrap();
        }
        return at;
    }

    [[gnu::always_inline]] void fetch_next() {
        const std::uint16_t* at = next();
        for (std::int64_t line = 0; line < 128; line += 32) {
            __builtin_prefetch(at + line, 0, 2);
        }
    }

 private:
    const PanelOrder& order_;
    const std::uint16_t* row_ = nullptr;
    std::int64_t tile_ = 0;
    std::int64_t tiles_ = 0;
    std::int64_t rows_left_ = 0;
    std::int64_t panel_ = 0;

    void open(std::int64_t index) {
        const PanelOrder::Panel panel = order_.panel(index);
        panel_ = index;
        row_ = panel.source;
        tile_ = 0;
        tiles_ = panel.tiles;
        rows_left_ = panel.rows;
    }

    [[gnu::noinline]] void wrap() {
        if (--rows_left_ > 0) {
            row_ += order_.row_stride;
            tile_ = 0;
        } else if (panel_ + 1 < order_.panels) {
            open(panel_ + 1);
        } else {
            rows_left_ = 1;
            tile_ = tiles_ - 1;
        }
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
          order_(order_of(grid, band, first, last)),
          to_scan_(order_, 0),
          scan_ahead_(order_, kScanAhead),
          encode_ahead_(order_, kEncodeAhead) {
        start_scan(0);
        finish_scan();
    }

    template <bool kStreaming>
    void quantize_stripe() {
        for (std::int64_t i = 0; i < order_.panels_per_stripe; ++i, ++panel_) {
            const PanelOrder::Panel now = order_.panel(panel_);
            prepare(now);
            const std::uint16_t* smallest = smallest_[panel_ % 2];
            start_scan(panel_ + 1);
            encode_panel<kStreaming>(now, smallest);
            finish_scan();
        }
    }

 private:
    const numerics::TileScaling& scaling_;
    const TileGrid& grid_;
    const Band& band_;
    const Quantized& out_;
    std::int64_t first_;
    PanelOrder order_;
    PanelWalk to_scan_;
    PanelWalk scan_ahead_;
    PanelWalk encode_ahead_;
    std::int64_t panel_ = 0;
    std::int64_t scan_tile_ = 0;
    std::int64_t scan_tiles_ = 0;
    std::int64_t scan_left_ = 0;
    std::uint16_t* scanned_ = nullptr;
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

    void start_scan(std::int64_t index) {
        for (Words& value : largest_) {
            value = Isa::zero();
        }
        scan_tile_ = 0;
        scan_left_ = 0;
        if (index < order_.panels) {
            const PanelOrder::Panel panel = order_.panel(index);
            scan_tiles_ = panel.tiles;
            scan_left_ = panel.rows * panel.tiles;
            scanned_ = smallest_[index % 2];
        }
    }

    [[gnu::always_inline]] void scan_step() {
        scan_ahead_.fetch_next();
        *scanned_++ = Isa::scan128(to_scan_.next(), largest_[scan_tile_]);
        if (++scan_tile_ == scan_tiles_) {
            scan_tile_ = 0;
        }
        --scan_left_;
    }

    void finish_scan() {
        while (scan_left_ > 0) {
            scan_step();
        }
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
            const numerics::TileFactor factor = tile_factor_of(scaling_, amax);
            row.scale_inv[panel.first_tile + t] = factor.scale_inv;
            plain_[t] = Isa::make_plain(scaling_, factor);
            tables_[t].smallest = 0x7fff;
            if (panel.rows * 128 >= kTableElements && finite[t]) {
                Isa::build_table(plain_[t], amax, tables_[t]);
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

    template <bool kStreaming>
    void encode_panel(const PanelOrder::Panel& panel, const std::uint16_t* smallest) {
        std::uint8_t* codes = out_.codes +
                              ((first_ + panel.stripe) * 128 - band_.row_begin) * out_.code_stride +
                              panel.first_tile * 128;
        for (std::int64_t row = 0; row < panel.rows; ++row) {
            const std::uint16_t* source = panel.source + row * order_.row_stride;
            std::uint8_t* target = codes + row * out_.code_stride;
            for (std::int64_t t = 0; t < panel.tiles; ++t) {
                if (scan_left_ > 0) {
                    scan_step();
                }
                encode_ahead_.fetch_next();
                // Most rows have no value below the table: one question for all 128 columns.
                if (*smallest++ >= least_covered_[t]) [[likely]] {
                    const Encoder encoder(tables_[t]);
#pragma GCC unroll 4
                    for (int i = 0; i < 128; i += Isa::kCodes) {
                        Isa::template store<kStreaming>(target + t * 128 + i,
                                                        encoder.look_up(source + t * 128 + i));
                    }
                } else {
                    encode_some<kStreaming>(t, source + t * 128, target + t * 128);
                }
            }
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
