// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What the audit sums over elements, without a branch.
#pragma once

#include <cstdint>

namespace refit::checks {

/// Neighbouring elements, all of a finite source, that share both scales.
struct ElementBlock {
    const std::uint16_t* source = nullptr;  ///< [count] BF16
    const std::uint8_t* codes = nullptr;    ///< [count] E4M3FN, as loaded
    std::int64_t count = 0;
    double loaded_scale = 0.0;
    double own_scale = 0.0;               ///< above 0
    bool round_quotient_to_bf16 = false;  ///< before the expected code
    double saturation = 0.0;              ///< magnitudes above it saturate with the loaded scale
    double threshold = 0.0;               ///< of error over bound
    double divisor = 0.0;  ///< of the expected code, where it is not own_scale; 0: own_scale
};

struct BlockSums {
    double x2 = 0.0;
    double error2 = 0.0;           ///< NaN where a decoded value is
    double x_error = 0.0;          ///< source times error
    double expected_error2 = 0.0;  ///< of the nearest code under the own scale
    std::int64_t saturated = 0;
    std::int64_t flushed = 0;
    std::int64_t exact = 0;
    /// Whether some error is above its bound * threshold, or NaN: look at each element.
    bool above = false;
};

/// Sums over the elements of the block, with every term the double that the definitions of
/// decode.hpp give; only the order of additions is fixed to four interleaved sums. How wide the
/// instructions are is chosen at run time and changes no bit.
[[nodiscard]] BlockSums sum_block_exactly(const ElementBlock& block);

/// The same by the fastest way there is: sums within 1e-6, the same counts, and `above` decided
/// within 1e-6 of the threshold.
[[nodiscard]] BlockSums sum_block(const ElementBlock& block);

}  // namespace refit::checks
