// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Weights that one trainer rank keeps over many refits, in whatever memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "core/shape.hpp"
#include "model/tensor_spec.hpp"
#include "weights/weight_source.hpp"
#include "wire/checksum.hpp"

namespace refit::trainer {

class HeldWeights {
 public:
    virtual ~HeldWeights() = default;
    /// Reads everything again: the source moved to another step. The memory stays where it is.
    virtual void reload(const std::vector<model::TensorSpec>& tensors,
                        const weights::WeightSource& source,
                        const std::function<void()>& on_progress) = 0;
    /// What this trainer holds of a tensor; may be empty.
    [[nodiscard]] virtual const core::Region& held(std::size_t tensor) const = 0;
    /// Digest of each tensor's own part, row by row.
    [[nodiscard]] virtual std::vector<wire::Digest> digests(
        const std::function<void()>& on_progress) const = 0;
    /// Changes one bit of the first element held of a tensor: a planted write.
    virtual void flip_first(std::size_t tensor) = 0;
    [[nodiscard]] virtual std::uint64_t size_bytes() const = 0;
};

}  // namespace refit::trainer
