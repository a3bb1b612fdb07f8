// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "parallel/placement.hpp"

#include <cmath>
#include <cstddef>
#include <string>

#include "core/error.hpp"

namespace refit::parallel {
namespace {

/// Rounds to the nearest multiple of `multiple`, half up, within [low, high].
std::int64_t to_boundary(double position, std::int64_t multiple, std::int64_t low,
                         std::int64_t high) {
    const auto unit = static_cast<double>(multiple);
    const double boundary = std::floor(position / unit + 0.5) * unit;
    if (!(boundary > static_cast<double>(low))) return low;
    if (!(boundary < static_cast<double>(high))) return high;
    return static_cast<std::int64_t>(boundary);
}

void check(std::int64_t rows, const RowSharding& sharding) {
    if (rows < 0) {
        throw core::ShapeError("cannot shard " + std::to_string(rows) +
                               " rows; a tensor has 0 rows or more");
    }
    if (sharding.ranks < 1) {
        throw core::ScenarioError("trainer.ranks is " + std::to_string(sharding.ranks) +
                                  "; it must be at least 1");
    }
    if (sharding.multiple < 1) {
        throw core::ScenarioError("shard boundaries as multiples of " +
                                  std::to_string(sharding.multiple) +
                                  " rows are asked for; the multiple must be at least 1");
    }
    if (sharding.shares.empty()) return;
    if (sharding.shares.size() != static_cast<std::size_t>(sharding.ranks)) {
        throw core::ScenarioError("trainer shares: " + std::to_string(sharding.shares.size()) +
                                  " are given for " + std::to_string(sharding.ranks) +
                                  " ranks; give one for each rank");
    }
    double sum = 0.0;
    for (const double share : sharding.shares) {
        if (!(share >= 0.0) || !std::isfinite(share)) {
            throw core::ScenarioError("trainer shares: " + std::to_string(share) +
                                      " is given; a share is a finite number, 0 or more");
        }
        sum += share;
    }
    if (!(sum > 0.0) || !std::isfinite(sum)) {
        throw core::ScenarioError(
            "trainer shares add up to " + std::to_string(sum) +
            "; their sum must be finite and above 0, so that the rows have an owner");
    }
}

}  // namespace

std::vector<core::RowRange> shard_rows(std::int64_t rows, const RowSharding& sharding) {
    check(rows, sharding);
    std::vector<core::RowRange> ranges;
    ranges.reserve(static_cast<std::size_t>(sharding.ranks));
    std::int64_t begin = 0;
    if (sharding.shares.empty()) {
        // Ceiling division in units of `multiple`, as FSDP chunks the first dimension: the first
        // ranks are full, a later one holds the remainder, and those behind it nothing.
        const std::int64_t units = core::ceil_div(rows, sharding.multiple);
        const std::int64_t chunk = core::ceil_div(units, sharding.ranks) * sharding.multiple;
        for (int rank = 0; rank < sharding.ranks; ++rank) {
            const std::int64_t end = rows - begin < chunk ? rows : begin + chunk;
            ranges.push_back({begin, end});
            begin = end;
        }
        return ranges;
    }
    double sum = 0.0;
    std::size_t last_owner = 0;  // the last rank with a share above 0
    for (std::size_t rank = 0; rank < sharding.shares.size(); ++rank) {
        sum += sharding.shares[rank];
        if (sharding.shares[rank] > 0.0) last_owner = rank;
    }
    double cumulative = 0.0;
    for (std::size_t rank = 0; rank < sharding.shares.size(); ++rank) {
        cumulative += sharding.shares[rank];
        // The last owner takes the remainder below one multiple; a rank of share 0 takes nothing.
        std::int64_t end = begin;
        if (rank >= last_owner) {
            end = rows;
        } else if (sharding.shares[rank] > 0.0) {
            end = to_boundary(static_cast<double>(rows) * (cumulative / sum), sharding.multiple,
                              begin, rows);
        }
        ranges.push_back({begin, end});
        begin = end;
    }
    return ranges;
}

}  // namespace refit::parallel
