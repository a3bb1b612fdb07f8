// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/source_read.hpp"

#include <algorithm>
#include <string>

#include "core/error.hpp"
#include "parallel/placement.hpp"

namespace refit::trainer {
namespace {

std::string text_of(const core::Region& region) {
    return "rows [" + std::to_string(region.row) + ", " + std::to_string(region.row + region.rows) +
           "), columns [" + std::to_string(region.col) + ", " +
           std::to_string(region.col + region.cols) + ")";
}

}  // namespace

std::size_t source_bytes(const core::Region& region) {
    if (parallel::is_empty(region)) return 0;
    const auto bytes = static_cast<std::size_t>(region.rows * region.cols) * sizeof(std::uint16_t);
    return (bytes + 63) / 64 * 64;
}

void read_region(const weights::WeightSource& source, const model::TensorSpec& tensor,
                 const core::Region& region, std::uint16_t* out,
                 const std::function<void()>& on_progress) {
    const std::int64_t step =
        std::max<std::int64_t>(1, kReadBytes / std::max<std::int64_t>(1, 2 * region.cols));
    for (std::int64_t r = 0; r < region.rows; r += step) {
        const std::int64_t count = std::min(step, region.rows - r);
        source.read(tensor, {region.row + r, region.col, count, region.cols}, out + r * region.cols,
                    region.cols);
        on_progress();
    }
}

void require_within(const core::Region& region, const core::Region& held, std::size_t tensor) {
    const bool within = region.row >= held.row && region.col >= held.col &&
                        region.row + region.rows <= held.row + held.rows &&
                        region.col + region.cols <= held.col + held.cols;
    if (!within) {
        throw core::ShapeError("the trainer was asked for " + text_of(region) +
                               " of tensor number " + std::to_string(tensor) + " and holds " +
                               text_of(held) + "; plan and shards must come from one layout");
    }
}

}  // namespace refit::trainer
