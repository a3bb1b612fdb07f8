// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Every tensor of a checkpoint against the unquantized checkpoint that it was made from.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/finding.hpp"
#include "harness/checkpoint_survey.hpp"

namespace refit::harness {

struct ReferenceResult {
    core::Findings findings;     ///< checks round_trip and sqnr
    std::int64_t quantized = 0;  ///< matrices, each of a stack, that were compared through codes
    std::int64_t raw = 0;        ///< tensors that were compared as they are
    std::int64_t not_compared = 0;
    double sum_x2 = 0.0;  ///< over all quantized elements
    double sum_error2 = 0.0;
    /// Quantized tensors all of whose elements are within the legal error.
    std::set<std::string> faithful;
    /// Recipes that give exactly the codes and scales of every matrix that was tried, and how many
    /// were: all whose reference is BF16.
    std::vector<std::string> recipes;
    std::int64_t recipe_matrices = 0;
};

/// Compares with the checkpoint in `directory` (BF16, F16 or F32; experts alone or stacked). Each
/// quantized element must be within the legal error of E4M3; a matrix whose codes are not the
/// nearest ones, while those of nearly all others are, was made from other weights. Raw tensors
/// must be equal. A tensor that one of the two lacks or holds in another shape is a finding.
/// Throws FileError for a directory that cannot be read or holds quantized weights itself.
[[nodiscard]] ReferenceResult compare_with_reference(const CheckpointSurvey& survey,
                                                     const std::filesystem::path& directory,
                                                     const Progress& progress);

}  // namespace refit::harness
