// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The fast path without its instructions: how a matrix is cut up, looked up and streamed out. An
// instruction set (avx2.cpp, avx512_vbmi.cpp) supplies vectors, the table of a tile and the
// encoders.
//
// Every source that includes this file is compiled for a processor of its own. So nothing here may
// become an inline function that the linker picks for another processor: the templates take an
// instruction set of an unnamed namespace, and no inline function of a shared header is called.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/power_entries.hpp"
#include "kernels/cpu/stripe_pipeline.hpp"
#include "kernels/cpu/tile_walk.hpp"

namespace refit::kernels::cpu {
namespace {

/// Tiles of a patch whose tables are held at once.
constexpr std::int64_t kChunkTiles = 16;
/// Tiles of a patch whose maxima are held at once: long runs of memory are read faster.
constexpr std::int64_t kAmaxTiles = 64;

/// A CPU backend made of the inner loops of one instruction set. Isa has:
/// Words, zero(), largest_word(Words): vectors of magnitudes;
/// row_max(x, count): largest magnitude as F32 bits;
/// tile_row_max(x, Words&): 128 columns;
/// scan128(x, largest): a step of the stripe pipeline;
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
        for (std::int64_t first = patch.tile_begin; first < patch.tile_end; first += kAmaxTiles) {
            chunk_amax(scaling, grid, band, patch, first,
                       smaller(first + kAmaxTiles, patch.tile_end), amax_row);
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

    void quantize_grid_rows(const numerics::TileScaling& scaling, const TileGrid& grid,
                            const Band& band, const Quantized& out, std::int64_t first,
                            std::int64_t last, const StripeDone& stripe_done) const override {
        if (grid.tile_rows != 128 || grid.tile_cols != 128 || band.cols < 128) {
            TileWalk::quantize_grid_rows(scaling, grid, band, out, first, last, stripe_done);
            return;
        }
        const bool can_stream = out.streaming && streams(out.codes, out.code_stride);
        StripePipeline<Isa> pipeline(scaling, grid, band, out, first, last);
        for (std::int64_t g = first; g < last; ++g) {
            if (can_stream) {
                pipeline.template quantize_stripe<true>();
                Isa::store_fence();
            } else {
                pipeline.template quantize_stripe<false>();
            }
            const GridRow row = cpu::grid_row(grid, band, out, first, g);
            if (band.cols % 128 != 0) {
                quantize_tiles(scaling, grid, band, out, row, band.cols / 128);
            }
            report_stripe(stripe_done, row.row_begin, row.row_end);
        }
    }

    void quantize_grid_row(const numerics::TileScaling& scaling, const TileGrid& grid,
                           const Band& band, const Quantized& out,
                           const GridRow& row) const override {
        quantize_tiles(scaling, grid, band, out, row, 0);
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

    /// Tiles [first_tile, grid_cols) of a grid row, panel by panel.
    void quantize_tiles(const numerics::TileScaling& scaling, const TileGrid& grid,
                        const Band& band, const Quantized& out, const GridRow& row,
                        std::int64_t first_tile) const {
        const std::int64_t panel_tiles =
            kPanelCols / grid.tile_cols > 1 ? kPanelCols / grid.tile_cols : 1;
        const PowerEntry* entries = power_entries(scaling);
        Patch patch{row.row_begin, row.row_end, first_tile, first_tile};
        for (std::int64_t t = first_tile; t < grid.grid_cols; t = patch.tile_end) {
            patch.tile_begin = t;
            patch.tile_end = smaller(t + panel_tiles, grid.grid_cols);
            patch_amax(scaling, grid, band, patch, row.amax_bits);
            pad_edge(scaling, grid, band, row.index, t, patch.tile_end, row.amax_bits);
            for (std::int64_t i = t; i < patch.tile_end; ++i) {
                row.scale_inv[i] = entries != nullptr
                                       ? entries[row.amax_bits[i] >> 16].scale_inv
                                       : tile_factor_of(scaling, row.amax_bits[i]).scale_inv;
            }
            patch_encode(scaling, grid, band, patch, row.amax_bits, out.codes, out.code_stride,
                         out.streaming);
        }
    }

    /// Row by row over at most kAmaxTiles tiles: memory is read in the order in which it lies.
    static void chunk_amax(const numerics::TileScaling& scaling, const TileGrid& grid,
                           const Band& band, const Patch& patch, std::int64_t first,
                           std::int64_t last, std::uint32_t* amax_row) {
        Words largest[kAmaxTiles];
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
