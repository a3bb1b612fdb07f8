// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/resident_shard.hpp"

#include <algorithm>

namespace refit::trainer {
namespace {

constexpr std::int64_t kChunkBytes = std::int64_t{4} << 20;

}  // namespace

ResidentShard::ResidentShard(const std::vector<model::TensorSpec>& tensors,
                             const std::vector<std::vector<core::RowRange>>& shards, int trainer,
                             const weights::WeightSource& source,
                             const std::function<void()>& on_progress) {
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        rows_.push_back(shards[i][static_cast<std::size_t>(trainer)]);
        cols_.push_back(core::matrix_cols(tensors[i].shape));
        offsets_.push_back(bytes);
        const auto own =
            static_cast<std::size_t>(rows_[i].count() * cols_[i]) * sizeof(std::uint16_t);
        bytes += (own + 63) / 64 * 64;
    }
    memory_ = core::AlignedBuffer(bytes);
    reload(tensors, source, on_progress);
}

void ResidentShard::reload(const std::vector<model::TensorSpec>& tensors,
                           const weights::WeightSource& source,
                           const std::function<void()>& on_progress) {
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        const std::int64_t step =
            std::max<std::int64_t>(1, kChunkBytes / std::max<std::int64_t>(1, 2 * cols_[i]));
        for (std::int64_t r = rows_[i].begin; r < rows_[i].end; r += step) {
            const std::int64_t count = std::min(step, rows_[i].end - r);
            source.read(tensors[i], {r, 0, count, cols_[i]}, row(i, r), cols_[i]);
            on_progress();
        }
    }
}

const std::uint16_t* ResidentShard::row(std::size_t tensor, std::int64_t row) const {
    return reinterpret_cast<const std::uint16_t*>(memory_.data() + offsets_[tensor]) +
           (row - rows_[tensor].begin) * cols_[tensor];
}

std::uint16_t* ResidentShard::row(std::size_t tensor, std::int64_t row) {
    return reinterpret_cast<std::uint16_t*>(memory_.data() + offsets_[tensor]) +
           (row - rows_[tensor].begin) * cols_[tensor];
}

std::vector<wire::Digest> ResidentShard::digests(const std::function<void()>& on_progress) const {
    std::vector<wire::Digest> digests;
    wire::DigestStream stream;
    for (std::size_t i = 0; i < rows_.size(); ++i) {
        stream.reset();
        const auto* data = reinterpret_cast<const std::byte*>(memory_.data() + offsets_[i]);
        const std::int64_t bytes = rows_[i].count() * cols_[i] * 2;
        for (std::int64_t done = 0; done < bytes; done += kChunkBytes) {
            stream.update(data + done,
                          static_cast<std::size_t>(std::min(kChunkBytes, bytes - done)));
            on_progress();
        }
        digests.push_back(stream.value());
    }
    return digests;
}

}  // namespace refit::trainer
