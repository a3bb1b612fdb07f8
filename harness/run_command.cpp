// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/run_command.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "core/error.hpp"
#include "harness/case_outcome.hpp"
#include "harness/case_runner.hpp"
#include "harness/case_setup.hpp"
#include "harness/ceilings.hpp"
#include "harness/console.hpp"
#include "harness/dry_run.hpp"
#include "harness/environment.hpp"
#include "harness/preflight.hpp"
#include "harness/rank_agreement.hpp"
#include "harness/run_output.hpp"
#include "record/hdf5_writer.hpp"
#include "record/json_report.hpp"

namespace refit::harness {
namespace {

using nlohmann::json;

/// The record in the making, shared by the main thread and the monitor.
struct Draft {
    std::mutex mutex;
    record::RunRecord record;
    std::filesystem::path path;
    const RunOptions* options = nullptr;
    bool several_nodes = false;
};

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

/// Runs in the monitor's thread when a rank is lost or the user interrupts.
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

struct LoadedScenarios {
    std::vector<Scenario> scenarios;
    std::vector<Case> cases;
    std::string text;
    std::string stem;
    /// Of several files, those whose own inputs are not there: a checkpoint that was not fetched,
    /// say.
    std::vector<record::CaseRecord> skipped;
};

/// Rank 0 reads the files; every rank parses the same text.
LoadedScenarios load_scenarios(const RunOptions& options, World* world) {
    json files = json::array();
    auto read = [&] {
        if (world != nullptr && world->rank() != 0) return;
        for (const std::filesystem::path& path : scenario_files(options.files)) {
            std::ifstream file(path, std::ios::binary);
            std::ostringstream text;
            text << file.rdbuf();
            if (!file) throw core::FileError("cannot read the scenario " + path.string());
            files.push_back({path.string(), text.str()});
        }
        if (files.empty()) throw core::FileError("no scenario (*.yaml) found in the folders given");
    };
    LoadedScenarios loaded;
    auto parse = [&] {
        for (const json& row : files) {
            const auto path = row.at(0).get<std::string>();
            try {
                loaded.scenarios.push_back(parse_scenario(path, row.at(1).get<std::string>(),
                                                          options.overrides, options.filter));
            } catch (const core::FileError& error) {
                if (files.size() == 1) throw;
                Case missing;
                missing.scenario = std::filesystem::path(path).stem().string();
                loaded.skipped.push_back(skipped_case(missing, error.what()));
                loaded.skipped.back().transport = transport_of(missing, world != nullptr);
                continue;
            }
            const Scenario& scenario = loaded.scenarios.back();
            loaded.text += (loaded.text.empty() ? "" : "\n---\n") + scenario.text;
            loaded.cases.insert(loaded.cases.end(), scenario.cases.begin(), scenario.cases.end());
        }
    };
    if (world != nullptr) {
        together(*world, read);
        // A byte that is no UTF-8 is the parser's to refuse, not the transport's.
        files = json::parse(
            broadcast_text(*world, files.dump(-1, ' ', false, json::error_handler_t::replace)));
        together(*world, parse);
    } else {
        read();
        parse();
    }
    loaded.stem = loaded.scenarios.size() == 1 ? loaded.scenarios.front().stem
                                               : options.files.front().filename().stem().string();
    if (loaded.stem.empty()) loaded.stem = "run";
    if (loaded.cases.empty() && loaded.skipped.empty()) {
        throw core::UsageError(
            "no case matches the filter; 'refitbench run --dry-run FILE' prints the names of all "
            "cases");
    }
    return loaded;
}

std::string role_of(const Case& c, int rank) {
    if (rank >= c.world_size()) return "none";
    if (rank < c.trainer_ranks) return "trainer " + std::to_string(rank);
    const int index = rank - c.trainer_ranks;
    return "receiver " + std::to_string(index / c.tp) + "." + std::to_string(index % c.tp);
}

std::vector<record::RankRow> rank_rows(World& world, const Case& c) {
    const json mine = {host_name(), getpid(), cpu_list()};
    std::vector<record::RankRow> rows;
    const std::vector<std::string> all = world.allgather(mine.dump());
    for (std::size_t r = 0; r < all.size(); ++r) {
        const json row = json::parse(all[r]);
        rows.push_back({static_cast<int>(r), row.at(0).get<std::string>(),
                        role_of(c, static_cast<int>(r)), row.at(1).get<std::int64_t>(),
                        row.at(2).get<std::string>()});
    }
    return rows;
}

int exit_code_of(const record::RunRecord& record, int error_code) {
    if (record.verdict == "pass") return static_cast<int>(core::ExitCode::as_expected);
    if (record.verdict == "fail") return static_cast<int>(core::ExitCode::verdict);
    if (record.verdict == "skipped") return static_cast<int>(core::ExitCode::nothing);
    return error_code;
}

/// The state of a run that all its cases share.
class Run {
 public:
    Run(const RunOptions& options, const std::vector<std::string>& argv,
        const LoadedScenarios& loaded, Draft& draft)
        : options_(options), loaded_(loaded), draft_(draft) {
        draft_.record.argv = argv;
        draft_.record.scenario_text = loaded.text;
        draft_.options = &options;
    }

    /// Scenarios that could not be read stand in the record too, before the others.
    void keep_skipped(bool prints) {
        for (const record::CaseRecord& c : loaded_.skipped) keep(c, prints);
    }

    /// One case on this rank of its world.
    record::CaseRecord one(World& world, RankStatus& status, LostRankMonitor* monitor,
                           const Case& c, std::size_t index,
                           std::shared_ptr<transport::LoopbackHub> hub) {
        RunContext context{world, status, monitor, std::move(hub), run_id, memory_copy, {},
                           {},    {},     {}};
        const bool speaks = world.rank() == 0 && !quiet(options_) && isatty(STDERR_FILENO) != 0;
        if (speaks) {
            context.progress = [](const std::string& line) {
                std::fprintf(stderr, "\r\033[K# %s", line.c_str());
            };
        }
        context.where = std::to_string(index + 1) + "/" + std::to_string(loaded_.cases.size());
        context.transport_ceiling = [&](const std::string& name, double rate) {
            if (!world.is_mpi() && world.rank() != 0) return;
            const std::lock_guard lock(draft_.mutex);
            draft_.record.ceilings.push_back(
                {"transport_" + name, rate, "B/s",
                 "payload into every receiver's own memory, no quantizing"});
            measured_.push_back(name);
        };
        context.has_transport_ceiling = [&](const std::string& name) {
            // Threads share this object; asked before any of them measures, all see the same.
            const bool known =
                std::find(measured_.begin(), measured_.end(), name) != measured_.end();
            if (!world.is_mpi()) world.barrier();
            return known;
        };
        record::CaseRecord record;
        try {
            record = run_case(context, c);
        } catch (const AgreedError& error) {
            record = skipped_case(c, "");
            record.transport = transport_of(c, world.is_mpi());
            record.notes["error_message"] = error.what();
            record.notes["error_rank"] = std::to_string(error.rank);
            record.notes["error_stage"] = stage_name(status.stage());
            record.notes["error_code"] = std::to_string(static_cast<int>(error.code()));
            if (error.code() == core::ExitCode::nothing) {
                record.skip_reason = error.what();
            } else {
                record.outcome = judge_outcome(c.expect, {}, true);
            }
        }
        if (speaks) std::fprintf(stderr, "\r\033[K");
        return record;
    }

    /// Adds a finished case to the draft of this process, and prints it on rank 0.
    void keep(record::CaseRecord record, bool prints) {
        const std::lock_guard lock(draft_.mutex);
        draft_.record.cases.push_back(std::move(record));
        const record::CaseRecord& kept = draft_.record.cases.back();
        if (!prints) return;
        if (kept.scenario != last_scenario_)
            say(options_, columns_text(kept.scenario, kept.purpose));
        last_scenario_ = kept.scenario;
        std::string text = case_text(draft_.record, kept);
        if (!kept.case_name.empty() && !options_.summary)
            text = "# case " + one_line(kept.case_name) + "\n" + text;
        if (!options_.summary)
            text += findings_text(kept, options_.explain ? 200 : 12, options_.explain);
        say(options_, text);
        const auto error = kept.notes.find("error_message");
        if (error != kept.notes.end() && kept.outcome == "error")
            complain("error: " + error->second);
    }

    /// Verdict and exit code of all cases.
    void conclude() {
        const std::lock_guard lock(draft_.mutex);
        record::RunRecord& record = draft_.record;
        record.verdict = record::verdict_of(record.cases);
        int error_code = static_cast<int>(core::ExitCode::environment);
        for (const record::CaseRecord& c : record.cases) {
            if (c.outcome != "error") continue;
            auto note = [&](const char* key) {
                const auto found = c.notes.find(key);
                return found == c.notes.end() ? std::string() : found->second;
            };
            record.error_message = note("error_message");
            record.error_stage = note("error_stage").empty() ? "load" : note("error_stage");
            record.error_rank = note("error_rank").empty() ? -1 : std::stoi(note("error_rank"));
            if (!note("error_code").empty()) error_code = std::stoi(note("error_code"));
            break;
        }
        record.exit_code = exit_code_of(record, error_code);
    }

    std::string run_id;
    double memory_copy = 0.0;
    std::map<int, double> memory_copy_by_threads;  ///< of runs in one process

 private:
    const RunOptions& options_;
    const LoadedScenarios& loaded_;
    Draft& draft_;
    std::vector<std::string> measured_;
    std::string last_scenario_;
};

std::string world_mismatch(const Case& c, int size) {
    return "needs " + std::to_string(c.world_size()) + " ranks (" +
           std::to_string(c.trainer_ranks) + " trainers + " + std::to_string(c.engines) +
           " engines of TP " + std::to_string(c.tp) + "), this world has " + std::to_string(size);
}

void start_record(Draft& draft, const RunOptions& options, const LoadedScenarios& loaded,
                  const std::string& created) {
    draft.record.created_utc = created;
    draft.path = record::new_record_path(options.output, loaded.stem, created);
}

void make_output_folder(const RunOptions& options) {
    std::error_code problem;
    std::filesystem::create_directories(options.output, problem);
    if (!std::filesystem::is_directory(options.output)) {
        throw core::FileError("cannot make the output folder " + options.output.string() + ": " +
                              problem.message());
    }
}

/// What the end of the run will write to is tried before it starts.
void check_outputs(const RunOptions& options) {
    make_output_folder(options);
    check_writable(options.json);
    check_writable(options.junit);
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

int run_under_mpi(const RunOptions& options, const std::vector<std::string>& argv,
                  const LoadedScenarios& loaded, World& world) {
    const bool any_fits = std::any_of(loaded.cases.begin(), loaded.cases.end(), [&](const Case& c) {
        return c.world_size() == world.size();
    });
    if (!any_fits && loaded.scenarios.size() == 1 && loaded.skipped.empty()) {
        const Case& c = loaded.cases.front();
        throw core::UsageError(
            "the scenario " + c.file.string() + " " + world_mismatch(c, world.size()) +
            "; start it with: mpirun --oversubscribe -np " + std::to_string(c.world_size()) +
            " refitbench run " + c.file.string());
    }
    Draft draft;
    Run run(options, argv, loaded, draft);
    RankStatus status(world);
    const std::string created = broadcast_text(world, utc_now());
    run.run_id =
        broadcast_text(world, std::to_string(getpid()) + "." + std::to_string(steady_now_ns()));
    together(world, [&] {
        if (world.rank() == 0) check_outputs(options);
    });
    start_record(draft, options, loaded, created);
    draft.record.environment = environment(true);
    draft.several_nodes = !world.one_node();
    int code = 0;
    {
        LostRankMonitor monitor(status, [&](const Loss& loss) { write_loss(draft, loss); });
        world.set_on_wait([&] {
            status.beat();
            if (status.given_up_by_other()) throw RunGivenUp{};
        });
        try {
            if (world.rank() == 0) (void)transport::remove_stale_segments();
            run.memory_copy = measure_memory_copy(world, status);
            const auto first =
                std::find_if(loaded.cases.begin(), loaded.cases.end(),
                             [&](const Case& c) { return c.world_size() == world.size(); });
            // Where no case fits this world, no rank has a part.
            const bool fits = first != loaded.cases.end();
            Case nothing;
            nothing.trainer_ranks = 0;
            nothing.engines = 0;
            const Case& model_case = fits ? *first : nothing;
            std::vector<record::RankRow> rows = rank_rows(world, model_case);
            {
                const std::lock_guard lock(draft.mutex);
                draft.record.trainers = fits ? model_case.trainer_ranks : 0;
                draft.record.receivers = fits ? world.size() - model_case.trainer_ranks : 0;
                draft.record.ranks = std::move(rows);
                draft.record.ceilings.push_back(
                    {"memory_copy", run.memory_copy, "B/s", "read and written, all ranks at once"});
            }
            if (world.rank() == 0) say(options, header_text(draft.record, options.summary));
            run.keep_skipped(world.rank() == 0);
            for (std::size_t i = 0; i < loaded.cases.size(); ++i) {
                const Case& c = loaded.cases[i];
                if (world.rank() == 0 && options.explain) say(options, explain_text(c));
                record::CaseRecord record = c.world_size() == world.size()
                                                ? run.one(world, status, &monitor, c, i, nullptr)
                                                : skipped_case(c, world_mismatch(c, world.size()));
                run.keep(std::move(record), world.rank() == 0);
            }
            run.conclude();
            // Nobody leaves before the record is written: a launcher ends the rest when a rank's
            // end looks wrong to it.
            world.barrier();
            std::string problem;
            if (world.rank() == 0) {
                try {
                    code = finish(draft, options, status);
                } catch (const core::Error& error) {
                    problem = error.what();
                }
            }
            problem = broadcast_text(world, problem);
            if (!problem.empty()) {
                if (world.rank() == 0) complain("error: " + problem);
                code = static_cast<int>(core::ExitCode::environment);
            }
            if (problem.empty()) code = draft.record.exit_code;
            status.leave();
            world.barrier();
            world.set_on_wait({});
        } catch (const RunGivenUp&) {
            LostRankMonitor::wait_for_end();
        } catch (const std::exception& error) {
            // An error that the ranks did not agree on: the others may wait for this one for ever.
            monitor.give_up({world.rank(), stage_name(status.stage()),
                             "rank " + std::to_string(world.rank()) + ": " + error.what()});
        }
    }
    return code;
}

/// One process plays all ranks of a case, each in a thread.
record::CaseRecord run_case_in_threads(Run& run, const RunOptions& options, Draft& draft,
                                       StatusPage& page, LostRankMonitor& monitor, const Case& c,
                                       std::size_t index, bool first) {
    const int size = c.world_size();
    std::vector<std::unique_ptr<World>> worlds = make_thread_worlds(size);
    auto hub = transport::make_loopback_hub(c.trainer_ranks, c.engines * c.tp);
    std::vector<std::unique_ptr<RankStatus>> statuses;
    for (auto& world : worlds) statuses.push_back(std::make_unique<RankStatus>(*world, page));
    record::CaseRecord record;
    // Measured once for each number of threads: it would take longer than most small cases.
    const auto measured = run.memory_copy_by_threads.find(size);
    const double known = measured == run.memory_copy_by_threads.end() ? 0.0 : measured->second;
    auto body = [&](std::size_t rank) {
        World& world = *worlds[rank];
        RankStatus& status = *statuses[rank];
        world.set_on_wait([&status] { status.beat(); });
        try {
            const double copy = known > 0.0 ? known : measure_memory_copy(world, status);
            if (rank == 0) {
                run.memory_copy = copy;
                run.memory_copy_by_threads[size] = copy;
                const std::lock_guard lock(draft.mutex);
                if (first)
                    draft.record.ceilings.push_back(
                        {"memory_copy", copy, "B/s", "read and written, all ranks at once"});
            }
            std::vector<record::RankRow> rows = rank_rows(world, c);
            if (rank == 0 && first) {
                const std::lock_guard lock(draft.mutex);
                draft.record.trainers = c.trainer_ranks;
                draft.record.receivers = size - c.trainer_ranks;
                draft.record.ranks = std::move(rows);
                say(options, header_text(draft.record, options.summary));
            }
            world.barrier();
            record::CaseRecord mine =
                run.one(world, status, rank == 0 ? &monitor : nullptr, c, index, hub);
            if (rank == 0) record = std::move(mine);
            status.leave();
        } catch (const RunGivenUp&) {
            LostRankMonitor::wait_for_end();
        } catch (const std::exception& error) {
            monitor.give_up({world.rank(), stage_name(status.stage()),
                             "rank " + std::to_string(rank) + ": " + error.what()});
        }
    };
    std::vector<std::thread> threads;
    for (std::size_t rank = 0; rank < worlds.size(); ++rank) threads.emplace_back(body, rank);
    for (std::thread& thread : threads) thread.join();
    page.slots_used.store(0);
    for (RankSlot& slot : page.slots) slot.exiting.store(0);
    return record;
}

int run_in_one_process(const RunOptions& options, const std::vector<std::string>& argv,
                       const LoadedScenarios& loaded) {
    Draft draft;
    Run run(options, argv, loaded, draft);
    check_outputs(options);
    start_record(draft, options, loaded, utc_now());
    draft.record.environment = environment(false);
    run.run_id = std::to_string(getpid()) + "." + std::to_string(steady_now_ns());
    auto page = std::make_unique<StatusPage>();
    std::vector<std::unique_ptr<World>> alone = make_thread_worlds(1);
    RankStatus status(*alone.front(), *page);
    LostRankMonitor monitor(status, [&](const Loss& loss) { write_loss(draft, loss); });
    (void)transport::remove_stale_segments();
    run.keep_skipped(true);
    for (std::size_t i = 0; i < loaded.cases.size(); ++i) {
        if (options.explain) say(options, explain_text(loaded.cases[i]));
        run.keep(
            run_case_in_threads(run, options, draft, *page, monitor, loaded.cases[i], i, i == 0),
            true);
    }
    run.conclude();
    return finish(draft, options, status);
}

}  // namespace

int run_command(const RunOptions& options, const std::vector<std::string>& argv, World* world) {
    try {
        const LoadedScenarios loaded = load_scenarios(options, world);
        if (options.dry_run) {
            int code = 0;
            if (world == nullptr) return dry_run(options, argv, loaded.cases, false);
            together(*world, [&] {
                if (world->rank() == 0) code = dry_run(options, argv, loaded.cases, true);
            });
            return code;
        }
        return world != nullptr ? run_under_mpi(options, argv, loaded, *world)
                                : run_in_one_process(options, argv, loaded);
    } catch (const core::Error& error) {
        // Agreed upon: every rank is here with the same words.
        if (world == nullptr || world->rank() == 0) complain("error: " + std::string(error.what()));
        return static_cast<int>(error.code());
    }
}

}  // namespace refit::harness
