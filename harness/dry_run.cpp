// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/dry_run.hpp"

#include <fmt/core.h>

#include <nlohmann/json.hpp>
#include <string>

#include "harness/case_setup.hpp"
#include "harness/console.hpp"
#include "harness/preflight.hpp"
#include "harness/run_output.hpp"
#include "record/build_info.hpp"

namespace refit::harness {

using nlohmann::json;

int dry_run(const RunOptions& options, const std::vector<std::string>& argv,
            const std::vector<Case>& cases, bool is_mpi) {
    check_writable(options.json);
    json rows = json::array();
    std::string text =
        fmt::format("#{:<44} {:>4} {:>8} {:>11} {:>11} {:>11} {:>11}\n", "scenario/case", "np",
                    "tensors", "wire", "memory", "/dev/shm", "available");
    for (const Case& c : cases) {
        const CaseSetup setup = set_up_case(c);
        const trainer::RefitPlan plan{planned_manifest(setup), {}, {}, {}, {}, {}};
        const std::string transport = c.world_size() > 1 && !is_mpi && c.transport_given
                                          ? c.transport
                                          : transport_of(c, true);
        const bool resident = c.resident == Resident::automatic ? resident_fits(setup, 1.0)
                                                                : c.resident == Resident::yes;
        const CaseNeeds needs = needs_of(c, setup, plan, transport, resident);
        const std::string name = one_line(c.scenario + (c.name.empty() ? "" : "/" + c.name));
        text += fmt::format(" {:<44} {:>4} {:>8} {:>11} {:>11} {:>11} {:>11}\n", name,
                            c.world_size(), setup.tensors.size(),
                            bytes_text(plan.manifest.payload_bytes()), bytes_text(needs.total()),
                            bytes_text(needs.shared_memory), bytes_text(available_memory_bytes()));
        if (needs.total() > available_memory_bytes() ||
            needs.shared_memory > available_shared_memory_bytes()) {
            text += "#   too large for this machine: 'run' would stop with exit code 3\n";
        }
        rows.push_back({{"scenario", c.scenario},
                        {"case", c.name},
                        {"np", c.world_size()},
                        {"tensors", setup.tensors.size()},
                        {"bytes_wire", plan.manifest.payload_bytes()},
                        {"memory_bytes", needs.total()},
                        {"shared_memory_bytes", needs.shared_memory},
                        {"buckets", plan.manifest.buckets.size()}});
    }
    if (!options.json.empty()) {
        const json root = {{"schema", "refitbench.dry_run/1"},
                           {"tool",
                            {{"name", "refitbench"},
                             {"version", record::tool_version()},
                             {"commit", record::tool_commit()}}},
                           {"argv", argv},
                           {"cases", rows}};
        // A path in the arguments need not be UTF-8; JSON must.
        write_text(options.json, root.dump(2, ' ', false, json::error_handler_t::replace) + "\n");
    }
    say(options, text);
    return 0;
}

}  // namespace refit::harness
