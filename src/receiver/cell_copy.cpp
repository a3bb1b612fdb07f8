// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/cell_copy.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "quant/element_values.hpp"

namespace refit::receiver {
namespace {

/// Copied and hashed at a time, small enough to stay in the cache between the two.
constexpr std::int64_t kStripeBytes = 128 * 1024;
/// Converted at a time.
constexpr std::int64_t kValues = 256;

}  // namespace

CellCopy::CellCopy(const IncomingCell& cell, const std::byte* piece, std::byte* destination,
                   bool copies)
    : cell_(cell),
      width_(cell.row_bytes()),
      copies_(copies),
      by_value_(cell.converts() || cell.is_scale),
      from_whole_(width_ == cell.from_stride),
      to_whole_(cell.region.cols * cell.to_element() == cell.to_stride),
      // The copy is hashed where it is contiguous and what came is not: one call a stripe instead
      // of one a row.
      hashes_copy_(copies && !by_value_ && to_whole_ && !from_whole_),
      most_rows_(std::max<std::int64_t>(1, kStripeBytes / std::max<std::int64_t>(1, width_))),
      from_(piece + cell.from_offset),
      to_(destination + cell.to_offset) {}

std::int64_t CellCopy::stripe_rows() const {
    return std::min(most_rows_, cell_.region.rows - row_);
}

void CellCopy::copy_stripe() {
    const std::int64_t rows = stripe_rows();
    const bool whole = from_whole_ && to_whole_;
    if (by_value_ && whole) {
        convert_run(0, rows * cell_.region.cols);
    } else if (by_value_) {
        for (std::int64_t r = 0; r < rows; ++r) convert_run(r, cell_.region.cols);
    } else if (copies_ && whole) {
        std::memcpy(to_, from_, static_cast<std::size_t>(rows * width_));
    } else if (copies_) {
        for (std::int64_t r = 0; r < rows; ++r) {
            std::memcpy(to_ + r * cell_.to_stride, from_ + r * cell_.from_stride,
                        static_cast<std::size_t>(width_));
        }
    }
}

void CellCopy::convert_run(std::int64_t r, std::int64_t count) {
    const std::byte* from = from_ + r * cell_.from_stride;
    std::byte* to = to_ + r * cell_.to_stride;
    const std::int64_t from_size = cell_.from_element();
    const std::int64_t to_size = cell_.to_element();
    const std::int64_t first = (row_ + r) * cell_.region.cols;
    float values[kValues];
    for (std::int64_t at = 0; at < count; at += kValues) {
        const std::int64_t some = std::min(kValues, count - at);
        quant::read_values(cell_.meta->dtype, from + at * from_size, some, values);
        if (cell_.is_scale) look_at_scales(values, some, first + at);
        if (copies_) quant::write_values(cell_.to, values, some, to + at * to_size);
    }
}

void CellCopy::look_at_scales(const float* values, std::int64_t count, std::int64_t first) {
    for (std::int64_t i = 0; i < count; ++i) {
        if (std::isfinite(values[i]) && values[i] > 0.0F) continue;
        if (bad_.count++ > 0) continue;
        bad_.row = cell_.region.row + (first + i) / cell_.region.cols;
        bad_.col = cell_.region.col + (first + i) % cell_.region.cols;
        bad_.value = values[i];
    }
}

std::int64_t CellCopy::hash_stripe(wire::DigestStream& digest) {
    const std::int64_t rows = stripe_rows();
    if (hashes_copy_) {
        digest.update(to_, static_cast<std::size_t>(rows * width_));
    } else if (from_whole_) {
        digest.update(from_, static_cast<std::size_t>(rows * width_));
    } else {
        for (std::int64_t r = 0; r < rows; ++r)
            digest.update(from_ + r * cell_.from_stride, static_cast<std::size_t>(width_));
    }
    from_ += rows * cell_.from_stride;
    to_ += rows * cell_.to_stride;
    row_ += rows;
    return rows * width_;
}

}  // namespace refit::receiver
