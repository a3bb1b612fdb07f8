// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// AVX-512 backend with VBMI, equal to portable bit for bit (tests/unit/kernels).
//
// The method of avx2.cpp with the whole table: the code of each of the 128 BF16 significands fits
// two registers, and one byte permutation looks 64 of them up. What the table does not cover takes
// sixteen F32 quotients at a time.
//
// REFIT_EMULATED_AVX512 compiles the same source against an emulation of the instructions, which
// the includer has included before (tests/unit/kernels/emulated_avx512.cpp). Only intrinsics that
// the emulation has are used.
#include "kernels/cpu/tile_walk.hpp"

#if defined(REFIT_EMULATED_AVX512) || (defined(__AVX512F__) && defined(__AVX512BW__) && \
                                       defined(__AVX512VL__) && defined(__AVX512VBMI__))

#if !defined(REFIT_EMULATED_AVX512)
#include <immintrin.h>
#endif

#include "kernels/cpu/simd_backend.hpp"

namespace refit::kernels::cpu {
namespace {

[[gnu::always_inline]] inline __m512i load512(const void* from) {
    return _mm512_loadu_si512(from);
}

/// Sixteen codes in the low bytes of 32-bit lanes, from F32 patterns of quotients in the normal
/// range of E4M3FN; magnitude without its sign.
[[gnu::always_inline]] inline __m512i normal_codes(__m512i magnitude) {
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(magnitude, 20), _mm512_set1_epi32(1));
    return _mm512_sub_epi32(
        _mm512_srli_epi32(
            _mm512_add_epi32(_mm512_add_epi32(magnitude, odd), _mm512_set1_epi32(0x7ffff)), 20),
        _mm512_set1_epi32(120 << 3));
}

/// 64 words of at most 255 as bytes, in order.
[[gnu::always_inline]] inline __m512i in_order(__m512i packed) {
    return _mm512_permutexvar_epi64(_mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0), packed);
}

/// Sixteen F32 quotients at a time: what every other path falls back to.
struct Avx512Plain {
    __m512 operand;
    bool divide;
    bool round_to_bf16;
    bool add_zero;
    bool replace_nonfinite;
    bool drop_nan;

    /// Whether a tile with a finite amax can hold NaN or Inf, which no table knows.
    [[nodiscard]] bool hides_nonfinite() const { return replace_nonfinite || drop_nan; }

    /// Sixteen F32 patterns with NaN as +0 and Inf as +-448.
    [[nodiscard]] static __m512i replaced(__m512i wide) {
        const __m512i infinity = _mm512_set1_epi32(0x7f800000);
        const __m512i magnitude = _mm512_and_si512(wide, _mm512_set1_epi32(0x7fffffff));
        const __m512i bound =
            _mm512_or_si512(_mm512_xor_si512(wide, magnitude), _mm512_set1_epi32(0x43e00000));
        const __m512i finite =
            _mm512_mask_mov_epi32(wide, _mm512_cmpeq_epi32_mask(magnitude, infinity), bound);
        return _mm512_mask_mov_epi32(finite, _mm512_cmpgt_epi32_mask(magnitude, infinity),
                                     _mm512_setzero_si512());
    }

    [[nodiscard]] __m512i quotient_bits(__m512i wide) const {
        const __m512 x = _mm512_castsi512_ps(wide);
        __m512i bits =
            _mm512_castps_si512(divide ? _mm512_div_ps(x, operand) : _mm512_mul_ps(x, operand));
        if (round_to_bf16) {
            const __m512i last =
                _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
            const __m512i rounded = _mm512_and_si512(
                _mm512_add_epi32(_mm512_add_epi32(bits, last), _mm512_set1_epi32(0x7fff)),
                _mm512_set1_epi32(static_cast<int>(0xffff0000U)));
            // NaN must not be rounded into Inf or zero: such lanes keep the quotient.
            const __m512i magnitude = _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff));
            bits = _mm512_mask_mov_epi32(
                rounded, _mm512_cmpgt_epi32_mask(magnitude, _mm512_set1_epi32(0x7f800000)), bits);
        }
        if (add_zero) {
            bits =
                _mm512_castps_si512(_mm512_add_ps(_mm512_castsi512_ps(bits), _mm512_setzero_ps()));
        }
        return bits;
    }

    /// Codes of sixteen BF16 values, given as F32 patterns.
    [[nodiscard]] __m512i encode16(__m512i wide) const {
        const __m512i bits = quotient_bits(replace_nonfinite ? replaced(wide) : wide);
        const __m512i full = _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff));
        const __m512i sign = _mm512_and_si512(_mm512_srli_epi32(bits, 24), _mm512_set1_epi32(0x80));
        // 0x43e00000 is 448: saturation before rounding equals rounding before saturation.
        const __m512i magnitude = _mm512_min_epi32(full, _mm512_set1_epi32(0x43e00000));
        const __m512 shifted =
            _mm512_add_ps(_mm512_castsi512_ps(magnitude), _mm512_set1_ps(16384.0F));
        const __m512i subnormal =
            _mm512_sub_epi32(_mm512_castps_si512(shifted), _mm512_set1_epi32(0x46800000));
        __m512i code = _mm512_mask_mov_epi32(
            normal_codes(magnitude),
            _mm512_cmpgt_epi32_mask(_mm512_set1_epi32(0x3c800000), magnitude), subnormal);
        code = _mm512_or_si512(code, sign);
        return _mm512_mask_mov_epi32(code,
                                     _mm512_cmpgt_epi32_mask(full, _mm512_set1_epi32(0x7f800000)),
                                     _mm512_set1_epi32(drop_nan ? 0xfe : 0x7f));
    }

    /// Codes of 32 BF16 values as words, in order: both unpacks and the pack work within 128 bits.
    [[nodiscard]] __m512i encode_words(__m512i x) const {
        const __m512i zero = _mm512_setzero_si512();
        return _mm512_packus_epi32(encode16(_mm512_unpacklo_epi16(zero, x)),
                                   encode16(_mm512_unpackhi_epi16(zero, x)));
    }

    /// Codes of 64 values. Not inlined: it is the rare path of the table loop.
    [[nodiscard, gnu::noinline]] __m512i encode(const std::uint16_t* source) const {
        return in_order(
            _mm512_packus_epi16(encode_words(load512(source)), encode_words(load512(source + 32))));
    }
};

/// Codes by significand, for one tile.
struct alignas(64) Avx512Table {
    /// Code of a significand in the binade of amax minus what its bits alone give,
    /// 8 * exponent + significand / 16, modulo 256.
    std::uint8_t step[128];
    /// Magnitudes below this (15-bit BF16 patterns) take the plain path; 0x7fff: all do.
    std::int16_t smallest = 0x7fff;
};

/// Four vectors of sixteen numbers below 256 as 64 bytes, in order.
__m512i bytes_of(const __m512i* numbers) {
    const __m512i packed = _mm512_packus_epi16(_mm512_packus_epi32(numbers[0], numbers[1]),
                                               _mm512_packus_epi32(numbers[2], numbers[3]));
    // Each 128-bit lane holds four bytes of each vector.
    return _mm512_permutexvar_epi32(
        _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0), packed);
}

/// Fills the table; leaves `smallest` at 0x7fff where the tile cannot use one.
void build_avx512_table(const Avx512Plain& plain, std::uint32_t amax_bits, Avx512Table& table) {
    table.smallest = 0x7fff;
    const int exponent = static_cast<int>(amax_bits >> 23);
    if (exponent == 0 || exponent == 255) {
        return;  // BF16 subnormals have no implicit one; Inf and NaN have no scale
    }
    const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    alignas(64) int codes[128];
    __m512i steps[8];
    for (int v = 0; v < 8; ++v) {
        const __m512i significand =
            _mm512_add_epi32(_mm512_set1_epi32((exponent << 7) | (v * 16)), lanes);
        const __m512i bits = plain.quotient_bits(_mm512_slli_epi32(significand, 16));
        // A quotient outside [2^-120, 2^120) may have lost bits or be no number: no table.
        if (_mm512_cmpgt_epi32_mask(bits, _mm512_set1_epi32(7 << 23)) != 0xffff ||
            _mm512_cmpgt_epi32_mask(_mm512_set1_epi32(247 << 23), bits) != 0xffff) {
            return;
        }
        const __m512i code = normal_codes(bits);
        _mm512_store_si512(codes + v * 16, code);
        steps[v] = _mm512_and_si512(_mm512_sub_epi32(code, _mm512_set1_epi32(8 * exponent + v)),
                                    _mm512_set1_epi32(0xff));
    }
    const int amax_code = codes[(amax_bits >> 16) & 0x7fU];
    if (amax_code > 126 || amax_code < 8) {
        return;  // saturation and all-subnormal tiles are rare; the plain path has both
    }
    _mm512_store_si512(table.step, bytes_of(steps));
    _mm512_store_si512(table.step + 64, bytes_of(steps + 4));
    // Codes fall by 8 from binade to binade. In the last binade with a normal code, 8 or above, the
    // first significands may be below it.
    const int binades = (codes[127] - 8) / 8;
    const __m512i wanted = _mm512_set1_epi32(8 + 8 * binades);
    int below = 0;
    for (int v = 0; v < 8; ++v) {
        below += __builtin_popcount(static_cast<unsigned>(
            _mm512_cmpgt_epi32_mask(wanted, _mm512_load_si512(codes + v * 16))));
    }
    const int smallest = (exponent - binades) * 128 + below;
    // Subnormal BF16 values have no table entry.
    table.smallest = static_cast<std::int16_t>(smallest < 128 ? 128 : smallest);
}

/// Loop constants of a tile.
struct Avx512Encoder {
    __m512i first;   ///< steps of significands 0 to 63
    __m512i second;  ///< of 64 to 127
    __m512i smallest;

    explicit Avx512Encoder(const Avx512Table& table)
        : first(_mm512_load_si512(table.step)),
          second(_mm512_load_si512(table.step + 64)),
          smallest(_mm512_set1_epi16(table.smallest)) {}

    [[nodiscard, gnu::always_inline]] bool covers(__m512i magnitudes) const {
        return _mm512_cmpge_epi16_mask(magnitudes, smallest) == 0xffffffffU;
    }

    /// Codes of 64 values that the table covers.
    [[nodiscard, gnu::always_inline]] __m512i look_up(const std::uint16_t* source) const {
        const __m512i x0 = load512(source);
        const __m512i x1 = load512(source + 32);
        const __m512i byte_mask = _mm512_set1_epi16(0xff);
        // The significand; the permutation does not look at the exponent bit above it.
        const __m512i low =
            _mm512_packus_epi16(_mm512_and_si512(x0, byte_mask), _mm512_and_si512(x1, byte_mask));
        // 8 * exponent plus the three first bits of the significand, modulo 256: what the code
        // would be if the scale were a power of two and nothing were rounded.
        const __m512i unscaled =
            _mm512_packus_epi16(_mm512_and_si512(_mm512_srli_epi16(x0, 4), byte_mask),
                                _mm512_and_si512(_mm512_srli_epi16(x1, 4), byte_mask));
        const __m512i code =
            _mm512_add_epi8(unscaled, _mm512_permutex2var_epi8(first, low, second));
        // Saturation keeps the sign: covered magnitudes are at least 128 as integers.
        const __m512i sign = _mm512_and_si512(_mm512_packs_epi16(x0, x1), _mm512_set1_epi8(-128));
        return in_order(_mm512_or_si512(code, sign));
    }

    [[nodiscard, gnu::always_inline]] __m512i encode(const std::uint16_t* source,
                                                     const Avx512Plain& plain) const {
        const __m512i mask = _mm512_set1_epi16(0x7fff);
        if (!covers(_mm512_min_epu16(_mm512_and_si512(load512(source), mask),
                                     _mm512_and_si512(load512(source + 32), mask)))) [[unlikely]] {
            return plain.encode(source);
        }
        return look_up(source);
    }
};

[[gnu::always_inline]] inline __m512i magnitude32(const std::uint16_t* source) {
    return _mm512_and_si512(load512(source), _mm512_set1_epi16(0x7fff));
}

struct Avx512 {
    static constexpr const char* kName = "avx512";
    static constexpr std::int64_t kCodes = 64;
    using Words = __m512i;
    using Plain = Avx512Plain;
    using Table = Avx512Table;
    using Encoder = Avx512Encoder;

    static Plain make_plain(const numerics::TileScaling& scaling,
                            const numerics::TileFactor& factor) {
        Plain plain;
        plain.operand = _mm512_set1_ps(factor.operand);
        plain.divide = scaling.quotient == numerics::Quotient::divide_by_scale;
        plain.round_to_bf16 = scaling.round_quotient_to_bf16;
        plain.add_zero = scaling.add_zero;
        plain.replace_nonfinite = scaling.nonfinite_input == numerics::NonfiniteInput::replace;
        plain.drop_nan = scaling.nonfinite_input == numerics::NonfiniteInput::drop_nan;
        return plain;
    }
    static void build_table(const Plain& plain, std::uint32_t amax_bits, Table& table) {
        build_avx512_table(plain, amax_bits, table);
    }
    static void store_fence() { _mm_sfence(); }
    static Words zero() { return _mm512_setzero_si512(); }

    template <bool kStreaming>
    [[gnu::always_inline]] static void store(std::uint8_t* target, __m512i codes) {
        if constexpr (kStreaming) {
            _mm512_stream_si512(reinterpret_cast<__m512i*>(target), codes);
        } else {
            _mm512_storeu_si512(target, codes);
        }
    }

    /// Largest of 32 magnitudes.
    [[gnu::always_inline]] static std::uint32_t largest_word(__m512i values) {
        const __m256i half =
            _mm256_max_epu16(_mm512_castsi512_si256(values), _mm512_extracti64x4_epi64(values, 1));
        const __m128i quarter =
            _mm_max_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
        // minpos finds the smallest: complement before and after.
        const __m128i flipped = _mm_xor_si128(quarter, _mm_set1_epi16(-1));
        const std::uint32_t least =
            static_cast<std::uint32_t>(_mm_cvtsi128_si32(_mm_minpos_epu16(flipped))) & 0xffffU;
        return ~least & 0xffffU;
    }

    static std::uint32_t row_max(const std::uint16_t* values, std::int64_t count) {
        __m512i a = _mm512_setzero_si512();
        __m512i b = a;
        std::int64_t i = 0;
        for (; i + 64 <= count; i += 64) {
            a = _mm512_max_epu16(a, magnitude32(values + i));
            b = _mm512_max_epu16(b, magnitude32(values + i + 32));
        }
        for (; i + 32 <= count; i += 32) {
            a = _mm512_max_epu16(a, magnitude32(values + i));
        }
        std::uint32_t result = largest_word(_mm512_max_epu16(a, b)) << 16;
        for (; i < count; ++i) {
            const std::uint32_t bits = static_cast<std::uint32_t>(values[i] & 0x7fffU) << 16;
            result = bits > result ? bits : result;
        }
        return result;
    }

    [[gnu::always_inline]] static std::uint32_t max32(const std::uint16_t* x) {
        return largest_word(magnitude32(x)) << 16;
    }

    [[gnu::always_inline]] static void tile_row_max(const std::uint16_t* x, __m512i& largest) {
        const __m512i a = _mm512_max_epu16(magnitude32(x), magnitude32(x + 32));
        const __m512i b = _mm512_max_epu16(magnitude32(x + 64), magnitude32(x + 96));
        largest = _mm512_max_epu16(largest, _mm512_max_epu16(a, b));
    }

    /// 128 columns: raises `largest` by their magnitudes and returns the smallest of them.
    [[gnu::always_inline]] static std::uint16_t scan128(const std::uint16_t* x, __m512i& largest) {
        const __m512i a = magnitude32(x);
        const __m512i b = magnitude32(x + 32);
        const __m512i c = magnitude32(x + 64);
        const __m512i d = magnitude32(x + 96);
        largest = _mm512_max_epu16(
            largest, _mm512_max_epu16(_mm512_max_epu16(a, b), _mm512_max_epu16(c, d)));
        const __m512i low = _mm512_min_epu16(_mm512_min_epu16(a, b), _mm512_min_epu16(c, d));
        const __m256i half =
            _mm256_min_epu16(_mm512_castsi512_si256(low), _mm512_extracti64x4_epi64(low, 1));
        const __m128i quarter =
            _mm_min_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
        return static_cast<std::uint16_t>(_mm_cvtsi128_si32(_mm_minpos_epu16(quarter)));
    }

    template <bool kStreaming>
    [[gnu::always_inline]] static void encode_tile_row(const Encoder& encoder, const Plain& plain,
                                                       const std::uint16_t* x, std::uint8_t* y) {
        store<kStreaming>(y, encoder.encode(x, plain));
        store<kStreaming>(y + 64, encoder.encode(x + 64, plain));
    }

    static void plain32(const Plain& plain, const std::uint16_t* x, std::uint8_t* y) {
        const __m512i words = plain.encode_words(load512(x));
        const __m512i codes = in_order(_mm512_packus_epi16(words, words));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(y), _mm512_castsi512_si256(codes));
    }

    /// Codes of a tile of 32 columns with a power of two as scale; false if one is not covered.
    template <bool kStreaming>
    [[gnu::always_inline]] static bool power_tile(const PowerEntry& entry, const std::uint16_t* x,
                                                  std::uint8_t* y) {
        const __m512i values = load512(x);
        const __m512i magnitude = _mm512_and_si512(values, _mm512_set1_epi16(0x7fff));
        if (_mm512_cmpge_epi16_mask(magnitude, _mm512_set1_epi16(entry.smallest)) != 0xffffffffU)
            [[unlikely]] {
            return false;
        }
        const __m512i odd = _mm512_and_si512(_mm512_srli_epi16(magnitude, 4), _mm512_set1_epi16(1));
        const __m512i rounded = _mm512_srli_epi16(
            _mm512_add_epi16(_mm512_add_epi16(magnitude, odd), _mm512_set1_epi16(7)), 4);
        const __m512i code = _mm512_min_epi16(
            _mm512_sub_epi16(rounded, _mm512_set1_epi16(entry.subtract)), _mm512_set1_epi16(126));
        const __m512i sign =
            _mm512_and_si512(_mm512_srli_epi16(values, 8), _mm512_set1_epi16(0x80));
        const __m512i words = _mm512_or_si512(code, sign);
        const __m256i codes = _mm512_castsi512_si256(in_order(_mm512_packus_epi16(words, words)));
        if constexpr (kStreaming) {
            _mm256_stream_si256(reinterpret_cast<__m256i*>(y), codes);
        } else {
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(y), codes);
        }
        return true;
    }

    static std::int64_t count_nan_codes(const std::uint8_t* codes, std::int64_t count) {
        std::int64_t result = 0;
        std::int64_t i = 0;
        const __m512i nan = _mm512_set1_epi8(0x7f);
        for (; i + 64 <= count; i += 64) {
            const __m512i value = _mm512_and_si512(load512(codes + i), nan);
            result += __builtin_popcountll(_mm512_cmpeq_epi8_mask(value, nan));
        }
        for (; i < count; ++i) {
            result += (codes[i] & 0x7fU) == 0x7fU ? 1 : 0;
        }
        return result;
    }
};

}  // namespace

#if defined(REFIT_EMULATED_AVX512)
const Backend* emulated_avx512_backend() {
#else
const Backend* avx512_backend() {
#endif
    static const SimdBackend<Avx512> backend;
    return &backend;
}

}  // namespace refit::kernels::cpu

#else

namespace refit::kernels::cpu {

const Backend* avx512_backend() {
    return nullptr;
}

}  // namespace refit::kernels::cpu

#endif
