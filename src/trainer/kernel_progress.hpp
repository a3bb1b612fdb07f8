// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// How far a refit in the engine's own format has come: which tensors of the checkpoint plan are
// made, and how many parts are still to be taken of each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "trainer/kernel_plan.hpp"

namespace refit::trainer {

class KernelProgress {
 public:
    /// The plan must outlive it.
    explicit KernelProgress(const KernelPlan& plan);

    /// A new refit: nothing is made.
    void begin();
    /// Parameters of the checkpoint plan to make before parts of `parameter` can be taken, in this
    /// order: a scale comes out of quantizing its weight. Empty where it is made.
    [[nodiscard]] std::vector<std::size_t> to_make(std::size_t parameter) const;
    void made(std::size_t parameter) { made_[parameter] = true; }
    /// A part of `parameter` was taken; true for its last one.
    [[nodiscard]] bool took(std::size_t parameter) { return --left_[parameter] == 0; }

    /// Bucket of the checkpoint plan in which a parameter is made.
    [[nodiscard]] std::size_t bucket_of(std::size_t parameter) const {
        return bucket_of_[parameter];
    }
    [[nodiscard]] const wire::PiecePlan& piece(std::size_t bucket) const;
    /// Bytes of the largest piece of the checkpoint plan.
    [[nodiscard]] std::uint64_t largest_piece() const;

 private:
    const KernelPlan& plan_;
    std::vector<std::size_t> bucket_of_;  ///< these three by parameter of the checkpoint plan
    std::vector<std::size_t> left_;
    std::vector<bool> made_;
};

}  // namespace refit::trainer
