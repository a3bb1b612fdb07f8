// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The inner loops of the audit: what is done with every element.
#pragma once

#include <cstdint>
#include <vector>

#include "checks/audit.hpp"
#include "checks/nearest_codes.hpp"

namespace refit::checks {

/// Neighbouring elements of one row that share the engine's scale and the source's own.
struct Segment {
    const std::uint16_t* source = nullptr;  ///< [count] BF16
    const std::uint8_t* codes = nullptr;    ///< [count] E4M3FN, as loaded
    std::int64_t count = 0;
    double loaded_scale = 0.0;  ///< what the engine multiplies with
    double own_scale = 0.0;  ///< from the source's amax; 0 where the tile holds nothing but zeros
    double divisor = 0.0;    ///< of the expected code, where it is not own_scale; 0: own_scale
    bool round_quotient_to_bf16 = false;  ///< see SchemeFacts
    bool source_finite = true;  ///< false: the tile holds a NaN or an Inf, look at each element
    const NearestCodes* nearest = nullptr;  ///< of the tile, if it is large enough for a table
};

/// Largest |x| of `count` BF16 values as bits; 0x7f80 and above where one of them is not finite.
[[nodiscard]] std::uint16_t largest_magnitude(const std::uint16_t* values, std::int64_t count);

/// True for NaN and Inf.
[[nodiscard]] inline bool nonfinite_bf16(std::uint16_t bits) {
    return (bits & 0x7f80U) == 0x7f80U;
}

/// |decoded - source| over the bound of a legal element, max(|source| / 17, own_scale / 1024).
/// +inf where the decoded value is NaN, or is not zero in a tile that holds nothing but zeros.
[[nodiscard]] double error_over_bound(double source, double decoded, double own_scale);

/// Further rows below a segment, of the same tile and scale.
struct SegmentRows {
    std::int64_t rows = 1;           ///< with the segment's own
    std::int64_t source_stride = 0;  ///< elements
    std::int64_t code_stride = 0;
};

/// Adds the rows to the counters and sums of `audit` and returns true where a look at all of them
/// together tells that no element is beyond the bound and none is the worst so far; else does
/// nothing, and each row is for walk_segment. At most kMostNearestElements elements.
[[nodiscard]] bool walk_rows(const Segment& segment, const SegmentRows& rows, double slack,
                             TensorAudit& audit);

/// Adds the segment to the counters and sums of `audit` (`mismatched` included), and writes the
/// positions of elements beyond the bound to `beyond` and of non-finite source elements to
/// `nonfinite` (both are cleared first). Non-finite source elements enter neither sums nor
/// counters.
void walk_segment(const Segment& segment, double slack, TensorAudit& audit,
                  std::vector<std::int64_t>& beyond, std::vector<std::int64_t>& nonfinite);

}  // namespace refit::checks
