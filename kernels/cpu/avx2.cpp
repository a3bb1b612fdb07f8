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

#include "kernels/cpu/simd_backend.hpp"

namespace refit::kernels::cpu {
namespace {

/// Eight F32 quotients at a time: what every other path falls back to.
struct Avx2Plain {
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
    [[nodiscard, gnu::noinline]] __m256i encode(const std::uint16_t* source) const {
        const __m256i a = _mm256_packus_epi32(encode8(source), encode8(source + 8));
        const __m256i b = _mm256_packus_epi32(encode8(source + 16), encode8(source + 24));
        // Both packs work within 128-bit halves; one permutation puts the groups of four in order.
        return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(a, b),
                                           _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    }
};

Avx2Plain make_avx2_plain(const numerics::TileScaling& scaling,
                          const numerics::TileFactor& factor) {
    Avx2Plain plain;
    plain.operand = _mm256_set1_ps(factor.operand);
    plain.divide = scaling.quotient == numerics::Quotient::divide_by_scale;
    plain.round_to_bf16 = scaling.round_quotient_to_bf16;
    plain.add_zero = scaling.add_zero;
    plain.replace_nonfinite = scaling.nonfinite_input == numerics::NonfiniteInput::replace;
    plain.drop_nan = scaling.nonfinite_input == numerics::NonfiniteInput::drop_nan;
    return plain;
}

/// Codes by group of eight significands, for one tile.
struct alignas(32) Avx2Table {
    /// Code of the group's first significand minus what its bits alone give, 8 * exponent + group /
    /// 2, modulo 256.
    std::uint8_t base[16];
    std::uint8_t last_of_base[16];  ///< last significand with that code; later ones have the next
    /// Magnitudes below this (15-bit BF16 patterns) take the plain path; 0x7fff: all do.
    std::int16_t smallest = 0x7fff;
};

/// Fills the table; leaves `smallest` at 0x7fff where the tile cannot use one.
void build_avx2_table(const Avx2Plain& plain, std::uint32_t amax_bits, Avx2Table& table) {
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

/// Constants of every look-up, in memory: the compiler would make each anew, out of other
/// registers, 128 columns after 128 columns.
struct alignas(32) Avx2Masks {
    std::uint16_t byte[16];         ///< 0xff
    std::uint16_t significand[16];  ///< 0x7f
    std::uint8_t group[32];         ///< 0x0f
    std::uint8_t sign[32];          ///< 0x80
};

constexpr Avx2Masks kMasks = [] {
    Avx2Masks masks{};
    for (auto& one : masks.byte) {
        one = 0xff;
    }
    for (auto& one : masks.significand) {
        one = 0x7f;
    }
    for (auto& one : masks.group) {
        one = 0x0f;
    }
    for (auto& one : masks.sign) {
        one = 0x80;
    }
    return masks;
}();

/// Where they lie, hidden from the compiler.
[[gnu::always_inline]] inline const Avx2Masks* masks_in_memory() {
    const Avx2Masks* masks = &kMasks;
    asm("" : "+r"(masks));
    return masks;
}

template <typename Element>
[[gnu::always_inline]] inline __m256i vector(const Element* mask) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(mask));
}

/// Loop constants of a tile.
struct Avx2Encoder {
    __m256i base;
    __m256i last_of_base;
    __m256i smallest;
    const Avx2Masks* masks = masks_in_memory();

    explicit Avx2Encoder(const Avx2Table& table)
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
    [[nodiscard, gnu::always_inline]] __m256i look_up(const std::uint16_t* source) const {
        const __m256i x0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source));
        const __m256i x1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source + 16));
        const __m256i byte_mask = vector(masks->byte);
        const __m256i significand_mask = vector(masks->significand);
        const __m256i significand = _mm256_packus_epi16(_mm256_and_si256(x0, significand_mask),
                                                        _mm256_and_si256(x1, significand_mask));
        // 8 * exponent plus the three first bits of the significand, modulo 256: what the code
        // would be if the scale were a power of two and nothing were rounded.
        const __m256i unscaled =
            _mm256_packus_epi16(_mm256_and_si256(_mm256_srli_epi16(x0, 4), byte_mask),
                                _mm256_and_si256(_mm256_srli_epi16(x1, 4), byte_mask));
        // Saturation keeps the sign: covered magnitudes are at least 128 as integers.
        const __m256i sign = _mm256_and_si256(_mm256_packs_epi16(x0, x1), vector(masks->sign));
        const __m256i group =
            _mm256_and_si256(_mm256_srli_epi16(significand, 3), vector(masks->group));
        const __m256i step = _mm256_sub_epi8(
            _mm256_shuffle_epi8(base, group),
            _mm256_cmpgt_epi8(significand, _mm256_shuffle_epi8(last_of_base, group)));
        const __m256i code = _mm256_or_si256(_mm256_add_epi8(unscaled, step), sign);
        return _mm256_permute4x64_epi64(code, 0xd8);  // undo the lane order of packus
    }

    [[nodiscard, gnu::always_inline]] __m256i encode(const std::uint16_t* source,
                                                     const Avx2Plain& plain) const {
        if (!covers(smaller16(source))) [[unlikely]] {
            return plain.encode(source);
        }
        return look_up(source);
    }
};

[[gnu::always_inline]] inline __m256i magnitude16(const std::uint16_t* source) {
    return _mm256_and_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)),
                            _mm256_set1_epi16(0x7fff));
}

struct Avx2 {
    static constexpr const char* kName = "avx2";
    static constexpr std::int64_t kCodes = 32;
    using Words = __m256i;
    using Plain = Avx2Plain;
    using Table = Avx2Table;
    using Encoder = Avx2Encoder;

    static Plain make_plain(const numerics::TileScaling& scaling,
                            const numerics::TileFactor& factor) {
        return make_avx2_plain(scaling, factor);
    }
    static void build_table(const Plain& plain, std::uint32_t amax_bits, Table& table) {
        build_avx2_table(plain, amax_bits, table);
    }
    static void store_fence() { _mm_sfence(); }
    static Words zero() { return _mm256_setzero_si256(); }

    template <bool kStreaming>
    [[gnu::always_inline]] static void store(std::uint8_t* target, __m256i codes) {
        if constexpr (kStreaming) {
            _mm256_stream_si256(reinterpret_cast<__m256i*>(target), codes);
        } else {
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), codes);
        }
    }

    /// Largest of sixteen magnitudes.
    [[gnu::always_inline]] static std::uint32_t largest_word(__m256i values) {
        const __m128i half =
            _mm_max_epu16(_mm256_castsi256_si128(values), _mm256_extracti128_si256(values, 1));
        // minpos finds the smallest: complement before and after.
        const __m128i flipped = _mm_xor_si128(half, _mm_set1_epi16(-1));
        const std::uint32_t least =
            static_cast<std::uint32_t>(_mm_cvtsi128_si32(_mm_minpos_epu16(flipped))) & 0xffffU;
        return ~least & 0xffffU;
    }

    static std::uint32_t row_max(const std::uint16_t* values, std::int64_t count) {
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
            largest_word(_mm256_max_epu16(_mm256_max_epu16(a, b), _mm256_max_epu16(c, d))) << 16;
        for (; i < count; ++i) {
            const std::uint32_t bits = static_cast<std::uint32_t>(values[i] & 0x7fffU) << 16;
            result = bits > result ? bits : result;
        }
        return result;
    }

    [[gnu::always_inline]] static std::uint32_t max32(const std::uint16_t* x) {
        return largest_word(_mm256_max_epu16(magnitude16(x), magnitude16(x + 16))) << 16;
    }

    [[gnu::always_inline]] static void tile_row_max(const std::uint16_t* x, __m256i& largest) {
        const __m256i a = _mm256_max_epu16(magnitude16(x), magnitude16(x + 16));
        const __m256i b = _mm256_max_epu16(magnitude16(x + 32), magnitude16(x + 48));
        const __m256i c = _mm256_max_epu16(magnitude16(x + 64), magnitude16(x + 80));
        const __m256i d = _mm256_max_epu16(magnitude16(x + 96), magnitude16(x + 112));
        largest = _mm256_max_epu16(
            largest, _mm256_max_epu16(_mm256_max_epu16(a, b), _mm256_max_epu16(c, d)));
    }

    /// 128 columns: raises `largest` by their magnitudes and returns the smallest of them.
    [[gnu::always_inline]] static std::uint16_t scan128(const std::uint16_t* x, __m256i& largest) {
        __m256i even = largest;
        __m256i odd = _mm256_setzero_si256();
        __m256i low_even = _mm256_set1_epi16(0x7fff);
        __m256i low_odd = low_even;
#pragma GCC unroll 4
        for (int i = 0; i < 128; i += 32) {
            const __m256i a = magnitude16(x + i);
            const __m256i b = magnitude16(x + i + 16);
            even = _mm256_max_epu16(even, a);
            odd = _mm256_max_epu16(odd, b);
            low_even = _mm256_min_epu16(low_even, a);
            low_odd = _mm256_min_epu16(low_odd, b);
        }
        largest = _mm256_max_epu16(even, odd);
        const __m256i low = _mm256_min_epu16(low_even, low_odd);
        const __m128i half =
            _mm_min_epu16(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
        return static_cast<std::uint16_t>(_mm_cvtsi128_si32(_mm_minpos_epu16(half)));
    }

    /// 128 columns; one question for all of them.
    template <bool kStreaming>
    [[gnu::always_inline]] static void encode_tile_row(const Encoder& encoder, const Plain& plain,
                                                       const std::uint16_t* x, std::uint8_t* y) {
        const __m256i smallest = _mm256_min_epi16(
            _mm256_min_epi16(encoder.smaller16(x), encoder.smaller16(x + 32)),
            _mm256_min_epi16(encoder.smaller16(x + 64), encoder.smaller16(x + 96)));
        if (!encoder.covers(smallest)) [[unlikely]] {
            for (int i = 0; i < 128; i += 32) {
                store<kStreaming>(y + i, encoder.encode(x + i, plain));
            }
            return;
        }
        for (int i = 0; i < 128; i += 32) {
            store<kStreaming>(y + i, encoder.look_up(x + i));
        }
    }

    static void plain32(const Plain& plain, const std::uint16_t* x, std::uint8_t* y) {
        store<false>(y, plain.encode(x));
    }

    /// Codes of a tile of 32 columns with a power of two as scale; false if one is not covered.
    template <bool kStreaming>
    [[gnu::always_inline]] static bool power_tile(const PowerEntry& entry, const std::uint16_t* x,
                                                  std::uint8_t* y) {
        const __m256i x0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
        const __m256i x1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + 16));
        const __m256i mask = _mm256_set1_epi16(0x7fff);
        const __m256i m0 = _mm256_and_si256(x0, mask);
        const __m256i m1 = _mm256_and_si256(x1, mask);
        const __m256i smallest = _mm256_set1_epi16(entry.smallest);
        if (_mm256_movemask_epi8(_mm256_cmpgt_epi16(smallest, _mm256_min_epi16(m0, m1))) != 0)
            [[unlikely]] {
            return false;
        }
        const __m256i subtract = _mm256_set1_epi16(entry.subtract);
        // Saturation keeps the sign: covered magnitudes are at least 128 as integers.
        const __m256i sign = _mm256_and_si256(_mm256_packs_epi16(x0, x1), _mm256_set1_epi8(-128));
        const __m256i code = _mm256_or_si256(
            _mm256_packs_epi16(nearest_code(m0, subtract), nearest_code(m1, subtract)), sign);
        store<kStreaming>(y, _mm256_permute4x64_epi64(code, 0xd8));
        return true;
    }

    static std::int64_t count_nan_codes(const std::uint8_t* codes, std::int64_t count) {
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

 private:
    [[gnu::always_inline]] static __m256i nearest_code(__m256i magnitude, __m256i subtract) {
        const __m256i odd = _mm256_and_si256(_mm256_srli_epi16(magnitude, 4), _mm256_set1_epi16(1));
        const __m256i rounded = _mm256_srli_epi16(
            _mm256_add_epi16(_mm256_add_epi16(magnitude, odd), _mm256_set1_epi16(7)), 4);
        return _mm256_min_epi16(_mm256_sub_epi16(rounded, subtract), _mm256_set1_epi16(126));
    }
};

}  // namespace

const Backend* avx2_backend() {
    static const SimdBackend<Avx2> backend;
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
