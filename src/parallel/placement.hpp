// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Who owns which rows of a tensor among the trainers.
#pragma once

#include <cstdint>
#include <vector>

#include "core/shape.hpp"

namespace refit::parallel {

/// How FSDP cuts the first dimension of every tensor.
struct RowSharding {
    int ranks = 1;
    std::int64_t multiple =
        128;  ///< shard boundaries are multiples of this; 1 lets them cut scaling tiles
    std::vector<double> shares;  ///< relative size of each rank's shard; empty = equal
};

/// Rows of each rank, in rank order, covering [0, rows) without overlap; a rank may own none.
[[nodiscard]] std::vector<core::RowRange> shard_rows(std::int64_t rows,
                                                     const RowSharding& sharding);

}  // namespace refit::parallel
