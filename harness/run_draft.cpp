// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/run_draft.hpp"

#include <unistd.h>

#include <system_error>

#include "core/error.hpp"
#include "harness/console.hpp"
#include "harness/run_output.hpp"
#include "record/hdf5_writer.hpp"
#include "record/json_report.hpp"

namespace refit::harness {
namespace {

/// Record, JSON and JUnit of a finished or failed run. Returns the record's path.
std::filesystem::path write_all(const record::RunRecord& record, const std::filesystem::path& path,
                                const RunOptions& options) {
    const auto report = [&](const record::RunRecord& reported, const std::string& where) {
        if (!options.json.empty()) {
            write_text(options.json, record::to_json(reported, where) + "\n");
        }
        if (!options.junit.empty()) write_text(options.junit, record::to_junit(reported));
    };
    std::string absolute;
    try {
        absolute = std::filesystem::absolute(record::write_hdf5(record, path)).string();
    } catch (const core::RecordError& error) {
        // What was measured still stands in the reports, with the verdict that the exit code has.
        record::RunRecord failed = record;
        failed.verdict = "error";
        failed.exit_code = static_cast<int>(error.code());
        failed.error_rank = -1;
        failed.error_stage = stage_name(Stage::record);
        failed.error_message = error.what();
        report(failed, "");
        throw;
    }
    report(record, absolute);
    return absolute;
}

void make_output_folder(const RunOptions& options) {
    std::error_code problem;
    std::filesystem::create_directories(options.output, problem);
    if (!std::filesystem::is_directory(options.output)) {
        throw core::FileError("cannot make the output folder " + options.output.string() + ": " +
                              problem.message());
    }
}

}  // namespace

void check_outputs(const RunOptions& options) {
    make_output_folder(options);
    check_writable(options.json);
    check_writable(options.junit);
}

void start_record(Draft& draft, const RunOptions& options, const std::string& stem,
                  const std::string& created) {
    draft.record.created_utc = created;
    draft.path = record::new_record_path(options.output, stem, created);
}

void write_loss(Draft& draft, const Loss& loss) {
    if (draft.several_nodes && loss.rank < 0) {
        // Each node judges its own ranks. Where this one finds nobody to blame, another node may
        // know better and has written already; the launcher leaves a second before it kills.
        usleep(500'000);
        if (std::filesystem::exists(draft.path)) return;
    }
    std::unique_lock lock(draft.mutex, std::defer_lock);
    // The main thread holds the lock for moments only; if it was struck down inside, the draft is
    // used as it is.
    for (int turn = 0; turn < 20 && !lock.try_lock(); ++turn) usleep(10'000);
    record::RunRecord record = draft.record;
    record.verdict = "error";
    record.exit_code = static_cast<int>(core::ExitCode::environment);
    record.error_rank = loss.rank;
    record.error_stage = loss.stage;
    record.error_message = loss.message;
    try {
        const std::filesystem::path path = write_all(record, draft.path, *draft.options);
        complain("error: " + loss.message);
        say(*draft.options, footer_text(record, path.string()));
    } catch (const std::exception& error) {
        complain("error: " + loss.message +
                 "; and the record could not be written: " + error.what());
    }
}

int finish(Draft& draft, const RunOptions& options, RankStatus& status) {
    status.enter(Stage::record);
    // From here on this rank alone writes; a loss that is noticed later is not this run's any more.
    if (!status.claim_end()) LostRankMonitor::wait_for_end();
    const std::filesystem::path path = write_all(draft.record, draft.path, options);
    status.page().record_written.store(1);
    say(options, footer_text(draft.record, path.string()));
    return draft.record.exit_code;
}

}  // namespace refit::harness
