// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Digests of what one entry of a piece holds, made while its bytes are in the cache.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/shape.hpp"
#include "wire/checksum.hpp"
#include "wire/manifest.hpp"
#include "wire/piece.hpp"

namespace refit::trainer {

/// Digests of the cells of one entry, fed row range by row range.
class EntryDigests {
 public:
    EntryDigests(const wire::ParameterMeta& meta, const core::Region& region)
        : element_bytes_(core::size_bytes(meta.dtype)),
          row_bytes_(region.cols * element_bytes_),
          first_col_(region.col) {
        for (const wire::Cell& cell : wire::cells_in_region(meta, region))
            cells_.push_back({cell, wire::DigestStream()});
    }

    /// `data` is the first byte of row `rows.begin`; rows follow each other without gaps.
    void update(const core::RowRange& rows, const std::byte* data) {
        for (OneCell& one : cells_) {
            const core::Region& region = one.cell.region;
            const std::int64_t begin = std::max(rows.begin, region.row);
            const std::int64_t end = std::min(rows.end, region.row + region.rows);
            if (begin >= end) continue;
            const std::byte* first = data + (begin - rows.begin) * row_bytes_ +
                                     (region.col - first_col_) * element_bytes_;
            const auto width = static_cast<std::size_t>(region.cols * element_bytes_);
            if (region.cols * element_bytes_ == row_bytes_) {
                one.stream.update(first, static_cast<std::size_t>((end - begin) * row_bytes_));
            } else {
                for (std::int64_t r = begin; r < end; ++r, first += row_bytes_)
                    one.stream.update(first, width);
            }
        }
    }

    void append_to(std::uint32_t parameter, std::vector<wire::DigestRecord>& records) const {
        for (const OneCell& one : cells_)
            records.push_back({parameter, one.cell.index, one.stream.value()});
    }

 private:
    struct OneCell {
        wire::Cell cell;
        wire::DigestStream stream;
    };
    std::vector<OneCell> cells_;
    std::int64_t element_bytes_;
    std::int64_t row_bytes_;
    std::int64_t first_col_;
};

}  // namespace refit::trainer
