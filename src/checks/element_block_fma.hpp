// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The fast path of sum_block.
#pragma once

#include "checks/element_block.hpp"

namespace refit::checks {

/// Longest block: more additions to one F32 would lose more of the sums than 1e-6.
inline constexpr std::int64_t kMostFmaElements = 256;

/// sum_block with terms in F32: sums within 1e-6 of it, the same counts, and `above` decided within
/// 1e-6 of the threshold. False, with `sums` unspecified, where it cannot: another processor, a
/// count that is not a multiple of 32, a loaded scale with more bits than F32 or beyond
/// [2^-40, 2^40], a rounded quotient, NaN codes, a code whose sign is not that of its source.
[[nodiscard]] bool sum_block_fma(const ElementBlock& block, BlockSums& sums);

}  // namespace refit::checks
