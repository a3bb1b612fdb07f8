// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A stored tensor against the unquantized one that it was made from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "checks/scale_layout.hpp"
#include "core/dtype.hpp"

namespace refit::checks {

/// A matrix in memory, row by row without gaps.
struct StoredMatrix {
    core::DType dtype = core::DType::bf16;
    std::span<const std::byte> bytes;
    std::int64_t rows = 0;
    std::int64_t cols = 0;
};

/// What quantizing did to one matrix. Elements whose source is not finite, whose code is NaN or
/// whose scale is negative or not finite are left out: they are findings of their own.
struct RoundTrip {
    std::int64_t elements = 0;
    /// |d - x| above the bound of a legal element, whatever the recipe: |x| (1/17 + 1/128) +
    /// s'/1024, where s' is the stored scale but at most twice the smallest that holds the tile's
    /// own amax. 1/17 is E4M3's largest relative rounding error, 1/128 leaves room for scales or
    /// quotients rounded to BF16, s'/1024 is half the spacing of the subnormal codes, and twice
    /// allows for scales that are powers of two.
    std::int64_t beyond = 0;
    /// Of `beyond`: codes of largest magnitude of a value that is up to 1.3 times larger. Recipes
    /// that search the best range clip so on purpose.
    std::int64_t clipped = 0;
    /// The code is not the nearest to x / s, by more than arithmetic in F32 explains. Nearly every
    /// recipe gives none; one that rounds scales to BF16 after use gives some in every tensor.
    std::int64_t unlike = 0;
    std::int64_t first_beyond = -1;  ///< flat index
    std::int64_t first_unlike = -1;  ///< flat index
    double source = 0.0;             ///< at first_beyond, or at first_unlike where there is none
    double loaded = 0.0;
    double sum_x2 = 0.0;
    double sum_error2 = 0.0;
};

/// Compares codes [rows, cols] F8_E4M3 times their scales with `source` (BF16, F16 or F32) of the
/// same extent. `scales` : one a tile, row-major. `done(begin, end)` is called once rows [begin,
/// end) of both will not be looked at for a while, so that their memory can be given back.
[[nodiscard]] RoundTrip compare_codes(const StoredMatrix& codes, std::span<const double> scales,
                                      const ScaleLayout& layout, const StoredMatrix& source,
                                      const std::function<void(std::int64_t, std::int64_t)>& done);

/// Counters of one tensor that is not quantized; additive over its stretches.
struct RawDifference {
    std::int64_t differing = 0;
    std::int64_t first = -1;  ///< flat index
    double source = 0.0;      ///< at `first`
    double loaded = 0.0;
};

/// Compares stretches of a tensor and of its source, element by element: bytes where the dtypes are
/// equal; else values, equal where one is the other rounded to its own dtype (nearest, ties to
/// even). Any two NaNs of different dtypes are equal.
void compare_raw(core::DType dtype, std::span<const std::byte> bytes, core::DType source_dtype,
                 std::span<const std::byte> source, std::int64_t first, RawDifference& difference);

}  // namespace refit::checks
