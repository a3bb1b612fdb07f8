// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/resident_shard.hpp"

#include <algorithm>

#include "trainer/source_read.hpp"

namespace refit::trainer {

ResidentShard::ResidentShard(const std::vector<model::TensorSpec>& tensors,
                             const std::vector<parallel::Placement>& placements, int trainer,
                             const weights::WeightSource& source,
                             const std::function<void()>& on_progress) {
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        held_.push_back(placements[i].held[static_cast<std::size_t>(trainer)]);
        offsets_.push_back(bytes);
        bytes += source_bytes(held_[i]);
    }
    memory_ = core::AlignedBuffer(bytes);
    reload(tensors, source, on_progress);
}

void ResidentShard::reload(const std::vector<model::TensorSpec>& tensors,
                           const weights::WeightSource& source,
                           const std::function<void()>& on_progress) {
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        if (parallel::is_empty(held_[i])) continue;
        read_region(source, tensors[i], held_[i], at(i, held_[i].row, held_[i].col), on_progress);
    }
}

Values ResidentShard::values(std::size_t tensor, const core::Region& region) const {
    const core::Region& own = held_[tensor];
    require_within(region, own, tensor);
    const std::int64_t first = (region.row - own.row) * own.cols + region.col - own.col;
    return {reinterpret_cast<const std::uint16_t*>(memory_.data() + offsets_[tensor]) + first,
            own.cols};
}

std::uint16_t* ResidentShard::at(std::size_t tensor, std::int64_t row, std::int64_t col) {
    const core::Region& own = held_[tensor];
    return reinterpret_cast<std::uint16_t*>(memory_.data() + offsets_[tensor]) +
           (row - own.row) * own.cols + col - own.col;
}

std::vector<wire::Digest> ResidentShard::digests(const std::function<void()>& on_progress) const {
    std::vector<wire::Digest> digests;
    wire::DigestStream stream;
    for (std::size_t i = 0; i < held_.size(); ++i) {
        stream.reset();
        const auto* data = reinterpret_cast<const std::byte*>(memory_.data() + offsets_[i]);
        const std::int64_t bytes =
            parallel::is_empty(held_[i]) ? 0 : held_[i].rows * held_[i].cols * 2;
        for (std::int64_t done = 0; done < bytes; done += kReadBytes) {
            stream.update(data + done,
                          static_cast<std::size_t>(std::min(kReadBytes, bytes - done)));
            on_progress();
        }
        digests.push_back(stream.value());
    }
    return digests;
}

}  // namespace refit::trainer
