// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The record of a run in the making, and who writes it: the run at its end, or the monitor of lost
// ranks before.
#pragma once

#include <filesystem>
#include <mutex>
#include <string>

#include "harness/lost_rank_monitor.hpp"
#include "harness/rank_status.hpp"
#include "harness/run_command.hpp"
#include "record/run_record.hpp"

namespace refit::harness {

/// Shared by the main thread and the monitor.
struct Draft {
    std::mutex mutex;
    record::RunRecord record;
    std::filesystem::path path;
    const RunOptions* options = nullptr;
    bool several_nodes = false;
};

/// What the end of the run will write to is made and tried before it starts. Throws FileError.
void check_outputs(const RunOptions& options);

/// Gives the draft its time and the path of its record.
void start_record(Draft& draft, const RunOptions& options, const std::string& stem,
                  const std::string& created);

/// For the monitor's thread, when a rank is lost or the user interrupts.
void write_loss(Draft& draft, const Loss& loss);

/// Record, JSON, JUnit and the last line of the console; waits for ever where the monitor writes.
/// Returns the exit code of the record.
int finish(Draft& draft, const RunOptions& options, RankStatus& status);

}  // namespace refit::harness
