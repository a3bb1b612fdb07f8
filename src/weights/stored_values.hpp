// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The values of a stored tensor as BF16.
#pragma once

#include <cstdint>

#include "core/shape.hpp"
#include "weights/stored_places.hpp"

namespace refit::weights {

/// `region` of the tensor at `at`, whose matrix has `cols` columns, as BF16: BF16 values unchanged,
/// F16 and F32 rounded to nearest even, any NaN of theirs as 0x7FC0.
/// out : [region.rows, region.cols], `out_stride` elements from row to row.
/// The caller has asked StoredPlaces::problem_of and checked the region.
void read_as_bf16(const StoredPlaces::Place& at, std::int64_t cols, const core::Region& region,
                  std::uint16_t* out, std::int64_t out_stride);

}  // namespace refit::weights
