// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What one thread does when it looks at loaded weights: decode, compare with the source, count.
// Which sum is added to which is fixed, and every operation is rounded once, so that device and
// host give the same bits.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/cuda/decode_program.hpp"
#include "kernels/cuda/tile_program.hpp"
#include "kernels/numerics/bfloat16.hpp"
#include "kernels/numerics/float8.hpp"

namespace refit::kernels::cuda {

/// Index that stands for "none".
inline constexpr std::int64_t kNowhere = 0x7fffffffffffffff;

/// Loaded codes of a whole [rows, cols] matrix beside their source.
struct CheckJob {
    const std::uint16_t* source = nullptr;  ///< BF16
    std::int64_t source_stride = 0;         ///< elements
    const std::uint8_t* codes = nullptr;    ///< E4M3FN, as loaded
    std::int64_t code_stride = 0;
    const float* scale_inv = nullptr;   ///< [grid_rows, grid_cols], as loaded
    const double* own_scale = nullptr;  ///< the same, from the source alone; 0 of a tile of zeros
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    std::int64_t tile_rows = 0;
    std::int64_t tile_cols = 0;
    std::int64_t grid_cols = 0;
    double slack = 0.0;  ///< an element is beyond the bound where error > bound * (1 + slack)
};

/// What is known after some of the elements. Elements whose source is NaN or Inf are counted in
/// `nonfinite` and nowhere else.
struct CheckSums {
    double x2 = 0.0;
    double error2 = 0.0;  ///< NaN where a decoded value is
    double x_error = 0.0;
    double worst = 0.0;  ///< largest error over bound; +inf where a decoded value is NaN
    std::int64_t elements = 0;
    std::int64_t saturated = 0;  ///< codes +-448 where |x| is above 448 scales by more than slack
    std::int64_t flushed = 0;    ///< code 0 where x is not 0
    std::int64_t exact = 0;
    std::int64_t beyond = 0;
    std::int64_t nonfinite = 0;
    std::int64_t first_beyond = kNowhere;  ///< row * cols + column
    std::int64_t first_nonfinite = kNowhere;
};

REFIT_HD inline void merge(CheckSums& into, const CheckSums& other) {
    into.x2 += other.x2;
    into.error2 += other.error2;
    into.x_error += other.x_error;
    into.worst = other.worst > into.worst ? other.worst : into.worst;
    into.elements += other.elements;
    into.saturated += other.saturated;
    into.flushed += other.flushed;
    into.exact += other.exact;
    into.beyond += other.beyond;
    into.nonfinite += other.nonfinite;
    into.first_beyond =
        other.first_beyond < into.first_beyond ? other.first_beyond : into.first_beyond;
    into.first_nonfinite =
        other.first_nonfinite < into.first_nonfinite ? other.first_nonfinite : into.first_nonfinite;
}

[[nodiscard]] REFIT_HD constexpr double magnitude_of(double x) {
    return x < 0.0 ? -x : x;
}

/// A value of a binade is at most 1/16 of the binade away from the nearest normal code; that is
/// 1/17 of the value where it is worst, 17/16 of the binade. A subnormal code is at most 2^-10
/// scales away.
[[nodiscard]] REFIT_HD constexpr double bound_of(double magnitude, double own_scale) {
    const double relative = magnitude * (1.0 / 17.0);
    const double smallest = own_scale / 1024.0;
    return relative < smallest ? smallest : relative;
}

/// The ratio of what no bound allows.
inline constexpr double kBeyondAll = std::numeric_limits<double>::infinity();

REFIT_HD inline void check_element(const CheckJob& job, std::int64_t row, std::int64_t col,
                                   CheckSums& sums) {
    const std::int64_t index = row * job.cols + col;
    const std::uint16_t bits = job.source[row * job.source_stride + col];
    if (numerics::abs_bits(bits) >= 0x7f800000U) {
        sums.nonfinite += 1;
        sums.first_nonfinite = index < sums.first_nonfinite ? index : sums.first_nonfinite;
        return;
    }
    const std::int64_t tile = (row / job.tile_rows) * job.grid_cols + col / job.tile_cols;
    const double x = static_cast<double>(numerics::bf16_to_f32(bits));
    const double code =
        static_cast<double>(numerics::e4m3_to_f32(job.codes[row * job.code_stride + col]));
    const double scale = static_cast<double>(job.scale_inv[tile]);
    // 4 by 24 significant bits: the product of doubles is exact.
    const double error = code * scale - x;
    const double magnitude = magnitude_of(x);
    const double distance = magnitude_of(error);
    const double bound = bound_of(magnitude, job.own_scale[tile]);
    // Written so that NaN is beyond every bound.
    const bool within = distance <= bound * (1.0 + job.slack);
    const double ratio = distance / bound;
    const double worst = distance == 0.0 ? 0.0 : (ratio >= 0.0 ? ratio : kBeyondAll);
    sums.x2 += x * x;
    sums.error2 += error * error;
    sums.x_error += x * error;
    sums.worst = worst > sums.worst ? worst : sums.worst;
    sums.elements += 1;
    sums.exact += error == 0.0 ? 1 : 0;
    sums.flushed += code == 0.0 && magnitude > 0.0 ? 1 : 0;
    sums.saturated +=
        magnitude_of(code) == 448.0 && magnitude > 448.0 * scale * (1.0 + job.slack) ? 1 : 0;
    if (!within) {
        sums.beyond += 1;
        sums.first_beyond = index < sums.first_beyond ? index : sums.first_beyond;
    }
}

/// What a fast look at a chunk needs beside its job.
struct CheckChunk {
    Chunk source;
    CodeChunk codes;
    float scale = 0.0F;
    float smallest = 0.0F;  ///< bound of small values: the own scale / 1024
};

/// The sums that every element changes; the others stay in CheckSums, which a device keeps in
/// shared memory.
struct HotSums {
    double x2 = 0.0;
    double error2 = 0.0;
    double x_error = 0.0;
    int elements = 0;
    int flushed = 0;
    int exact = 0;
};

/// Two codes that are no NaN as F32, exact. Source: PTX ISA, cvt.rn.f16x2.e4m3x2; every E4M3 number
/// is an F16 number.
REFIT_HD inline void decode_pair(std::uint32_t codes, float& first, float& second) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    std::uint32_t halves = 0;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(static_cast<std::uint16_t>(codes)));
    asm("{.reg .f16 low, high; mov.b32 {low, high}, %2; cvt.f32.f16 %0, low; cvt.f32.f16 %1, high;}"
        : "=f"(first), "=f"(second)
        : "r"(halves));
#else
    first = decoded(codes & 0xffU);
    second = decoded(codes >> 8 & 0xffU);
#endif
}

/// 0x80 in every byte of `codes` that holds a zero, of either sign.
[[nodiscard]] REFIT_HD constexpr std::uint32_t zero_codes(std::uint32_t codes) {
    return ~((codes & 0x7f7f7f7fU) + 0x7f7f7f7fU) & 0x80808080U;
}

/// Elements among the eight whose code is a zero and whose source is not.
[[nodiscard]] REFIT_HD constexpr int flushed_in(const Chunk& source, const CodeChunk& codes) {
    int flushed = 0;
    for (int i = 0; i < kChunk; ++i) {
        const bool zero = (zero_codes(codes.words[i / 4]) >> (8 * (i % 4)) & 0x80U) != 0U;
        flushed += zero && (source.words[i / 2] >> (16 * (i % 2)) & 0x7fffU) != 0U ? 1 : 0;
    }
    return flushed;
}

/// What the sums do not say of one element: its part in `worst`, `beyond` and `saturated`.
REFIT_HD inline void weigh_element(const CheckJob& job, std::int64_t row, std::int64_t col,
                                   CheckSums& sums) {
    CheckSums one;
    check_element(job, row, col, one);
    sums.worst = one.worst > sums.worst ? one.worst : sums.worst;
    sums.saturated += one.saturated;
    sums.beyond += one.beyond;
    sums.first_beyond = one.first_beyond < sums.first_beyond ? one.first_beyond : sums.first_beyond;
}

/// Sums of a chunk are taken in F32 where its scale and sums lie in these ranges; then no square
/// overflows, what underflows is below 2^-40 of its sum, and c * s - x is 0 only where it is
/// exactly 0.
inline constexpr float kLeastQuickScale = 0x1p-100F;
inline constexpr float kLargestQuickScale = 0x1p100F;
inline constexpr float kLeastQuickSource2 = 0x1p-80F;
inline constexpr float kLeastQuickError2 = 0x1p-100F;
inline constexpr float kLargestQuickSum = 0x1p100F;
/// So far below 1 that no rounding to F32 here accepts an error that counts.
inline constexpr float kQuickMargin = 1.0F - 0x1p-20F;

/// The same as check_element over eight elements, in F32: one rounding of each error, eight squares
/// a sum (right to 2^-21; a sum of products to 2^-21 of the root of both), and counts that are
/// exact. A device does 13 operations on doubles an element too slowly. An element whose error is
/// no larger than `reached` (at most 1) times its bound, and whose code is not the largest, changes
/// neither the largest ratio nor the counts; the others are looked at again in doubles. Returns
/// false, with nothing added, where a value or a code is not finite or F32 cannot hold the sums.
[[nodiscard]] REFIT_HD inline bool check_whole_chunk(const CheckJob& job, std::int64_t row,
                                                     std::int64_t col, const CheckChunk& chunk,
                                                     float reached, HotSums& hot, CheckSums& sums) {
    std::uint32_t nan_codes = 0;
    std::uint32_t not_finite = 0;
    std::uint32_t values = 0;
    for (int i = 0; i < 2; ++i)
        nan_codes |= ((chunk.codes.words[i] & 0x7f7f7f7fU) + 0x01010101U) & 0x80808080U;
    for (int i = 0; i < 4; ++i) {
        const std::uint32_t magnitudes = chunk.source.words[i] & 0x7fff7fffU;
        not_finite |= (magnitudes + 0x00800080U) & 0x80008000U;
        values |= magnitudes;
    }
    // Written so that a NaN is outside.
    const bool usual = chunk.scale >= kLeastQuickScale && chunk.scale <= kLargestQuickScale;
    if ((nan_codes | not_finite) != 0U || !usual) return false;
    const float accepted = (reached < 1.0F ? reached : 1.0F) * kQuickMargin;
    const float accepted_part = accepted * (1.0F / 17.0F);
    // A subnormal product may be rounded up by more than the margin; 0 accepts nothing wrongly.
    const float least = accepted * chunk.smallest;
    const float accepted_least = least >= 0x1p-100F ? least : 0.0F;
    float x2 = 0.0F;
    float error2 = 0.0F;
    float x_error = 0.0F;
    int exact = 0;
    std::uint32_t suspects = 0;
    REFIT_UNROLL
    for (int i = 0; i < kChunk; i += 2) {
        float code[2];
        decode_pair(chunk.codes.words[i / 4] >> (8 * (i % 4)) & 0xffffU, code[0], code[1]);
        const std::uint32_t pair = chunk.source.words[i / 2];
        const float x[2] = {std::bit_cast<float>(pair << 16),
                            std::bit_cast<float>(pair & 0xffff0000U)};
        REFIT_UNROLL
        for (int k = 0; k < 2; ++k) {
            const float error = std::fma(code[k], chunk.scale, -x[k]);
            x2 = std::fma(x[k], x[k], x2);
            error2 = std::fma(error, error, error2);
            x_error = std::fma(x[k], error, x_error);
            exact += error == 0.0F ? 1 : 0;
            // The sign of what is left of the bound: as bit 7 - i, by one shift of both words.
            const float left =
                std::fmax(accepted_part * std::fabs(x[k]), accepted_least) - std::fabs(error);
            suspects = suspects << 1 | std::bit_cast<std::uint32_t>(left) >> 31;
        }
    }
    const bool held = (x2 >= kLeastQuickSource2 || values == 0U) && x2 <= kLargestQuickSum &&
                      (error2 >= kLeastQuickError2 || exact == kChunk) &&
                      error2 <= kLargestQuickSum;
    if (!held) return false;
    hot.x2 += static_cast<double>(x2);
    hot.error2 += static_cast<double>(error2);
    hot.x_error += static_cast<double>(x_error);
    hot.exact += exact;
    hot.elements += kChunk;
    if ((zero_codes(chunk.codes.words[0]) | zero_codes(chunk.codes.words[1])) != 0U)
        hot.flushed += flushed_in(chunk.source, chunk.codes);
    for (int i = 0; i < 2; ++i) {
        const std::uint32_t largest = zero_codes(chunk.codes.words[i] ^ 0x7e7e7e7eU);
        if (largest == 0U) continue;
        for (int k = 0; k < 4; ++k) suspects |= (largest >> (8 * k + 7) & 1U) << (7 - 4 * i - k);
    }
    for (int i = 0; suspects != 0U; ++i, suspects = suspects << 1 & 0xffU) {
        if ((suspects & 0x80U) != 0U) weigh_element(job, row, col + i, sums);
    }
    return true;
}

/// Moves the counts and writes the sums.
REFIT_HD inline void put(HotSums& hot, CheckSums& sums) {
    sums.x2 = hot.x2;
    sums.error2 = hot.error2;
    sums.x_error = hot.x_error;
    sums.elements += hot.elements;
    sums.flushed += hot.flushed;
    sums.exact += hot.exact;
    hot.elements = hot.flushed = hot.exact = 0;
}

/// The thread's elements of a patch, in the order of its chunks; `sums` is set. `reached` : the
/// largest ratio that is known to stand in some sums of this matrix already, 0 at first; it grows,
/// and `share(reached)` gives what neighbouring threads know, called by all of them in every pass.
/// Sums of one patch may then miss a largest ratio that is not larger; merged over all patches they
/// are the same.
template <class Share>
REFIT_HD inline void check_patch(const CheckJob& job, std::int64_t patch_row,
                                 std::int64_t patch_col, int thread, double& reached,
                                 const Share& share, CheckSums& sums) {
    sums = {};
    HotSums hot;
    const std::int64_t first = patch_row * kPatchRows + thread / kPatchLanes;
    const std::int64_t col = patch_col * kPatchCols + (thread % kPatchLanes) * kChunk;
    const bool wide = col + kChunk <= job.cols && chunks_fit_tiles(job.tile_cols, job.cols) &&
                      job.source_stride % kChunk == 0 && job.code_stride % kChunk == 0 &&
                      reinterpret_cast<std::uintptr_t>(job.source) % 16 == 0 &&
                      reinterpret_cast<std::uintptr_t>(job.codes) % 8 == 0;
    const std::int64_t grid_col = quotient_of(col, job.tile_cols);
    // Two passes at a time: their chunks are read before either is looked at.
    for (int pass = 0; pass < kPatchPasses; pass += 2) {
        CheckChunk chunks[2];
        REFIT_UNROLL
        for (int k = 0; k < 2; ++k) {
            const std::int64_t row = first + (pass + k) * kPatchPassRows;
            if (!wide || row >= job.rows) continue;
            chunks[k].source = wide_chunk(job.source + row * job.source_stride + col);
            const std::uint8_t* codes = job.codes + row * job.code_stride + col;
#if defined(__CUDA_ARCH__)
            const uint2 two = __ldg(reinterpret_cast<const uint2*>(codes));
            chunks[k].codes.words[0] = two.x;
            chunks[k].codes.words[1] = two.y;
#else
            std::memcpy(&chunks[k].codes, codes, sizeof(CodeChunk));
#endif
            const std::int64_t tile = quotient_of(row, job.tile_rows) * job.grid_cols + grid_col;
            chunks[k].scale = job.scale_inv[tile];
            chunks[k].smallest = static_cast<float>(job.own_scale[tile] / 1024.0);
        }
        REFIT_UNROLL
        for (int k = 0; k < 2; ++k) {
            const std::int64_t row = first + (pass + k) * kPatchPassRows;
            const bool done = row >= job.rows ||
                              (wide && check_whole_chunk(job, row, col, chunks[k],
                                                         static_cast<float>(reached), hot, sums));
            if (!done) {
                put(hot, sums);
                for (int i = 0; i < kChunk; ++i) {
                    if (col + i < job.cols) check_element(job, row, col + i, sums);
                }
                hot.x2 = sums.x2;
                hot.error2 = sums.error2;
                hot.x_error = sums.x_error;
            }
            reached = share(sums.worst > reached ? sums.worst : reached);
        }
    }
    put(hot, sums);
}

/// One step of the tree that brings a block's sums together: thread `thread` < `distance` takes
/// those `distance` further. Barriers lie between the steps; distances are 128, 64 .. 1.
REFIT_HD inline void merge_step(CheckSums* sums, int thread, int distance) {
    if (thread < distance) merge(sums[thread], sums[thread + distance]);
}

[[nodiscard]] constexpr std::int64_t patches_across(const CheckJob& job) {
    return (job.cols + kPatchCols - 1) / kPatchCols;
}
[[nodiscard]] constexpr std::int64_t patches_down(const CheckJob& job) {
    return (job.rows + kPatchRows - 1) / kPatchRows;
}

/// Non-finite values of a flat range.
struct NonfiniteCounts {
    unsigned long long nan = 0;
    unsigned long long inf = 0;
    unsigned long long first = ~0ULL;  ///< index
};

/// 0 finite, 1 NaN, 2 Inf.
[[nodiscard]] REFIT_HD constexpr int nonfinite_kind(std::uint16_t value) {
    const std::uint32_t bits = numerics::abs_bits(value);
    return bits < 0x7f800000U ? 0 : (bits > 0x7f800000U ? 1 : 2);
}

}  // namespace refit::kernels::cuda
