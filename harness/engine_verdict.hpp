// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What one engine would make of a checkpoint.
#pragma once

#include <string>
#include <vector>

#include "core/finding.hpp"
#include "harness/checkpoint_survey.hpp"

namespace refit::harness {

struct EngineVerdict {
    std::string engine;
    std::string engine_version;
    std::string scheme;       ///< "" where the engine refuses the configuration
    bool judged = false;      ///< the contract could be held against the checkpoint
    core::Findings findings;  ///< errors before warnings

    [[nodiscard]] bool passes() const { return !core::has_error(findings); }
};

/// The engines that read the checkpoint's kind of configuration, in catalogue order; empty for a
/// quantization method that none of them has.
[[nodiscard]] std::vector<std::string> engines_for(const CheckpointSurvey& survey);

/// Configuration, names, shapes, dtypes and TP cuts by the engine's contract, and of `values`,
/// which belong to no engine, each with the weight that it has here: on a tensor that the engine
/// leaves alone it is a warning. Throws UsageError for an unknown engine.
[[nodiscard]] EngineVerdict judge_for_engine(const CheckpointSurvey& survey,
                                             const std::string& engine, int tp,
                                             const core::Findings& values);

/// The verdict without an engine: for a configuration that none of them reads.
[[nodiscard]] EngineVerdict judge_without_engine(const CheckpointSurvey& survey,
                                                 const core::Findings& values);

/// The first that passes, or else, of those that could judge the tensors before the others, that
/// with the fewest errors; `verdicts` is not empty. An engine that has no such scheme, family or TP
/// says it in one error, which must not hide what the other engines find in the tensors.
[[nodiscard]] const EngineVerdict& best_of(const std::vector<EngineVerdict>& verdicts);

}  // namespace refit::harness
