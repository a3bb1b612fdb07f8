// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// From the files of a command line to the cases that every rank runs.
#pragma once

#include <string>
#include <vector>

#include "harness/run_command.hpp"
#include "harness/scenario.hpp"
#include "harness/world.hpp"
#include "record/run_record.hpp"

namespace refit::harness {

struct LoadedScenarios {
    std::vector<Scenario> scenarios;
    std::vector<Case> cases;
    std::string text;
    std::string stem;
    /// Of several files, those whose own inputs are not there: a checkpoint that was not fetched,
    /// say.
    std::vector<record::CaseRecord> skipped;
};

/// Rank 0 reads the files; every rank parses the same text. Collective over `world`, which is null
/// in one process. Throws FileError, UsageError; under MPI the same on every rank.
[[nodiscard]] LoadedScenarios load_scenarios(const RunOptions& options, World* world);

}  // namespace refit::harness
