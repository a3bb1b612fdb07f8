// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What can be said of a tensor from its bytes alone: NaN, Inf, and scales that cannot be scales.
//
// Works on a stretch of bytes at a time, so that a checkpoint need not fit into memory, at about
// the speed of memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/dtype.hpp"

namespace refit::checks {

/// Counters of one tensor; additive over its stretches.
struct ValueCounts {
    std::int64_t nan = 0;
    std::int64_t inf = 0;
    std::int64_t zero = 0;                ///< of a scale only
    std::int64_t negative = 0;            ///< of a scale only; -0 counts as zero
    std::int64_t extreme = 0;             ///< of a scale only; see is_extreme_scale
    std::int64_t first_nonfinite = -1;    ///< flat index
    std::int64_t first_nonpositive = -1;  ///< flat index, of a scale only
    std::int64_t first_extreme = -1;      ///< flat index, of a scale only
    double first_nonfinite_value = 0.0;
    double first_nonpositive_value = 0.0;
    double first_extreme_value = 0.0;

    [[nodiscard]] std::int64_t nonfinite() const { return nan + inf; }
    [[nodiscard]] std::int64_t nonpositive() const { return zero + negative; }
};

enum class ValueKind {
    plain,  ///< weights, norms, biases, codes
    scale   ///< U8 bytes are E8M0, and values at or below zero and extreme ones count
};

/// Adds `bytes`, whole elements from flat index `first` on, to `counts`. Integers have neither NaN
/// nor sign to look for, but for U8 as a scale. `bytes` need not be aligned.
void scan_values(core::DType dtype, ValueKind kind, std::span<const std::byte> bytes,
                 std::int64_t first, ValueCounts& counts);

/// The value of element `index` of `bytes`; exact. U8 is an E8M0 byte where `kind` is scale, a
/// whole number otherwise; so are the other integers. Of a complex number it is the real part.
/// Throws ShapeError for types of less than a byte.
[[nodiscard]] double value_at(core::DType dtype, ValueKind kind, std::span<const std::byte> bytes,
                              std::size_t index);

}  // namespace refit::checks
