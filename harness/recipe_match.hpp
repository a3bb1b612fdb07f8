// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Which recipes give exactly the codes and scales of a whole checkpoint.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checks/reference_check.hpp"
#include "harness/checkpoint_survey.hpp"
#include "quant/recipe.hpp"

namespace refit::harness {

/// Quantizes matrix after matrix by every recipe that has explained all so far. Looks at no more
/// than a number of elements, so that a large checkpoint costs no more than a small one.
class RecipeMatch {
 public:
    explicit RecipeMatch(std::int64_t elements);

    /// Matrices that are too large, or whose source is not BF16, are passed over.
    void add(const CheckpointSurvey::Scales& scales, const checks::StoredMatrix& codes,
             const checks::StoredMatrix& source);

    [[nodiscard]] std::int64_t matrices() const { return matrices_; }
    /// In catalog order; empty before the first matrix.
    [[nodiscard]] std::vector<std::string> exact() const;

 private:
    std::vector<const quant::Recipe*> left_;
    std::int64_t elements_;  ///< that may still be looked at
    std::int64_t matrices_ = 0;
};

}  // namespace refit::harness
