// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The part of every tensor that one trainer rank holds in memory, in BF16.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/aligned_buffer.hpp"
#include "core/shape.hpp"
#include "model/tensor_spec.hpp"
#include "parallel/placement.hpp"
#include "trainer/held_weights.hpp"
#include "trainer/weight_rows.hpp"
#include "weights/weight_source.hpp"
#include "wire/checksum.hpp"

namespace refit::trainer {

class ResidentShard final : public WeightRows, public HeldWeights {
 public:
    /// Reads this trainer's rectangle of every tensor. placements : by model tensor.
    /// `on_progress` is called at least once per few MiB. Throws ResourceError when they do not fit
    /// into memory.
    ResidentShard(const std::vector<model::TensorSpec>& tensors,
                  const std::vector<parallel::Placement>& placements, int trainer,
                  const weights::WeightSource& source, const std::function<void()>& on_progress);

    void reload(const std::vector<model::TensorSpec>& tensors, const weights::WeightSource& source,
                const std::function<void()>& on_progress) override;

    [[nodiscard]] Values values(std::size_t tensor, const core::Region& region) const override;
    /// Element (row, col) (global) of a tensor; it must be one of this trainer's. Row stride =
    /// columns held.
    [[nodiscard]] std::uint16_t* at(std::size_t tensor, std::int64_t row, std::int64_t col);
    [[nodiscard]] const core::Region& held(std::size_t tensor) const override {
        return held_[tensor];
    }
    [[nodiscard]] std::uint64_t size_bytes() const override { return memory_.size(); }
    [[nodiscard]] std::vector<wire::Digest> digests(
        const std::function<void()>& on_progress) const override;
    void flip_first(std::size_t tensor) override {
        *at(tensor, held_[tensor].row, held_[tensor].col) ^= 1;
    }

 private:
    core::AlignedBuffer memory_;
    std::vector<core::Region> held_;
    std::vector<std::size_t> offsets_;  ///< bytes
};

}  // namespace refit::trainer
