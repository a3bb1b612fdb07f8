// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The fast path without its instructions: how a matrix is cut up, copied ahead, looked up and
// streamed out. An instruction set (avx2.cpp, avx512_vbmi.cpp) supplies vectors, the table of a
// tile and the encoders.
//
// Every source that includes this file is compiled for a processor of its own. So nothing here may
// become an inline function that the linker picks for another processor: the templates take an
// instruction set of an unnamed namespace, and no inline function of a shared header is called.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/cpu/power_entries.hpp"
#include "kernels/cpu/tile_walk.hpp"

namespace refit::kernels::cpu {
namespace {

/// Tiles with fewer elements than this in a patch do not repay the table.
constexpr std::int64_t kTableElements = 512;
/// Rows of tiles 128 columns wide take panels of this many tiles: 128 rows of it are 128 KiB, and
/// two such copies stay in L2.
constexpr std::int64_t kPipelineTiles = 4;
constexpr std::int64_t kPipelineCols = kPipelineTiles * 128;
/// Rows that the next panel is fetched ahead of its use: the hardware does not follow a panel's
/// short rows by itself. More rows than half the ways of L1 evict each other where the stride is a
/// power of two; 12 rows were a fifth slower than 4 on a Zen 3 core with 16,384 x 8,192 elements.
constexpr std::int64_t kPrefetchRows = 4;
/// Tiles of a patch whose tables are held at once.
constexpr std::int64_t kChunkTiles = 16;
constexpr std::uint32_t kInfBits = 0x7f800000;

/// Storage of the copies: whole cache lines.
struct alignas(64) CacheLine {
    std::uint16_t values[32];
};

constexpr std::int64_t smaller(std::int64_t a, std::int64_t b) {
    return a < b ? a : b;
}

/// numerics::hides_nonfinite, which must not be emitted from here.
constexpr bool can_hide_nonfinite(const numerics::TileScaling& scaling) {
    return scaling.nonfinite_input != numerics::NonfiniteInput::propagate;
}

/// The next panel on its way into cache: 128 columns of a row at a time are copied, and the largest
/// magnitude of each tile and the smallest of each step are kept. The copy is dense: rows of a
/// matrix whose stride is a power of two evict each other.
template <typename Isa>
struct PanelReader {
    using Words = typename Isa::Words;
    const std::uint16_t* source;  ///< first element of the panel
    std::int64_t row_stride;
    std::int64_t rows;
    std::uint16_t* copy;  ///< [rows, kPipelineCols], 64-byte aligned
    Words* least;         ///< [rows, kPipelineTiles] smallest magnitudes, lane by lane
    Words largest[kPipelineTiles];

    void start(const std::uint16_t* panel, std::uint16_t* target, Words* smallest) {
        source = panel;
        copy = target;
        least = smallest;
        for (Words& value : largest) {
            value = Isa::zero();
        }
    }

    /// Step k of rows * kPipelineTiles.
    [[gnu::always_inline]] void step(std::int64_t k) {
        const std::int64_t row = k / kPipelineTiles;
        const std::int64_t tile = k % kPipelineTiles;
        const std::uint16_t* x = source + row * row_stride + tile * 128;
        if (row + kPrefetchRows < rows) {
            const std::uint16_t* ahead = x + kPrefetchRows * row_stride;
            for (std::int64_t line = 0; line < 128; line += 32) {
                __builtin_prefetch(ahead + line, 0, 3);
            }
        }
        Isa::copy128(x, copy + row * kPipelineCols + tile * 128, largest[tile], least[k]);
    }
};

/// A CPU backend made of the inner loops of one instruction set. Isa has:
/// Words, zero(), largest_word(Words): vectors of magnitudes;
/// row_max(x, count): largest magnitude as F32 bits;
/// tile_row_max(x, Words&): 128 columns;
/// copy128(x, to, largest, least): a step of the reader;
/// Plain(scaling, factor): F32 quotients; Table, build_table(), Encoder(table): the table of a
/// tile; kCodes: codes an encode() gives; store<streaming>(to, codes);
/// encode_tile_row<streaming>(encoder, plain, x, to) and ..(encoder, to, x) without a question;
/// power_tile<streaming>(entry, x, to): 32 codes, false where an element needs Plain.
template <typename Isa>
class SimdBackend final : public TileWalk {
    using Words = typename Isa::Words;
    using Plain = typename Isa::Plain;
    using Table = typename Isa::Table;
    using Encoder = typename Isa::Encoder;

 public:
    [[nodiscard]] std::string_view name() const override { return Isa::kName; }

    [[nodiscard]] std::uint32_t max_abs_bits(const std::uint16_t* values,
                                             std::int64_t count) const override {
        return Isa::row_max(values, count);
    }

    [[nodiscard]] std::int64_t count_nan_codes(const std::uint8_t* codes,
                                               std::int64_t count) const override {
        return Isa::count_nan_codes(codes, count);
    }

 protected:
    void patch_amax(const numerics::TileScaling& scaling, const TileGrid& grid, const Band& band,
                    const Patch& patch, std::uint32_t* amax_row) const override {
        for (std::int64_t first = patch.tile_begin; first < patch.tile_end; first += kChunkTiles) {
            chunk_amax(scaling, grid, band, patch, first,
                       smaller(first + kChunkTiles, patch.tile_end), amax_row);
        }
    }

    void patch_encode(const numerics::TileScaling& scaling, const TileGrid& grid, const Band& band,
                      const Patch& patch, const std::uint32_t* amax_row, std::uint8_t* codes,
                      std::int64_t code_stride, bool streaming) const override {
        const bool can_stream =
            streaming && streams(codes, code_stride) && grid.tile_cols % Isa::kCodes == 0;
        const PowerEntry* entries = grid.tile_cols == 32 ? power_entries(scaling) : nullptr;
        if (entries != nullptr) {
            for (std::int64_t row = patch.row_begin; row < patch.row_end; ++row) {
                const std::int64_t local = row - band.row_begin;
                const auto encode_power_row =
                    streaming && streams(codes, code_stride) ? power_row<true> : power_row<false>;
                encode_power_row(scaling, entries, band.data + local * band.row_stride, band.cols,
                                 patch, amax_row, codes + local * code_stride);
            }
        } else {
            for (std::int64_t t = patch.tile_begin; t < patch.tile_end; t += kChunkTiles) {
                const Patch chunk{patch.row_begin, patch.row_end, t,
                                  smaller(t + kChunkTiles, patch.tile_end)};
                chunk_encode(scaling, grid, band, chunk, amax_row, codes, code_stride, can_stream);
            }
        }
        Isa::store_fence();  // the codes are visible to whoever is told that the stripe is done
    }

    void quantize_grid_row(const numerics::TileScaling& scaling, const TileGrid& grid,
                           const Band& band, std::int64_t grid_row, std::int64_t row_begin,
                           std::int64_t row_end, std::uint32_t* amax_row, float* scale_row,
                           std::uint8_t* codes, std::int64_t code_stride,
                           bool streaming) const override {
        const std::int64_t rows = row_end - row_begin;
        const std::int64_t panels =
            grid.tile_cols == 128 && rows >= 8 ? band.cols / kPipelineCols : 0;
        const Patch whole{row_begin, row_end, 0, panels * kPipelineTiles};
        if (panels > 0) {
            pipeline(scaling, grid, band, grid_row, whole, amax_row, scale_row, codes, code_stride,
                     streaming);
        }
        // The columns that do not fill a panel, and tiles of another width.
        Patch patch = whole;
        const std::int64_t panel_tiles =
            kPanelCols / grid.tile_cols > 1 ? kPanelCols / grid.tile_cols : 1;
        for (std::int64_t t = whole.tile_end; t < grid.grid_cols; t = patch.tile_end) {
            patch.tile_begin = t;
            patch.tile_end = smaller(t + panel_tiles, grid.grid_cols);
            patch_amax(scaling, grid, band, patch, amax_row);
            pad_edge(scaling, grid, band, grid_row, t, patch.tile_end, amax_row);
            const PowerEntry* entries = power_entries(scaling);
            for (std::int64_t i = t; i < patch.tile_end; ++i) {
                scale_row[i] = entries != nullptr ? entries[amax_row[i] >> 16].scale_inv
                                                  : tile_factor_of(scaling, amax_row[i]).scale_inv;
            }
            patch_encode(scaling, grid, band, patch, amax_row, codes, code_stride, streaming);
        }
    }

 private:
    static bool streams(const std::uint8_t* codes, std::int64_t code_stride) {
        return code_stride % Isa::kCodes == 0 &&
               reinterpret_cast<std::uintptr_t>(codes) % Isa::kCodes == 0;
    }

    static std::int64_t width_of(const TileGrid& grid, const Band& band, std::int64_t tile) {
        return smaller(grid.tile_cols, band.cols - tile * grid.tile_cols);
    }

    /// At most kChunkTiles tiles of a patch, row by row.
    static void chunk_encode(const numerics::TileScaling& scaling, const TileGrid& grid,
                             const Band& band, const Patch& chunk, const std::uint32_t* amax_row,
                             std::uint8_t* codes, std::int64_t code_stride, bool can_stream) {
        Table tables[kChunkTiles];
        Plain plain[kChunkTiles];
        const std::int64_t rows = chunk.row_end - chunk.row_begin;
        for (std::int64_t t = chunk.tile_begin; t < chunk.tile_end; ++t) {
            const std::int64_t i = t - chunk.tile_begin;
            plain[i] = Isa::make_plain(scaling, tile_factor_of(scaling, amax_row[t]));
            tables[i].smallest = 0x7fff;
            if (width_of(grid, band, t) * rows >= kTableElements) {
                Isa::build_table(plain[i], amax_row[t], tables[i]);
            }
        }
        for (std::int64_t row = chunk.row_begin; row < chunk.row_end; ++row) {
            const std::int64_t local = row - band.row_begin;
            const std::uint16_t* source = band.data + local * band.row_stride;
            std::uint8_t* target = codes + local * code_stride;
            for (std::int64_t t = chunk.tile_begin; t < chunk.tile_end; ++t) {
                const std::int64_t i = t - chunk.tile_begin;
                const std::int64_t begin = t * grid.tile_cols;
                const auto encode_tile_row = can_stream ? encode_row<true> : encode_row<false>;
                encode_tile_row(tables[i], plain[i], source + begin, width_of(grid, band, t),
                                target + begin);
            }
        }
    }

    /// `count` values from `source` on; without a table all take the plain path.
    template <bool kStreaming>
    static void encode_row(const Table& table, const Plain& plain, const std::uint16_t* source,
                           std::int64_t count, std::uint8_t* target) {
        const bool has_table =
            table.smallest != 0x7fff &&
            !(plain.hides_nonfinite() && Isa::row_max(source, count) >= kInfBits);
        const Encoder encoder(table);
        std::int64_t i = 0;
        if (has_table) {
            for (; i + 128 <= count; i += 128) {
                Isa::template encode_tile_row<kStreaming>(encoder, plain, source + i, target + i);
            }
        }
        for (; i + Isa::kCodes <= count; i += Isa::kCodes) {
            Isa::template store<kStreaming>(target + i, has_table
                                                            ? encoder.encode(source + i, plain)
                                                            : plain.encode(source + i));
        }
        if (i < count) {
            // Padded with an element of the row: the padding does not choose the plain path.
            alignas(64) std::uint16_t rest[Isa::kCodes];
            alignas(64) std::uint8_t rest_codes[Isa::kCodes];
            for (std::int64_t k = 0; k < Isa::kCodes; ++k) {
                rest[k] = source[i + k < count ? i + k : i];
            }
            Isa::template store<false>(
                rest_codes, has_table ? encoder.encode(rest, plain) : plain.encode(rest));
            std::memcpy(target + i, rest_codes, static_cast<std::size_t>(count - i));
        }
    }

    /// Tiles of 32 columns of one row whose scale is a power of two: rounding the significand is
    /// all there is to do.
    template <bool kStreaming>
    static void power_row(const numerics::TileScaling& scaling, const PowerEntry* entries,
                          const std::uint16_t* source, std::int64_t cols, const Patch& patch,
                          const std::uint32_t* amax_row, std::uint8_t* target) {
        const std::int64_t full = smaller(patch.tile_end, cols / 32);
        for (std::int64_t t = patch.tile_begin; t < full; ++t) {
            const PowerEntry& entry = entries[amax_row[t] >> 16];
            if (!Isa::template power_tile<kStreaming>(entry, source + t * 32, target + t * 32))
                [[unlikely]] {
                Isa::plain32(Isa::make_plain(scaling, tile_factor_of(scaling, amax_row[t])),
                             source + t * 32, target + t * 32);
            }
        }
        if (full < patch.tile_end) {
            const Plain plain = Isa::make_plain(scaling, tile_factor_of(scaling, amax_row[full]));
            std::uint16_t rest[32] = {};
            std::uint8_t rest_codes[32];
            const auto count = static_cast<std::size_t>(cols - full * 32);
            std::memcpy(rest, source + full * 32, count * sizeof(std::uint16_t));
            Isa::plain32(plain, rest, rest_codes);
            std::memcpy(target + full * 32, rest_codes, count);
        }
    }

    /// What the pipeline keeps from call to call: fresh pages would cost more than the work.
    struct Workspace {
        std::vector<CacheLine> lines;
        std::uint16_t* copy[2] = {nullptr, nullptr};
        Words* least[2] = {nullptr, nullptr};

        void reserve(std::int64_t rows) {
            const std::int64_t copy_lines = rows * kPipelineCols / 32;
            const std::int64_t least_lines =
                rows * kPipelineTiles * static_cast<std::int64_t>(sizeof(Words)) / 64;
            const auto needed = static_cast<std::size_t>(2 * (copy_lines + least_lines + 1));
            if (lines.size() < needed) {
                lines.resize(needed);
            }
            for (int i = 0; i < 2; ++i) {
                CacheLine* begin = lines.data() + i * (copy_lines + least_lines + 1);
                copy[i] = begin->values;
                least[i] = reinterpret_cast<Words*>(begin + copy_lines);
            }
        }
    };

    /// Encodes one panel from its copy while the next one is read: arithmetic and memory overlap.
    /// `whole`: tiles [0, panels * kPipelineTiles) of a grid row.
    static void pipeline(const numerics::TileScaling& scaling, const TileGrid& grid,
                         const Band& band, std::int64_t grid_row, const Patch& whole,
                         std::uint32_t* amax_row, float* scale_row, std::uint8_t* codes,
                         std::int64_t code_stride, bool streaming) {
        thread_local Workspace space;
        const std::int64_t rows = whole.row_end - whole.row_begin;
        space.reserve(rows);
        const std::int64_t local = whole.row_begin - band.row_begin;
        const std::uint16_t* source = band.data + local * band.row_stride;
        std::uint8_t* target = codes + local * code_stride;
        const bool can_stream = streaming && streams(codes, code_stride);
        PanelReader<Isa> reader;
        reader.row_stride = band.row_stride;
        reader.rows = rows;
        reader.start(source, space.copy[0], space.least[0]);
        for (std::int64_t k = 0; k < rows * kPipelineTiles; ++k) {
            reader.step(k);
        }
        for (std::int64_t first = 0; first < whole.tile_end; first += kPipelineTiles) {
            const int now = static_cast<int>((first / kPipelineTiles) % 2);
            bool finite[kPipelineTiles];
            for (std::int64_t t = 0; t < kPipelineTiles; ++t) {
                std::uint32_t bits = Isa::largest_word(reader.largest[t]) << 16;
                finite[t] = bits < kInfBits;
                if (!finite[t] && can_hide_nonfinite(scaling)) [[unlikely]] {
                    bits = copied_amax(scaling, space.copy[now] + t * 128, rows);
                }
                amax_row[first + t] = bits;
            }
            pad_edge(scaling, grid, band, grid_row, first, first + kPipelineTiles, amax_row);
            const bool has_next = first + kPipelineTiles < whole.tile_end;
            if (has_next) {
                reader.start(source + (first + kPipelineTiles) * 128, space.copy[1 - now],
                             space.least[1 - now]);
            }
            for (std::int64_t t = 0; t < kPipelineTiles; ++t) {
                const numerics::TileFactor factor = tile_factor_of(scaling, amax_row[first + t]);
                scale_row[first + t] = factor.scale_inv;
                const Plain plain = Isa::make_plain(scaling, factor);
                Table table;
                table.smallest = 0x7fff;
                if (rows * 128 >= kTableElements && finite[t]) {
                    Isa::build_table(plain, amax_row[first + t], table);
                }
                const auto encode_whole = can_stream ? encode_tile<true> : encode_tile<false>;
                encode_whole(table, plain, space.copy[now] + t * 128, space.least[now] + t, rows,
                             target + (first + t) * 128, code_stride, reader,
                             has_next ? t * rows : -1);
            }
        }
        if (can_stream) {
            Isa::store_fence();
        }
    }

    static std::uint32_t copied_amax(const numerics::TileScaling& scaling,
                                     const std::uint16_t* tile, std::int64_t rows) {
        std::uint32_t bits = 0;
        for (std::int64_t row = 0; row < rows; ++row) {
            const std::uint32_t part = max_amax_part(scaling, tile + row * kPipelineCols, 128);
            bits = part > bits ? part : bits;
        }
        return bits;
    }

    /// One tile from the dense copy; step `next_step` + row of the next panel after each row.
    template <bool kStreaming>
    static void encode_tile(const Table& table, const Plain& plain, const std::uint16_t* from,
                            const Words* least, std::int64_t rows, std::uint8_t* to,
                            std::int64_t code_stride, PanelReader<Isa>& reader,
                            std::int64_t next_step) {
        const bool has_table = table.smallest != 0x7fff;
        const Encoder encoder(table);
        for (std::int64_t row = 0; row < rows; ++row) {
            const std::uint16_t* x = from + row * kPipelineCols;
            std::uint8_t* y = to + row * code_stride;
            // Most rows have no value below the table: one question for all 128 columns.
            if (has_table && encoder.covers(least[row * kPipelineTiles])) [[likely]] {
#pragma GCC unroll 4
                for (int i = 0; i < 128; i += Isa::kCodes) {
                    Isa::template store<kStreaming>(y + i, encoder.look_up(x + i));
                }
            } else {
                for (int i = 0; i < 128; i += Isa::kCodes) {
                    Isa::template store<kStreaming>(
                        y + i, has_table ? encoder.encode(x + i, plain) : plain.encode(x + i));
                }
            }
            if (next_step >= 0) {
                reader.step(next_step + row);
            }
        }
    }

    /// Row by row over at most kChunkTiles tiles: memory is read in the order in which it lies.
    static void chunk_amax(const numerics::TileScaling& scaling, const TileGrid& grid,
                           const Band& band, const Patch& patch, std::int64_t first,
                           std::int64_t last, std::uint32_t* amax_row) {
        Words largest[kChunkTiles];
        for (Words& value : largest) {
            value = Isa::zero();
        }
        for (std::int64_t row = patch.row_begin; row < patch.row_end; ++row) {
            const std::uint16_t* source = band.data + (row - band.row_begin) * band.row_stride;
            for (std::int64_t t = first; t < last; ++t) {
                const std::uint16_t* x = source + t * grid.tile_cols;
                const std::int64_t width = width_of(grid, band, t);
                if (width == 128 && grid.tile_cols == 128) {
                    Isa::tile_row_max(x, largest[t - first]);
                } else {
                    std::uint32_t bits = width == 32 ? Isa::max32(x) : Isa::row_max(x, width);
                    if (bits >= kInfBits && can_hide_nonfinite(scaling)) [[unlikely]] {
                        bits = max_amax_part(scaling, x, width);
                    }
                    amax_row[t] = bits > amax_row[t] ? bits : amax_row[t];
                }
            }
        }
        if (grid.tile_cols != 128) {
            return;
        }
        for (std::int64_t t = first; t < last; ++t) {
            std::uint32_t bits = Isa::largest_word(largest[t - first]) << 16;
            if (bits >= kInfBits && can_hide_nonfinite(scaling)) [[unlikely]] {
                bits = 0;
                for (std::int64_t row = patch.row_begin; row < patch.row_end; ++row) {
                    const std::uint16_t* source =
                        band.data + (row - band.row_begin) * band.row_stride + t * grid.tile_cols;
                    const std::uint32_t part = max_amax_part(scaling, source, 128);
                    bits = part > bits ? part : bits;
                }
            }
            amax_row[t] = bits > amax_row[t] ? bits : amax_row[t];
        }
    }
};

}  // namespace
}  // namespace refit::kernels::cpu
