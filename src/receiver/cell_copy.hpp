// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// One cell into host memory: copied or converted, and hashed on the way. Private to src/receiver.
#pragma once

#include <cstddef>
#include <cstdint>

#include "receiver/incoming_cell.hpp"
#include "receiver/loader_findings.hpp"
#include "wire/checksum.hpp"

namespace refit::receiver {

/// Takes a cell to its destination stripe by stripe. A stripe is small enough to be in the cache
/// still when it is hashed:
///
///     while (!copy.done()) {
///         copy.copy_stripe();
///         copy.hash_stripe(digest);
///     }
class CellCopy {
 public:
    /// `piece` and `destination` are where those begin; both and `cell` outlive this. Where
    /// `copies` is false nothing is written: the cell is hashed and its scales are looked at.
    CellCopy(const IncomingCell& cell, const std::byte* piece, std::byte* destination, bool copies);

    [[nodiscard]] bool done() const { return row_ >= cell_.region.rows; }
    /// Copies or converts the next rows.
    void copy_stripe();
    /// Hashes the same rows as they came and goes on to the next; returns how many bytes they are.
    std::int64_t hash_stripe(wire::DigestStream& digest);
    /// Of the rows so far.
    [[nodiscard]] const BadScales& bad_scales() const { return bad_; }

 private:
    [[nodiscard]] std::int64_t stripe_rows() const;
    /// Values from row `r` of the stripe on; more than one row only where rows lie without gaps.
    void convert_run(std::int64_t r, std::int64_t count);
    /// `first` is the place of the first value in the cell, counted row by row.
    void look_at_scales(const float* values, std::int64_t count, std::int64_t first);

    const IncomingCell& cell_;
    const std::int64_t width_;  ///< bytes of a row as it comes
    const bool copies_;
    const bool by_value_;     ///< converted, or scales that are looked at
    const bool from_whole_;   ///< the rows lie without gaps in the piece
    const bool to_whole_;     ///< and in the destination
    const bool hashes_copy_;  ///< the destination is hashed instead of the piece
    const std::int64_t most_rows_;
    std::int64_t row_ = 0;  ///< the first of the stripe, in the cell
    const std::byte* from_;
    std::byte* to_;
    BadScales bad_;
};

}  // namespace refit::receiver
