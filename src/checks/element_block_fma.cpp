// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The sums of element_block.hpp in F32, eight elements at a time, on processors with AVX2 and FMA.
// The build allows no contraction: what is fused is written as fused.
#include "checks/element_block_fma.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "checks/decode.hpp"
#include "checks/nearest_codes.hpp"

#if defined(__x86_64__) && defined(__gnu_linux__)

#include <immintrin.h>

namespace refit::checks {
namespace {

// With scales in this range no term of a weight that matters to a sum leaves the range of F32.
constexpr double kLeastScale = 0x1p-40;
constexpr double kMostScale = 0x1p40;
/// 2^120 times it is still an F32.
constexpr double kMostNearestScale = 0x1p7;

bool in_range(double scale) {
    return scale >= kLeastScale && scale <= kMostScale;
}

#define REFIT_FMA [[gnu::target("avx2,fma"), gnu::always_inline]] inline

/// What a block adds up, lane by lane.
struct Sums {
    __m256 x2;
    __m256 error2;
    __m256 x_error;
    __m256 expected2;
    __m256i exact;     ///< comparisons give -1: the counts are negative
    __m256 below;      ///< all bits set while every error is within the threshold
    __m256i opposite;  ///< sign bit set where a code and its source have different signs
};

struct Constants {
    __m256 loaded_scale;
    __m256 own_scale;
    __m256 own_reciprocal;
    __m256 relative_bound;
    __m256 smallest_bound;
};

/// Magnitudes of eight codes; `bits` holds them sign-extended. Normal codes are the upper bits of
/// an F32 whose exponent is 120 less. Below them the value is 2g - 2^-6, where g is what that rule
/// gives; for all others 2g - 2^-6 >= g.
REFIT_FMA __m256 decoded(__m256i bits) {
    const __m256i magnitude =
        _mm256_and_si256(_mm256_slli_epi32(bits, 20), _mm256_set1_epi32(0x07f00000));
    const __m256 g = _mm256_castsi256_ps(_mm256_add_epi32(magnitude, _mm256_set1_epi32(120 << 23)));
    return _mm256_min_ps(g, _mm256_fmsub_ps(g, _mm256_set1_ps(2.0F), _mm256_set1_ps(0x1p-6F)));
}

/// nearest_e4m3 of decode.hpp in F32: M = 1.5 * 2^20 * p has the spacing p / 8.
REFIT_FMA __m256 nearest(__m256 quotient) {
    const __m256 clamped = _mm256_min_ps(quotient, _mm256_set1_ps(448.0F));
    const __m256 binade =
        _mm256_max_ps(_mm256_and_ps(clamped, _mm256_castsi256_ps(_mm256_set1_epi32(0x7f800000))),
                      _mm256_set1_ps(0x1p-6F));
    const __m256 magic = _mm256_mul_ps(binade, _mm256_set1_ps(0x1.8p+20F));
    return _mm256_sub_ps(_mm256_add_ps(clamped, magic), magic);
}

REFIT_FMA void add_eight(const std::uint16_t* source, const std::uint8_t* codes,
                         const Constants& constants, Sums& sums) {
    const __m256i wide = _mm256_slli_epi32(
        _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source))), 16);
    const __m256i bits =
        _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes)));
    sums.opposite = _mm256_or_si256(sums.opposite, _mm256_xor_si256(wide, bits));
    const __m256 no_sign = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    const __m256 x = _mm256_and_ps(_mm256_castsi256_ps(wide), no_sign);

    // One rounding: zero only where the product is x.
    const __m256 error = _mm256_fmsub_ps(decoded(bits), constants.loaded_scale, x);
    const __m256 bound =
        _mm256_max_ps(_mm256_mul_ps(x, constants.relative_bound), constants.smallest_bound);
    sums.below =
        _mm256_and_ps(sums.below, _mm256_cmp_ps(_mm256_and_ps(error, no_sign), bound, _CMP_LE_OQ));
    sums.x2 = _mm256_fmadd_ps(x, x, sums.x2);
    sums.error2 = _mm256_fmadd_ps(error, error, sums.error2);
    sums.x_error = _mm256_fmadd_ps(x, error, sums.x_error);
    sums.exact = _mm256_add_epi32(
        sums.exact, _mm256_castps_si256(_mm256_cmp_ps(error, _mm256_setzero_ps(), _CMP_EQ_OQ)));

    // A reciprocal can move a quotient over a tie, where both neighbours have the same error.
    const __m256 expected = _mm256_fmsub_ps(nearest(_mm256_mul_ps(x, constants.own_reciprocal)),
                                            constants.own_scale, x);
    sums.expected2 = _mm256_fmadd_ps(expected, expected, sums.expected2);
}

REFIT_FMA double total(__m256 lanes) {
    const __m256d sum = _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(lanes)),
                                      _mm256_cvtps_pd(_mm256_extractf128_ps(lanes, 1)));
    const __m128d half = _mm_add_pd(_mm256_castpd256_pd128(sum), _mm256_extractf128_pd(sum, 1));
    return _mm_cvtsd_f64(_mm_add_sd(half, _mm_unpackhi_pd(half, half)));
}

/// What is rare enough to look for only where a code can be it.
void count_zeros_and_largest(const ElementBlock& block, BlockSums& sums) {
    for (std::int64_t i = 0; i < block.count; ++i) {
        const unsigned magnitude = block.codes[i] & 0x7fU;
        if (magnitude == 0) {
            sums.flushed += (block.source[i] & 0x7fffU) != 0 ? 1 : 0;
        } else if (magnitude == 0x7eU) {
            sums.saturated += std::abs(decode_bf16(block.source[i])) > block.saturation ? 1 : 0;
        }
    }
}

REFIT_FMA std::int64_t counted(__m256i lanes) {
    alignas(32) std::int32_t values[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(values), lanes);
    std::int64_t sum = 0;
    for (const std::int32_t lane : values) sum -= lane;
    return sum;
}

REFIT_FMA Constants constants_of(const ElementBlock& block) {
    Constants constants;
    constants.loaded_scale = _mm256_set1_ps(static_cast<float>(block.loaded_scale));
    constants.own_scale = _mm256_set1_ps(static_cast<float>(block.own_scale));
    constants.own_reciprocal = _mm256_set1_ps(static_cast<float>(1.0 / block.own_scale));
    constants.relative_bound = _mm256_set1_ps(static_cast<float>(block.threshold / 17.0));
    constants.smallest_bound =
        _mm256_set1_ps(static_cast<float>(block.threshold * block.own_scale / 1024.0));
    return constants;
}

REFIT_FMA Sums no_sums() {
    const __m256 zero = _mm256_setzero_ps();
    return {zero,
            zero,
            zero,
            zero,
            _mm256_setzero_si256(),
            _mm256_castsi256_ps(_mm256_set1_epi32(-1)),
            _mm256_setzero_si256()};
}

[[gnu::target("avx2,fma")]] bool sum_eights(const ElementBlock& block, BlockSums& result) {
    const Constants constants = constants_of(block);
    Sums sums = no_sums();
    // Magnitude 0 becomes 255, 0x7e and NaN 125 and 126.
    __m256i rare = _mm256_setzero_si256();
    for (std::int64_t i = 0; i < block.count; i += 32) {
        const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block.codes + i));
        rare = _mm256_max_epu8(
            rare,
            _mm256_add_epi8(_mm256_and_si256(codes, _mm256_set1_epi8(0x7f)), _mm256_set1_epi8(-1)));
#pragma GCC unroll 4
        for (int k = 0; k < 32; k += 8) {
            add_eight(block.source + i + k, block.codes + i + k, constants, sums);
        }
    }
    if (_mm256_movemask_ps(_mm256_castsi256_ps(sums.opposite)) != 0) {
        return false;
    }
    const __m256i from_largest =
        _mm256_cmpeq_epi8(rare, _mm256_max_epu8(rare, _mm256_set1_epi8(125)));
    result = BlockSums();
    if (_mm256_movemask_epi8(from_largest) != 0) {
        for (std::int64_t i = 0; i < block.count; ++i) {
            if ((block.codes[i] & 0x7fU) == 0x7fU) {
                return false;
            }
        }
        count_zeros_and_largest(block, result);
    }
    result.x2 = total(sums.x2);
    result.error2 = total(sums.error2);
    result.x_error = total(sums.x_error);
    result.expected_error2 = total(sums.expected2);
    result.above = _mm256_movemask_ps(sums.below) != 0xff;
    result.exact = counted(sums.exact);
    return std::isfinite(result.x2) && std::isfinite(result.error2) &&
           std::isfinite(result.expected_error2);
}

/// What rows add up where codes are the nearest ones.
struct NearestSums {
    __m256 x2;
    __m256 error2;
    __m256 x_error;
    __m256i exact;  ///< comparisons give -1
};

/// Constants in memory. The compiler would make them anew for each use, out of other registers.
struct alignas(32) Masks {
    std::uint16_t low[16];          ///< 0x7f: a BF16 significand
    std::uint16_t no_sign[16];      ///< 0x7fff
    std::uint32_t odd_no_sign[8];   ///< 0x7fff0000
    std::uint8_t nibble[32];        ///< 0x0f
    std::uint8_t code_no_sign[32];  ///< 0x7f
    std::uint8_t code_sign[32];     ///< 0x80
    /// Moves the bytes 0, 2, 4, 6 of both halves of a vector, 1, 3, 5, 7, 8, 10, 12, 14, or the
    /// rest each to the top of 32 bits.
    std::uint8_t tops[4][32];
};

constexpr Masks kMasks = [] {
    Masks masks{};
    for (auto& one : masks.low) one = 0x7f;
    for (auto& one : masks.no_sign) one = 0x7fff;
    for (auto& one : masks.odd_no_sign) one = 0x7fff0000;
    for (auto& one : masks.nibble) one = 0x0f;
    for (auto& one : masks.code_no_sign) one = 0x7f;
    for (auto& one : masks.code_sign) one = 0x80;
    for (unsigned k = 0; k < 4; ++k) {
        for (unsigned i = 0; i < 32; ++i) {
            const unsigned first = k / 2 * 8 + k % 2;
            masks.tops[k][i] =
                static_cast<std::uint8_t>(i % 4 == 3 ? first + 2 * (i % 16 / 4) : 0x80);
        }
    }
    return masks;
}();

REFIT_FMA const Masks& masks_in_memory() {
    const Masks* masks = &kMasks;
    asm("" : "+r"(masks));
    return *masks;
}

template <typename Element>
REFIT_FMA __m256i vector(const Element* mask) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(mask));
}

/// Loop constants of a tile.
struct NearestConstants {
    __m256i base;
    __m256i last_of_base;
    __m256i smallest;
    __m256 scale;  ///< the loaded one, times 2^120
};

REFIT_FMA NearestConstants constants_of(const NearestCodes& nearest) {
    NearestConstants constants;
    constants.base = _mm256_broadcastsi128_si256(
        _mm_load_si128(reinterpret_cast<const __m128i*>(nearest.base.data())));
    constants.last_of_base = _mm256_broadcastsi128_si256(
        _mm_load_si128(reinterpret_cast<const __m128i*>(nearest.last_of_base.data())));
    constants.smallest = _mm256_set1_epi16(static_cast<std::int16_t>(nearest.smallest));
    constants.scale = _mm256_set1_ps(static_cast<float>(nearest.loaded_scale) * 0x1p120F);
    return constants;
}

/// Magnitudes of eight elements, and their codes as F32 over 2^120.
template <bool kAnyExact>
REFIT_FMA void add_nearest(__m256i x_bits, __m256i code_tops, __m256 scale, NearestSums& sums) {
    const __m256 x = _mm256_castsi256_ps(x_bits);
    // A normal code without its sign is the upper bits of an F32 whose exponent is 120 less.
    const __m256 value = _mm256_castsi256_ps(_mm256_srli_epi32(code_tops, 4));
    const __m256 error = _mm256_fmsub_ps(value, scale, x);
    sums.x2 = _mm256_fmadd_ps(x, x, sums.x2);
    sums.error2 = _mm256_fmadd_ps(error, error, sums.error2);
    sums.x_error = _mm256_fmadd_ps(x, error, sums.x_error);
    if constexpr (kAnyExact) {
        sums.exact = _mm256_add_epi32(
            sums.exact, _mm256_castps_si256(_mm256_cmp_ps(error, _mm256_setzero_ps(), _CMP_EQ_OQ)));
    }
}

/// Elements that have been compared with the table.
struct Compared {
    __m256i equal;  ///< bytes of -1 while all codes are the table's
    __m256i least;  ///< magnitudes
};

/// Adds 32 elements as if they had the table's codes, and compares whether they do.
template <bool kAnyExact>
REFIT_FMA void add_32(const std::uint16_t* source, const std::uint8_t* codes,
                      const NearestConstants& constants, const Masks& masks, NearestSums& sums,
                      Compared& compared) {
    const __m256i x0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source));
    const __m256i x1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source + 16));
    const __m256i m0 = _mm256_and_si256(x0, vector(masks.no_sign));
    const __m256i m1 = _mm256_and_si256(x1, vector(masks.no_sign));
    compared.least = _mm256_min_epi16(compared.least, _mm256_min_epi16(m0, m1));
    const __m256i significand = _mm256_packus_epi16(_mm256_and_si256(x0, vector(masks.low)),
                                                    _mm256_and_si256(x1, vector(masks.low)));
    const __m256i upper =
        _mm256_packus_epi16(_mm256_and_si256(_mm256_srli_epi16(x0, 4), vector(masks.low)),
                            _mm256_and_si256(_mm256_srli_epi16(x1, 4), vector(masks.low)));
    const __m256i group = _mm256_and_si256(_mm256_srli_epi16(significand, 3), vector(masks.nibble));
    const __m256i next =
        _mm256_cmpgt_epi8(significand, _mm256_shuffle_epi8(constants.last_of_base, group));
    // In the order that packing gives: two times eight elements in each half.
    const __m256i magnitude = _mm256_and_si256(
        _mm256_sub_epi8(_mm256_add_epi8(upper, _mm256_shuffle_epi8(constants.base, group)), next),
        vector(masks.code_no_sign));
    // Saturation keeps the sign; a zero has none of the table's codes.
    const __m256i sign = _mm256_and_si256(_mm256_packs_epi16(x0, x1), vector(masks.code_sign));
    const __m256i expected = _mm256_permute4x64_epi64(_mm256_or_si256(magnitude, sign), 0xd8);
    compared.equal = _mm256_and_si256(
        compared.equal,
        _mm256_cmpeq_epi8(expected, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes))));
    // The sums need no signs, source and code having the same.
    const __m256i x[4] = {
        _mm256_slli_epi32(m0, 16), _mm256_and_si256(x0, vector(masks.odd_no_sign)),
        _mm256_slli_epi32(m1, 16), _mm256_and_si256(x1, vector(masks.odd_no_sign))};
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
        add_nearest<kAnyExact>(x[k], _mm256_shuffle_epi8(magnitude, vector(masks.tops[k])),
                               constants.scale, sums);
    }
}

/// Whether all had the table's codes, which are normal.
REFIT_FMA bool as_table(const Compared& compared, __m256i smallest) {
    const __m256i below = _mm256_cmpgt_epi16(smallest, compared.least);
    return _mm256_movemask_epi8(_mm256_andnot_si256(below, compared.equal)) == -1;
}

REFIT_FMA Compared nothing_compared() {
    return {_mm256_set1_epi8(-1), _mm256_set1_epi16(0x7fff)};
}

/// The elements that are not as the table says.
struct OtherElements {
    Sums sums;
    BlockSums counts;
    bool any;
};

/// 32 elements. False where one of their codes is NaN.
[[gnu::target("avx2,fma"), gnu::noinline]] bool add_others(const ElementBlock& block,
                                                           OtherElements& others) {
    const __m256i magnitudes = _mm256_and_si256(
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block.codes)), _mm256_set1_epi8(0x7f));
    const auto any = [&](std::int8_t magnitude) __attribute__((target("avx2,fma"), always_inline)) {
        return _mm256_movemask_epi8(_mm256_cmpeq_epi8(magnitudes, _mm256_set1_epi8(magnitude))) !=
               0;
    };
    if (any(0x7f)) return false;
    if (!others.any) {
        others.sums = no_sums();
        others.counts = {};
        others.any = true;
    }
    const Constants constants = constants_of(block);
    for (std::int64_t i = 0; i < 32; i += 8) {
        add_eight(block.source + i, block.codes + i, constants, others.sums);
    }
    if (any(0) || any(0x7e)) count_zeros_and_largest(block, others.counts);
    return true;
}

/// Elements of which at least one is not as the table says, 32 at a time.
template <bool kAnyExact>
[[gnu::target("avx2,fma"), gnu::noinline]] bool add_mixed(const ElementBlock& all,
                                                          const NearestConstants& constants,
                                                          NearestSums& sums,
                                                          OtherElements& others) {
    for (std::int64_t i = 0; i < all.count; i += 32) {
        NearestSums with = sums;
        Compared compared = nothing_compared();
        add_32<kAnyExact>(all.source + i, all.codes + i, constants, masks_in_memory(), with,
                          compared);
        if (as_table(compared, constants.smallest)) {
            sums = with;
            continue;
        }
        ElementBlock block = all;
        block.source += i;
        block.codes += i;
        block.count = 32;
        if (!add_others(block, others)) return false;
    }
    return true;
}

/// Elements of a row that are compared by one question.
constexpr std::int64_t kCompared = 128;

template <bool kAnyExact>
[[gnu::target("avx2,fma")]] bool sum_rows(const ElementRows& rows, const NearestCodes& nearest,
                                          BlockSums& result) {
    const NearestConstants constants = constants_of(nearest);
    const Masks& masks = masks_in_memory();
    const __m256 zero = _mm256_setzero_ps();
    NearestSums sums{zero, zero, zero, _mm256_setzero_si256()};
    OtherElements others;
    others.any = false;
    for (std::int64_t row = 0; row < rows.rows; ++row) {
        const std::uint16_t* source = rows.source + row * rows.source_stride;
        const std::uint8_t* codes = rows.codes + row * rows.code_stride;
        for (std::int64_t first = 0; first < rows.count; first += kCompared) {
            const std::int64_t end = std::min(first + kCompared, rows.count);
            NearestSums with = sums;
            Compared compared = nothing_compared();
            const std::uint16_t* x = source + first;
            const std::uint8_t* y = codes + first;
            if (end - first == kCompared) [[likely]] {
#pragma GCC unroll 4
                for (std::int64_t i = 0; i < kCompared; i += 32) {
                    // What lies to the right is wanted next, and short rows are not followed by
                    // themselves.
                    __builtin_prefetch(x + i + rows.count);
                    if (i % 64 == 0) __builtin_prefetch(y + i + rows.count);
                    add_32<kAnyExact>(x + i, y + i, constants, masks, with, compared);
                }
            } else {
                for (std::int64_t i = 0; i < end - first; i += 32) {
                    add_32<kAnyExact>(x + i, y + i, constants, masks, with, compared);
                }
            }
            if (as_table(compared, constants.smallest)) [[likely]] {
                sums = with;
                continue;
            }
            const ElementBlock block{x,
                                     y,
                                     end - first,
                                     nearest.loaded_scale,
                                     nearest.own_scale,
                                     false,
                                     rows.saturation,
                                     rows.threshold};
            if (!add_mixed<kAnyExact>(block, constants, sums, others)) return false;
        }
    }
    result = others.any ? others.counts : BlockSums();
    result.x2 = total(sums.x2);
    result.error2 = total(sums.error2);
    // A code that is the table's modulo 128 only: its error would be as large as the source.
    const double largest_ratio = nearest.worst_ratio / 17.0;
    if (!(result.error2 <= largest_ratio * largest_ratio * result.x2 * (1.0 + 1e-5))) return false;
    result.x_error = total(sums.x_error);
    result.expected_error2 = result.error2;
    result.exact = kAnyExact ? counted(sums.exact) : 0;
    result.above = nearest.worst_ratio > rows.threshold;
    if (others.any) {
        if (_mm256_movemask_ps(_mm256_castsi256_ps(others.sums.opposite)) != 0) return false;
        result.x2 += total(others.sums.x2);
        result.error2 += total(others.sums.error2);
        result.x_error += total(others.sums.x_error);
        result.expected_error2 += total(others.sums.expected2);
        result.exact += counted(others.sums.exact);
        result.above = result.above || _mm256_movemask_ps(others.sums.below) != 0xff;
    }
    return std::isfinite(result.x2) && std::isfinite(result.error2) &&
           std::isfinite(result.expected_error2);
}

#undef REFIT_FMA

bool has_fma() {
    static const bool supported =
        __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
    return supported;
}

}  // namespace

bool sum_nearest_rows(const ElementRows& rows, const NearestCodes& nearest, BlockSums& sums) {
    // Nothing that the table covers saturates.
    if (!has_fma() || nearest.smallest == 0x8000 || rows.count % 32 != 0 ||
        rows.rows * rows.count > kMostNearestElements || nearest.loaded_scale > kMostNearestScale ||
        rows.saturation < kE4m3Max * nearest.own_scale * (1.0 + 1e-6)) {
        return false;
    }
    return nearest.any_exact ? sum_rows<true>(rows, nearest, sums)
                             : sum_rows<false>(rows, nearest, sums);
}

bool sum_block_fma(const ElementBlock& block, BlockSums& sums) {
    if (!has_fma() || block.count == 0 || block.count % 32 != 0 || block.count > kMostFmaElements ||
        block.round_quotient_to_bf16 || block.divisor > 0.0 || !in_range(block.loaded_scale) ||
        !in_range(block.own_scale) ||
        static_cast<double>(static_cast<float>(block.loaded_scale)) != block.loaded_scale) {
        return false;
    }
    return sum_eights(block, sums);
}

}  // namespace refit::checks

#else

namespace refit::checks {

bool sum_nearest_rows(const ElementRows& /*rows*/, const NearestCodes& /*nearest*/,
                      BlockSums& /*sums*/) {
    return false;
}

bool sum_block_fma(const ElementBlock& /*block*/, BlockSums& /*sums*/) {
    return false;
}

}  // namespace refit::checks

#endif
