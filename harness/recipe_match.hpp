// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Which recipes give exactly the codes and scales of a whole checkpoint.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "checks/reference_check.hpp"
#include "harness/checkpoint_survey.hpp"
#include "quant/recipe.hpp"

namespace refit::harness {

/// Quantizes matrix after matrix, whole, by every recipe that has explained all so far, a few MiB
/// at a time. Most recipes fall out in the first matrices, so that a large checkpoint costs about
/// one quantization for each recipe that remains.
class RecipeMatch {
 public:
    /// Called once rows [begin, end) of codes and source will not be looked at for a while.
    using RowsDone = std::function<void(std::int64_t begin, std::int64_t end)>;

    RecipeMatch();

    /// `values` : the scales of this matrix, among those of the tensor `scales`. A matrix whose
    /// source is not BF16, which the recipes are defined on, is passed over.
    void add(const CheckpointSurvey::Scales& scales, std::span<const double> values,
             const checks::StoredMatrix& codes, const checks::StoredMatrix& source,
             const RowsDone& done);

    /// That were tried.
    [[nodiscard]] std::int64_t matrices() const { return matrices_; }
    /// In catalog order; empty before the first matrix.
    [[nodiscard]] std::vector<std::string> exact() const;

 private:
    std::vector<const quant::Recipe*> left_;
    std::int64_t matrices_ = 0;
};

}  // namespace refit::harness
