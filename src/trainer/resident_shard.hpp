// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The rows of every tensor that one trainer rank holds in memory, in BF16.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/aligned_buffer.hpp"
#include "core/shape.hpp"
#include "model/tensor_spec.hpp"
#include "weights/weight_source.hpp"
#include "wire/checksum.hpp"

namespace refit::trainer {

class ResidentShard {
 public:
    /// Reads this trainer's rows of every tensor. shards : by model tensor, by trainer.
    /// `on_progress` is called at least once per few MiB. Throws ResourceError when they do not fit
    /// into memory.
    ResidentShard(const std::vector<model::TensorSpec>& tensors,
                  const std::vector<std::vector<core::RowRange>>& shards, int trainer,
                  const weights::WeightSource& source, const std::function<void()>& on_progress);

    /// Reads all rows again: the source moved to another step. The memory stays where it is.
    void reload(const std::vector<model::TensorSpec>& tensors, const weights::WeightSource& source,
                const std::function<void()>& on_progress);

    /// First element of global row `row` of a tensor; the row must be one of this trainer's. Row
    /// stride = columns.
    [[nodiscard]] const std::uint16_t* row(std::size_t tensor, std::int64_t row) const;
    [[nodiscard]] std::uint16_t* row(std::size_t tensor, std::int64_t row);
    [[nodiscard]] const core::RowRange& rows(std::size_t tensor) const { return rows_[tensor]; }
    [[nodiscard]] std::uint64_t size_bytes() const { return memory_.size(); }
    /// Digest of each tensor's own rows.
    [[nodiscard]] std::vector<wire::Digest> digests(const std::function<void()>& on_progress) const;

 private:
    core::AlignedBuffer memory_;
    std::vector<core::RowRange> rows_;
    std::vector<std::int64_t> cols_;
    std::vector<std::size_t> offsets_;  ///< bytes
};

}  // namespace refit::trainer
