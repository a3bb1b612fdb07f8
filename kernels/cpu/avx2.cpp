// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// AVX2 backend, equal to portable bit for bit (tests/unit/kernels).
//
// A BF16 value has 128 significands. Inside one tile all values with the same significand have the
// same rounded significand as a code, whatever their exponent, as long as the code is a normal
// number: multiplying x by two adds 8 to the code. So a tile needs 128 exact quotients, not one an
// element. Over one binade the code rises by at most 8, and never twice within 8 neighbouring
// significands, so the 128 entries shrink to a code and a threshold for each group of 8: two byte
// shuffles. What this does not cover (codes below the normal range, tiles with Inf, NaN or a
// scale out of range) takes eight F32 quotients at a time.
#include "kernels/cpu/tile_walk.hpp"

#if defined(__AVX2__)

#include <immintrin.h>

#include <cstring>
#include <vector>

namespace refit::kernels::cpu {
namespace {

/// Tiles with fewer elements than this in a patch do not repay the table.
constexpr std::int64_t kTableElements = 512;

constexpr std::uint32_t kInfBits = 0x7f800000;

/// numerics::hides_nonfinite, which must not be emitted from here.
bool can_hide_nonfinite(const numerics::TileScaling& scaling) {
    return scaling.nonfinite_input != numerics::NonfiniteInput::propagate;
}

/// Eight F32 quotients at a time: what every other path falls back to.
struct PlainEncoder {
    __m256 operand;
    bool divide;
    bool round_to_bf16;
    bool add_zero;
    bool replace_nonfinite;
    bool drop_nan;

    /// Whether a tile with a finite amax can hold NaN or Inf, which no table knows.
    [[nodiscard]] bool hides_nonfinite() const { return replace_nonfinite || drop_nan; }

    /// Eight F32 patterns with NaN as +0 and Inf as +-448.
    [[nodiscard]] static __m256i replaced(__m256i wide) {
        const __m256i infinity = _mm256_set1_epi32(0x7f800000);
        const __m256i magnitude = _mm256_and_si256(wide, _mm256_set1_epi32(0x7fffffff));
        const __m256i sign = _mm256_xor_si256(wide, magnitude);
        const __m256i bound = _mm256_or_si256(sign, _mm256_set1_epi32(0x43e00000));
        const __m256i finite =
            _mm256_blendv_epi8(wide, bound, _mm256_cmpeq_epi32(magnitude, infinity));
        return _mm256_andnot_si256(_mm256_cmpgt_epi32(magnitude, infinity), finite);
    }

    [[nodiscard]] __m256 quotient(__m256 x) const {
        __m256 value = divide ? _mm256_div_ps(x, operand) : _mm256_mul_ps(x, operand);
        if (round_to_bf16) {
            const __m256i bits = _mm256_castps_si256(value);
            const __m256i last =
                _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
            __m256i rounded =
                _mm256_add_epi32(_mm256_add_epi32(bits, last), _mm256_set1_epi32(0x7fff));
            rounded = _mm256_and_si256(rounded, _mm256_set1_epi32(static_cast<int>(0xffff0000U)));
            // NaN must not be rounded into Inf or zero; unordered lanes keep the quotient.
            const __m256 nan = _mm256_cmp_ps(value, value, _CMP_UNORD_Q);
            value = _mm256_blendv_ps(_mm256_castsi256_ps(rounded), value, nan);
        }
        if (add_zero) {
            value = _mm256_add_ps(value, _mm256_setzero_ps());
        }
        return value;
    }

    /// Codes of eight BF16 values in the low bytes of eight 32-bit lanes.
    [[nodiscard]] __m256i encode8(const std::uint16_t* source) const {
        __m256i wide = _mm256_slli_epi32(
            _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source))), 16);
        if (replace_nonfinite) {
            wide = replaced(wide);
        }
        const __m256i bits = _mm256_castps_si256(quotient(_mm256_castsi256_ps(wide)));
        const __m256i full = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff));
        const __m256i sign = _mm256_and_si256(_mm256_srli_epi32(bits, 24), _mm256_set1_epi32(0x80));
        const __m256i nan = _mm256_cmpgt_epi32(full, _mm256_set1_epi32(0x7f800000));
        // 0x43e00000 is 448: saturation before rounding equals rounding before saturation.
        const __m256i magnitude = _mm256_min_epi32(full, _mm256_set1_epi32(0x43e00000));
        const __m256i odd =
            _mm256_and_si256(_mm256_srli_epi32(magnitude, 20), _mm256_set1_epi32(1));
        const __m256i normal = _mm256_sub_epi32(
            _mm256_srli_epi32(
                _mm256_add_epi32(_mm256_add_epi32(magnitude, odd), _mm256_set1_epi32(0x7ffff)), 20),
            _mm256_set1_epi32(120 << 3));
        const __m256 shifted =
            _mm256_add_ps(_mm256_castsi256_ps(magnitude), _mm256_set1_ps(16384.0F));
        const __m256i subnormal =
            _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(0x46800000));
        const __m256i is_subnormal = _mm256_cmpgt_epi32(_mm256_set1_epi32(0x3c800000), magnitude);
        __m256i code = _mm256_blendv_epi8(normal, subnormal, is_subnormal);
        code = _mm256_or_si256(code, sign);
        return _mm256_blendv_epi8(code, _mm256_set1_epi32(drop_nan ? 0xfe : 0x7f), nan);
    }

    /// Codes of 32 values. Not inlined: it is the rare path of the table loop.
    [[gnu::noinline]] __m256i encode32(const std::uint16_t* source) const {
        const __m256i a = _mm256_packus_epi32(encode8(source), encode8(source + 8));
        const __m256i b = _mm256_packus_epi32(encode8(source + 16), encode8(source + 24));
        // Both packs work within 128-bit halves; one permutation puts the groups of four in order.
        return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(a, b),
                                           _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    }
};

PlainEncoder plain_encoder(const numerics::TileScaling& scaling,
                           const numerics::TileFactor& factor) {
    PlainEncoder plain;
    plain.operand = _mm256_set1_ps(factor.operand);
    plain.divide = scaling.quotient == numerics::Quotient::divide_by_scale;
    plain.round_to_bf16 = scaling.round_quotient_to_bf16;
    plain.add_zero = scaling.add_zero;
    plain.replace_nonfinite = scaling.nonfinite_input == numerics::NonfiniteInput::replace;
    plain.drop_nan = scaling.nonfinite_input == numerics::NonfiniteInput::drop_nan;
    return plain;
}

/// Codes by group of eight significands, for one tile.
struct alignas(32) TileTable {
    /// Code of the group's first significand minus what its bits alone give, 8 * exponent + group /
    /// 2, modulo 256.
    std::uint8_t base[16];
    std::uint8_t last_of_base[16];  ///< last significand with that code; later ones have the next
    /// Magnitudes below this (15-bit BF16 patterns) take the plain path; 0x7fff: all do.
    std::int16_t smallest = 0x7fff;
};

/// Fills the table; leaves `smallest` at 0x7fff where the tile cannot use one.
void build_table(const PlainEncoder& plain, std::uint32_t amax_bits, TileTable& table) {
    table.smallest = 0x7fff;
    const int exponent = static_cast<int>(amax_bits >> 23);
    if (exponent == 0 || exponent == 255) {
        return;  // BF16 subnormals have no implicit one; Inf and NaN have no scale
    }
    int first_code[16];
    for (int group = 0; group < 16; ++group) {
        const __m256i significand =
            _mm256_add_epi32(_mm256_set1_epi32((exponent << 7) | (group * 8)),
                             _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        const __m256i bits = _mm256_castps_si256(
            plain.quotient(_mm256_castsi256_ps(_mm256_slli_epi32(significand, 16))));
        // A quotient outside [2^-120, 2^120) may have lost bits or be no number: no table.
        const __m256i in_range =
            _mm256_and_si256(_mm256_cmpgt_epi32(bits, _mm256_set1_epi32(7 << 23)),
                             _mm256_cmpgt_epi32(_mm256_set1_epi32(247 << 23), bits));
        if (_mm256_movemask_epi8(in_range) != -1) {
            return;
        }
        const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 20), _mm256_set1_epi32(1));
        const __m256i code = _mm256_sub_epi32(
            _mm256_srli_epi32(
                _mm256_add_epi32(_mm256_add_epi32(bits, odd), _mm256_set1_epi32(0x7ffff)), 20),
            _mm256_set1_epi32(120 << 3));
        const int first = _mm256_cvtsi256_si32(code);
        const __m256i same = _mm256_cmpeq_epi32(code, _mm256_set1_epi32(first));
        const __m256i next = _mm256_cmpeq_epi32(code, _mm256_set1_epi32(first + 1));
        if (_mm256_movemask_epi8(_mm256_or_si256(same, next)) != -1) {
            return;  // two steps within eight significands: cannot happen, and would be wrong
        }
        const int count = __builtin_popcount(
            static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(same))));
        first_code[group] = first;
        table.base[group] = static_cast<std::uint8_t>(first - 8 * exponent - group / 2);
        table.last_of_base[group] = static_cast<std::uint8_t>(group * 8 + count - 1);
    }
    const int amax_significand = static_cast<int>((amax_bits >> 16) & 0x7fU);
    const int amax_group = amax_significand / 8;
    const int amax_code =
        first_code[amax_group] + (amax_significand > table.last_of_base[amax_group] ? 1 : 0);
    if (amax_code > 126 || amax_code < 8) {
        return;  // saturation and all-subnormal tiles are rare; the plain path has both
    }
    // Whole binades in which even the first significand has a normal code, and the part of the
    // binade below them that still has one.
    int binade = exponent - (first_code[0] >= 8 ? (first_code[0] - 8) / 8 : -1);
    int smallest = binade << 7;
    const int wanted = 8 + 8 * (exponent - (binade - 1));
    for (int group = 15; group >= 0; --group) {
        if (first_code[group] >= wanted) {
            smallest = ((binade - 1) << 7) | (group * 8);
        } else {
            if (first_code[group] + 1 >= wanted && table.last_of_base[group] < group * 8 + 7) {
                smallest = ((binade - 1) << 7) | (table.last_of_base[group] + 1);
            }
            break;
        }
    }
    if (smallest < (1 << 7)) {
        smallest = 1 << 7;  // subnormal BF16 values have no table entry
    }
    table.smallest = static_cast<std::int16_t>(smallest);
}

/// Loop constants of a tile.
struct TableEncoder {
    __m256i base;
    __m256i last_of_base;
    __m256i smallest;

    explicit TableEncoder(const TileTable& table)
        : base(_mm256_broadcastsi128_si256(
              _mm_load_si128(reinterpret_cast<const __m128i*>(table.base)))),
          last_of_base(_mm256_broadcastsi128_si256(
              _mm_load_si128(reinterpret_cast<const __m128i*>(table.last_of_base)))),
          smallest(_mm256_set1_epi16(table.smallest)) {}

    /// The smaller magnitudes of two vectors of sixteen values.
    [[gnu::always_inline]] static __m256i smaller16(const std::uint16_t* source) {
        const __m256i mask = _mm256_set1_epi16(0x7fff);
        return _mm256_min_epi16(
            _mm256_and_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)), mask),
            _mm256_and_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source + 16)),
                             mask));
    }

    [[nodiscard, gnu::always_inline]] bool covers(__m256i magnitudes) const {
        return _mm256_movemask_epi8(_mm256_cmpgt_epi16(smallest, magnitudes)) == 0;
    }

    /// Codes of 32 values that the table covers.
    [[nodiscard, gnu::always_inline]] __m256i look_up32(const std::uint16_t* source) const {
        const __m256i x0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source));
        const __m256i x1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source + 16));
        const __m256i byte_mask = _mm256_set1_epi16(0xff);
        // The last exponent bit and the significand.
        const __m256i low =
            _mm256_packus_epi16(_mm256_and_si256(x0, byte_mask), _mm256_and_si256(x1, byte_mask));
        // 8 * exponent plus the three first bits of the significand, modulo 256: what the code
        // would be if the scale were a power of two and nothing were rounded.
        const __m256i unscaled =
            _mm256_packus_epi16(_mm256_and_si256(_mm256_srli_epi16(x0, 4), byte_mask),
                                _mm256_and_si256(_mm256_srli_epi16(x1, 4), byte_mask));
        // Saturation keeps the sign: covered magnitudes are at least 128 as integers.
        const __m256i sign = _mm256_and_si256(_mm256_packs_epi16(x0, x1), _mm256_set1_epi8(-128));
        const __m256i significand = _mm256_and_si256(low, _mm256_set1_epi8(0x7f));
        const __m256i group = _mm256_and_si256(_mm256_srli_epi16(low, 3), _mm256_set1_epi8(0x0f));
        const __m256i step = _mm256_sub_epi8(
            _mm256_shuffle_epi8(base, group),
            _mm256_cmpgt_epi8(significand, _mm256_shuffle_epi8(last_of_base, group)));
        const __m256i code = _mm256_or_si256(_mm256_add_epi8(unscaled, step), sign);
        return _mm256_permute4x64_epi64(code, 0xd8);  // undo the lane order of packus
    }

    [[nodiscard, gnu::always_inline]] __m256i encode32(const std::uint16_t* source,
                                                       const PlainEncoder& plain) const {
        if (!covers(smaller16(source))) [[unlikely]] {
            return plain.encode32(source);
        }
        return look_up32(source);
    }
};

template <bool kStreaming>
[[gnu::always_inline]] inline void store(std::uint8_t* target, __m256i codes) {
    if constexpr (kStreaming) {
        _mm256_stream_si256(reinterpret_cast<__m256i*>(target), codes);
    } else {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), codes);
    }
}

/// One row of a full tile. Most rows have no value below the table: one question for all 128.
template <bool kStreaming>
[[gnu::always_inline]] inline void encode_tile_row(const TableEncoder& table,
                                                   const PlainEncoder& plain,
                                                   const std::uint16_t* x, std::uint8_t* y) {
    const __m256i smallest =
        _mm256_min_epi16(_mm256_min_epi16(table.smaller16(x), table.smaller16(x + 32)),
                         _mm256_min_epi16(table.smaller16(x + 64), table.smaller16(x + 96)));
    if (!table.covers(smallest)) [[unlikely]] {
        for (int i = 0; i < 128; i += 32) {
            store<kStreaming>(y + i, table.encode32(x + i, plain));
        }
        return;
    }
    store<kStreaming>(y, table.look_up32(x));
    store<kStreaming>(y + 32, table.look_up32(x + 32));
    store<kStreaming>(y + 64, table.look_up32(x + 64));
    store<kStreaming>(y + 96, table.look_up32(x + 96));
}

[[gnu::always_inline]] inline __m256i magnitude16(const std::uint16_t* source) {
    return _mm256_and_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)),
                            _mm256_set1_epi16(0x7fff));
}

/// Largest of sixteen 15-bit magnitudes, as F32 bits.
std::uint32_t horizontal_max(__m256i values) {
    const __m128i half =
        _mm_max_epu16(_mm256_castsi256_si128(values), _mm256_extracti128_si256(values, 1));
    // minpos finds the smallest: complement before and after.
    const __m128i flipped = _mm_xor_si128(half, _mm_set1_epi16(-1));
    const std::uint32_t least =
        static_cast<std::uint32_t>(_mm_cvtsi128_si32(_mm_minpos_epu16(flipped))) & 0xffffU;
    return (~least & 0xffffU) << 16;
}

std::uint32_t row_max(const std::uint16_t* values, std::int64_t count) {
    __m256i a = _mm256_setzero_si256();
    __m256i b = a;
    __m256i c = a;
    __m256i d = a;
    std::int64_t i = 0;
    for (; i + 64 <= count; i += 64) {
        a = _mm256_max_epu16(a, magnitude16(values + i));
        b = _mm256_max_epu16(b, magnitude16(values + i + 16));
        c = _mm256_max_epu16(c, magnitude16(values + i + 32));
        d = _mm256_max_epu16(d, magnitude16(values + i + 48));
    }
    for (; i + 16 <= count; i += 16) {
        a = _mm256_max_epu16(a, magnitude16(values + i));
    }
    std::uint32_t result =
        horizontal_max(_mm256_max_epu16(_mm256_max_epu16(a, b), _mm256_max_epu16(c, d)));
    for (; i < count; ++i) {
        const std::uint32_t bits = static_cast<std::uint32_t>(values[i] & 0x7fffU) << 16;
        result = bits > result ? bits : result;
    }
    return result;
}

/// `count` values from `source` on; without a table all take the plain path.
template <bool kStreaming>
void encode_row(const TileTable& table, const PlainEncoder& plain, const std::uint16_t* source,
                std::int64_t count, std::uint8_t* target) {
    const bool has_table = table.smallest != 0x7fff &&
                           !(plain.hides_nonfinite() && row_max(source, count) >= kInfBits);
    const TableEncoder encoder(table);
    std::int64_t i = 0;
    if (has_table) {
        for (; i + 128 <= count; i += 128) {
            encode_tile_row<kStreaming>(encoder, plain, source + i, target + i);
        }
    }
    for (; i + 32 <= count; i += 32) {
        store<kStreaming>(target + i, has_table ? encoder.encode32(source + i, plain)
                                                : plain.encode32(source + i));
    }
    if (i < count) {
        // Padded with an element of the row, so that the padding does not choose the plain path.
        alignas(32) std::uint16_t rest[32];
        alignas(32) std::uint8_t rest_codes[32];
        for (std::int64_t k = 0; k < 32; ++k) {
            rest[k] = source[i + k < count ? i + k : i];
        }
        _mm256_store_si256(reinterpret_cast<__m256i*>(rest_codes),
                           has_table ? encoder.encode32(rest, plain) : plain.encode32(rest));
        std::memcpy(target + i, rest_codes, static_cast<std::size_t>(count - i));
    }
}

/// Rows of tiles 128 columns wide take panels of this many tiles: 128 rows of it are 128 KiB, and
/// two such copies stay in L2.
constexpr std::int64_t kPipelineTiles = 4;
constexpr std::int64_t kPipelineCols = kPipelineTiles * 128;
/// Rows that the next panel is fetched ahead of its use: the hardware does not follow a panel's
/// short rows by itself. More rows than half the ways of L1 evict each other where the stride is a
/// power of two; 12 rows were a fifth slower than 4 on a Zen 3 core with 16,384 x 8,192 elements.
constexpr std::int64_t kPrefetchRows = 4;

/// Storage of the copies.
struct alignas(32) Chunk {
    std::uint16_t values[16];
};

/// The next panel on its way into cache: 128 columns of a row at a time are copied and their
/// largest magnitudes kept. The copy is dense: rows of a matrix whose stride is a power of two
/// evict each other.
struct PanelReader {
    const std::uint16_t* source;  ///< first element of the panel
    std::int64_t row_stride;
    std::int64_t rows;
    std::uint16_t* copy;  ///< [rows, kPipelineCols], 32-byte aligned
    __m256i largest[kPipelineTiles];

    void start(const std::uint16_t* panel, std::uint16_t* target) {
        source = panel;
        copy = target;
        for (__m256i& value : largest) {
            value = _mm256_setzero_si256();
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
                _mm_prefetch(reinterpret_cast<const char*>(ahead + line), _MM_HINT_T0);
            }
        }
        __m256i* target = reinterpret_cast<__m256i*>(copy + row * kPipelineCols + tile * 128);
        const __m256i mask = _mm256_set1_epi16(0x7fff);
        __m256i even = largest[tile];
        __m256i odd = _mm256_setzero_si256();
#pragma GCC unroll 4
        for (int i = 0; i < 8; i += 2) {
            const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x) + i);
            const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x) + i + 1);
            _mm256_store_si256(target + i, a);
            _mm256_store_si256(target + i + 1, b);
            even = _mm256_max_epu16(even, _mm256_and_si256(a, mask));
            odd = _mm256_max_epu16(odd, _mm256_and_si256(b, mask));
        }
        largest[tile] = _mm256_max_epu16(even, odd);
    }
};

class Avx2 final : public TileWalk {
 public:
    [[nodiscard]] std::string_view name() const override { return "avx2"; }

    [[nodiscard]] std::uint32_t max_abs_bits(const std::uint16_t* values,
                                             std::int64_t count) const override {
        return row_max(values, count);
    }

    [[nodiscard]] std::int64_t count_nan_codes(const std::uint8_t* codes,
                                               std::int64_t count) const override {
        std::int64_t result = 0;
        std::int64_t i = 0;
        const __m256i nan = _mm256_set1_epi8(0x7f);
        for (; i + 32 <= count; i += 32) {
            const __m256i value = _mm256_and_si256(
                _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + i)), nan);
            result += __builtin_popcount(
                static_cast<unsigned>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(value, nan))));
        }
        for (; i < count; ++i) {
            result += (codes[i] & 0x7fU) == 0x7fU ? 1 : 0;
        }
        return result;
    }

 protected:
    void patch_amax(const numerics::TileScaling& scaling, const TileGrid& grid, const Band& band,
                    const Patch& patch, std::uint32_t* amax_row) const override {
        constexpr std::int64_t kChunk = 16;
        for (std::int64_t first = patch.tile_begin; first < patch.tile_end; first += kChunk) {
            const std::int64_t last =
                first + kChunk < patch.tile_end ? first + kChunk : patch.tile_end;
            chunk_amax(scaling, grid, band, patch, first, last, amax_row);
        }
    }

    void patch_encode(const numerics::TileScaling& scaling, const TileGrid& grid, const Band& band,
                      const Patch& patch, const std::uint32_t* amax_row, std::uint8_t* codes,
                      std::int64_t code_stride, bool streaming) const override {
        constexpr std::int64_t kChunk = 16;
        TileTable tables[kChunk];
        PlainEncoder plain[kChunk];
        const std::int64_t row_count = patch.row_end - patch.row_begin;
        const bool can_stream = streaming && code_stride % 32 == 0 && grid.tile_cols % 32 == 0 &&
                                reinterpret_cast<std::uintptr_t>(codes) % 32 == 0;
        for (std::int64_t first = patch.tile_begin; first < patch.tile_end; first += kChunk) {
            const std::int64_t last =
                first + kChunk < patch.tile_end ? first + kChunk : patch.tile_end;
            for (std::int64_t t = first; t < last; ++t) {
                plain[t - first] = plain_encoder(scaling, tile_factor_of(scaling, amax_row[t]));
                const PlainEncoder& p = plain[t - first];
                TileTable& table = tables[t - first];
                table.smallest = 0x7fff;
                const std::int64_t begin = t * grid.tile_cols;
                const std::int64_t width =
                    begin + grid.tile_cols < band.cols ? grid.tile_cols : band.cols - begin;
                if (width * row_count >= kTableElements) {
                    build_table(p, amax_row[t], table);
                }
            }
            for (std::int64_t row = patch.row_begin; row < patch.row_end; ++row) {
                const std::int64_t local = row - band.row_begin;
                const std::uint16_t* source = band.data + local * band.row_stride;
                std::uint8_t* target = codes + local * code_stride;
                for (std::int64_t t = first; t < last; ++t) {
                    const std::int64_t begin = t * grid.tile_cols;
                    const std::int64_t width =
                        begin + grid.tile_cols < band.cols ? grid.tile_cols : band.cols - begin;
                    const auto encode = can_stream ? encode_row<true> : encode_row<false>;
                    encode(tables[t - first], plain[t - first], source + begin, width,
                           target + begin);
                }
            }
        }
        if (can_stream) {
            _mm_sfence();  // the codes are visible to whoever is told that the stripe is done
        }
    }

    void quantize_grid_row(const numerics::TileScaling& scaling, const TileGrid& grid,
                           const Band& band, std::int64_t grid_row, std::int64_t row_begin,
                           std::int64_t row_end, std::uint32_t* amax_row, float* scale_row,
                           std::uint8_t* codes, std::int64_t code_stride,
                           bool streaming) const override {
        const std::int64_t rows = row_end - row_begin;
        const std::int64_t panels =
            grid.tile_cols == 128 && rows >= 8 ? band.cols / kPipelineCols : 0;
        if (panels > 0) {
            pipeline(scaling, grid, band, grid_row, row_begin, rows, panels, amax_row, scale_row,
                     codes, code_stride, streaming);
        }
        if (panels * kPipelineTiles == grid.grid_cols) {
            return;
        }
        // The columns that do not fill a panel, and tiles of another width.
        Patch patch{row_begin, row_end, 0, 0};
        const std::int64_t panel_tiles =
            kPanelCols / grid.tile_cols > 1 ? kPanelCols / grid.tile_cols : 1;
        for (std::int64_t t = panels * kPipelineTiles; t < grid.grid_cols; t = patch.tile_end) {
            patch.tile_begin = t;
            patch.tile_end = t + panel_tiles < grid.grid_cols ? t + panel_tiles : grid.grid_cols;
            patch_amax(scaling, grid, band, patch, amax_row);
            pad_edge(scaling, grid, band, grid_row, t, patch.tile_end, amax_row);
            for (std::int64_t i = t; i < patch.tile_end; ++i) {
                scale_row[i] = tile_factor_of(scaling, amax_row[i]).scale_inv;
            }
            patch_encode(scaling, grid, band, patch, amax_row, codes, code_stride, streaming);
        }
    }

 private:
    /// Encodes one panel from its copy while the next one is read: arithmetic and memory overlap.
    static void pipeline(const numerics::TileScaling& scaling, const TileGrid& grid,
                         const Band& band, std::int64_t grid_row, std::int64_t row_begin,
                         std::int64_t rows, std::int64_t panels, std::uint32_t* amax_row,
                         float* scale_row, std::uint8_t* codes, std::int64_t code_stride,
                         bool streaming) {
        const std::size_t copy_elements = static_cast<std::size_t>(rows * kPipelineCols);
        // Kept from call to call: fresh pages would cost more than the work.
        thread_local std::vector<Chunk> copies;
        if (copies.size() * 16 < 2 * copy_elements) {
            copies.resize(2 * copy_elements / 16);
        }
        std::uint16_t* copy[2];
        copy[0] = reinterpret_cast<std::uint16_t*>(copies.data());
        copy[1] = copy[0] + copy_elements;
        const std::int64_t local = row_begin - band.row_begin;
        const std::uint16_t* source = band.data + local * band.row_stride;
        std::uint8_t* target = codes + local * code_stride;
        const bool can_stream =
            streaming && code_stride % 32 == 0 && reinterpret_cast<std::uintptr_t>(codes) % 32 == 0;
        PanelReader reader;
        reader.row_stride = band.row_stride;
        reader.rows = rows;
        reader.start(source, copy[0]);
        for (std::int64_t k = 0; k < rows * kPipelineTiles; ++k) {
            reader.step(k);
        }
        for (std::int64_t panel = 0; panel < panels; ++panel) {
            const std::int64_t first = panel * kPipelineTiles;
            bool finite[kPipelineTiles];
            for (std::int64_t t = 0; t < kPipelineTiles; ++t) {
                std::uint32_t bits = horizontal_max(reader.largest[t]);
                finite[t] = bits < kInfBits;
                if (!finite[t] && can_hide_nonfinite(scaling)) [[unlikely]] {
                    bits = copied_amax(scaling, copy[panel % 2] + t * 128, rows);
                }
                amax_row[first + t] = bits;
            }
            pad_edge(scaling, grid, band, grid_row, first, first + kPipelineTiles, amax_row);
            const bool has_next = panel + 1 < panels;
            if (has_next) {
                reader.start(source + (panel + 1) * kPipelineCols, copy[(panel + 1) % 2]);
            }
            for (std::int64_t t = 0; t < kPipelineTiles; ++t) {
                const numerics::TileFactor factor = tile_factor_of(scaling, amax_row[first + t]);
                scale_row[first + t] = factor.scale_inv;
                const PlainEncoder plain = plain_encoder(scaling, factor);
                TileTable table;
                if (rows * 128 >= kTableElements && finite[t]) {
                    build_table(plain, amax_row[first + t], table);
                }
                const std::uint16_t* from = copy[panel % 2] + t * 128;
                std::uint8_t* to = target + (first + t) * 128;
                const std::int64_t next_step = has_next ? t * rows : -1;
                if (can_stream) {
                    encode_tile<true>(table, plain, from, rows, to, code_stride, reader, next_step);
                } else {
                    encode_tile<false>(table, plain, from, rows, to, code_stride, reader,
                                       next_step);
                }
            }
        }
        if (can_stream) {
            _mm_sfence();  // the codes are visible to whoever is told that the stripe is done
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
    static void encode_tile(const TileTable& table, const PlainEncoder& plain,
                            const std::uint16_t* from, std::int64_t rows, std::uint8_t* to,
                            std::int64_t code_stride, PanelReader& reader, std::int64_t next_step) {
        const bool has_table = table.smallest != 0x7fff;
        const TableEncoder encoder(table);
        for (std::int64_t row = 0; row < rows; ++row) {
            const std::uint16_t* x = from + row * kPipelineCols;
            std::uint8_t* y = to + row * code_stride;
            if (has_table) {
                encode_tile_row<kStreaming>(encoder, plain, x, y);
            } else {
                for (int i = 0; i < 128; i += 32) {
                    store<kStreaming>(y + i, plain.encode32(x + i));
                }
            }
            if (next_step >= 0) {
                reader.step(next_step + row);
            }
        }
    }

    /// Row by row over at most 16 tiles: memory is read in the order in which it lies.
    static void chunk_amax(const numerics::TileScaling& scaling, const TileGrid& grid,
                           const Band& band, const Patch& patch, std::int64_t first,
                           std::int64_t last, std::uint32_t* amax_row) {
        __m256i largest[16];
        for (__m256i& value : largest) {
            value = _mm256_setzero_si256();
        }
        for (std::int64_t row = patch.row_begin; row < patch.row_end; ++row) {
            const std::uint16_t* source = band.data + (row - band.row_begin) * band.row_stride;
            for (std::int64_t t = first; t < last; ++t) {
                const std::int64_t begin = t * grid.tile_cols;
                const std::int64_t width =
                    begin + grid.tile_cols < band.cols ? grid.tile_cols : band.cols - begin;
                if (width == 128) {
                    const std::uint16_t* x = source + begin;
                    const __m256i a = _mm256_max_epu16(magnitude16(x), magnitude16(x + 16));
                    const __m256i b = _mm256_max_epu16(magnitude16(x + 32), magnitude16(x + 48));
                    const __m256i c = _mm256_max_epu16(magnitude16(x + 64), magnitude16(x + 80));
                    const __m256i d = _mm256_max_epu16(magnitude16(x + 96), magnitude16(x + 112));
                    __m256i& value = largest[t - first];
                    value = _mm256_max_epu16(
                        value, _mm256_max_epu16(_mm256_max_epu16(a, b), _mm256_max_epu16(c, d)));
                } else {
                    std::uint32_t bits = row_max(source + begin, width);
                    if (bits >= kInfBits && can_hide_nonfinite(scaling)) [[unlikely]] {
                        bits = max_amax_part(scaling, source + begin, width);
                    }
                    amax_row[t] = bits > amax_row[t] ? bits : amax_row[t];
                }
            }
        }
        for (std::int64_t t = first; t < last; ++t) {
            std::uint32_t bits = horizontal_max(largest[t - first]);
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

const Backend* avx2_backend() {
    static const Avx2 backend;
    return &backend;
}

}  // namespace refit::kernels::cpu

#else

namespace refit::kernels::cpu {

const Backend* avx2_backend() {
    return nullptr;
}

}  // namespace refit::kernels::cpu

#endif
