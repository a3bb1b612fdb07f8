// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/run_command.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
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
#include "harness/run_draft.hpp"
#include "harness/run_output.hpp"
#include "harness/scenario_loading.hpp"

namespace refit::harness {
namespace {

using nlohmann::json;

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

/// Ranks, roles and the memory's ceiling into the draft.
void draft_ranks(Draft& draft, double memory_copy, const LoadedScenarios& loaded, World& world) {
    const auto first = std::find_if(loaded.cases.begin(), loaded.cases.end(),
                                    [&](const Case& c) { return c.world_size() == world.size(); });
    // Where no case fits this world, no rank has a part.
    const bool fits = first != loaded.cases.end();
    Case nothing;
    nothing.trainer_ranks = 0;
    nothing.engines = 0;
    const Case& model_case = fits ? *first : nothing;
    std::vector<record::RankRow> rows = rank_rows(world, model_case);
    const std::lock_guard lock(draft.mutex);
    draft.record.trainers = model_case.trainer_ranks;
    draft.record.receivers = fits ? world.size() - model_case.trainer_ranks : 0;
    draft.record.ranks = std::move(rows);
    draft.record.ceilings.push_back(
        {"memory_copy", memory_copy, "B/s", "read and written, all ranks at once"});
}

/// Rank 0 writes; every rank returns the same exit code.
int finish_together(Draft& draft, const RunOptions& options, World& world, RankStatus& status) {
    // Nobody leaves before the record is written: a launcher ends the rest when a rank's end looks
    // wrong to it.
    world.barrier();
    std::string problem;
    if (world.rank() == 0) {
        try {
            (void)finish(draft, options, status);
        } catch (const core::Error& error) {
            problem = error.what();
        }
    }
    problem = broadcast_text(world, problem);
    if (problem.empty()) return draft.record.exit_code;
    if (world.rank() == 0) complain("error: " + problem);
    return static_cast<int>(core::ExitCode::environment);
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
    start_record(draft, options, loaded.stem, created);
    draft.record.environment = environment(true);
    draft.several_nodes = !world.one_node();
    int code = 0;
    LostRankMonitor monitor(status, [&](const Loss& loss) { write_loss(draft, loss); });
    world.set_on_wait([&] {
        status.beat();
        if (status.given_up_by_other()) throw RunGivenUp{};
    });
    try {
        if (world.rank() == 0) (void)transport::remove_stale_segments();
        run.memory_copy = measure_memory_copy(world, status);
        draft_ranks(draft, run.memory_copy, loaded, world);
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
        code = finish_together(draft, options, world, status);
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
    start_record(draft, options, loaded.stem, utc_now());
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
