// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What one thread does when it looks at loaded weights: decode, compare with the source, count.
// Sums are doubles, and which is added to which is fixed, so that device and host give the same
// bits.
#pragma once

#include <cstdint>
#include <limits>

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

/// The thread's elements of a patch, in the order of its chunks.
[[nodiscard]] REFIT_HD inline CheckSums check_patch(const CheckJob& job, std::int64_t patch_row,
                                                    std::int64_t patch_col, int thread) {
    CheckSums sums;
    const std::int64_t first = patch_row * kPatchRows + thread / kPatchLanes;
    const std::int64_t col = patch_col * kPatchCols + (thread % kPatchLanes) * kChunk;
    for (int pass = 0; pass < kPatchPasses; ++pass) {
        const std::int64_t row = first + pass * kPatchPassRows;
        for (int i = 0; i < kChunk; ++i) {
            if (row < job.rows && col + i < job.cols) check_element(job, row, col + i, sums);
        }
    }
    return sums;
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
