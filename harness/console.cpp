// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/console.hpp"

#include <fmt/core.h>

#include <cmath>
#include <limits>

#include "checks/check_catalog.hpp"
#include "harness/preflight.hpp"
#include "record/build_info.hpp"

namespace refit::harness {
namespace {

std::string number_or_dash(double value, const char* format) {
    return std::isfinite(value) ? fmt::format(fmt::runtime(format), value) : std::string("-");
}

}  // namespace

std::string one_line(std::string text) {
    for (char& c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x20 || byte == 0x7F) c = ' ';
    }
    while (!text.empty() && text.back() == ' ') text.pop_back();
    return text;
}

double wall_over_bf16(const record::RunRecord& record, const record::CaseRecord& c) {
    if (c.scheme == "bf16" || c.iterations == 0) return std::numeric_limits<double>::quiet_NaN();
    for (const record::CaseRecord& twin : record.cases) {
        const bool same = twin.scheme == "bf16" && twin.iterations > 0 &&
                          twin.scenario == c.scenario && twin.model == c.model && twin.tp == c.tp &&
                          twin.engines == c.engines && twin.transport == c.transport &&
                          twin.link_bytes_per_s == c.link_bytes_per_s;
        if (same) return record::wall_of(c).median / record::wall_of(twin).median;
    }
    return std::numeric_limits<double>::quiet_NaN();
}

std::string header_text(const record::RunRecord& record, bool summary) {
    std::string text =
        fmt::format("# refitbench {} ({}{})\n", record::tool_version(),
                    record::tool_commit().substr(0, 12), record::tool_dirty() ? ", modified" : "");
    text += "# argv:";
    for (const std::string& word : record.argv) text += " " + one_line(word);
    text += fmt::format("\n# world: {} ranks = {} trainers + {} receivers\n", record.ranks.size(),
                        record.trainers, record.receivers);
    if (summary) return text;
    for (const auto* key : {"cpu", "compiler", "mpi", "hdf5"}) {
        const auto found = record.environment.find(key);
        if (found != record.environment.end())
            text += fmt::format("# {}: {}\n", key, found->second);
    }
    text += "#  rank  role          pid       host  device\n";
    for (const record::RankRow& row : record.ranks) {
        text += fmt::format("#  {:>4}  {:<12}  {:<8}  {}  {}\n", row.rank, row.role, row.pid,
                            row.host, row.device);
    }
    for (const record::Ceiling& ceiling : record.ceilings) {
        text += fmt::format("# ceiling {}: {:.2f} GB/s ({})\n", ceiling.name, ceiling.value / 1e9,
                            ceiling.how);
    }
    return text;
}

std::string columns_text(const std::string& scenario, const std::string& purpose) {
    return fmt::format(
        "#\n# {}: {}\n"
        "#{:<15} {:<22} {:>7} {:>9} {:>6} {:>9} {:>9} {:>9} {:>7} {:>7} {:>8} {:>8} {:>6}  {}\n"
        "#{:<15} {:<22} {:>7} {:>9} {:>6} {:>9} {:>9} {:>9} {:>7} {:>7} {:>8} {:>8} {:>6}  {}\n",
        one_line(scenario), one_line(purpose), "scheme", "recipe", "tensors", "wire", "bytes",
        "wall", "min", "max", "/bf16", "/floor", "algbw", "SQNR", "#wrong", "outcome", "", "", "",
        "(MB)", "/bf16", "(ms)", "(ms)", "(ms)", "(wall)", "(wall)", "(GB/s)", "(dB)", "", "");
}

std::string case_text(const record::RunRecord& record, const record::CaseRecord& c) {
    std::size_t wrong = 0;
    for (const core::Finding& finding : c.findings)
        wrong += finding.severity == core::Severity::error ? 1 : 0;
    const record::WallSummary wall = record::wall_of(c);
    const bool timed = c.iterations > 0;
    const double nan = std::numeric_limits<double>::quiet_NaN();
    return fmt::format(
        " {:<15} {:<22} {:>7} {:>9} {:>6} {:>9} {:>9} {:>9} {:>7} {:>7} {:>8} {:>8} {:>6}  {}{}\n",
        c.scheme, c.recipe.empty() ? "-" : c.recipe, c.tensors,
        c.bytes_wire > 0 ? fmt::format("{:.2f}", static_cast<double>(c.bytes_wire) / 1e6) : "-",
        number_or_dash(c.bytes_wire > 0 ? record::byte_ratio(c) : nan, "{:.3f}"),
        number_or_dash(timed ? wall.median * 1e3 : nan, "{:.2f}"),
        number_or_dash(timed ? wall.min * 1e3 : nan, "{:.2f}"),
        number_or_dash(timed ? wall.max * 1e3 : nan, "{:.2f}"),
        number_or_dash(wall_over_bf16(record, c), "{:.3f}"),
        number_or_dash(timed && c.floor_wall_s > 0 ? wall.median / c.floor_wall_s : nan, "{:.2f}"),
        number_or_dash(timed ? record::algbw_bytes_per_s(c) / 1e9 : nan, "{:.3f}"),
        number_or_dash(c.sqnr_db.value_or(nan), "{:.2f}"), wrong,
        c.link_emulated ? c.outcome + " (link emulated)" : c.outcome,
        c.skip_reason.empty() ? "" : ": " + one_line(c.skip_reason));
}

std::string findings_text(const record::CaseRecord& c, std::size_t at_most, bool explain) {
    std::string text;
    if (c.output_snr_db && c.expected_output_snr_db) {
        text += fmt::format("#   layer output: {:.2f} dB, expected {:.2f} dB, mean over tensors\n",
                            *c.output_snr_db, *c.expected_output_snr_db);
    }
    const auto note = [&](const char* name) {
        const auto found = c.notes.find(name);
        return found == c.notes.end() ? std::string() : found->second;
    };
    const std::string unasked = note("checks_not_applicable");
    if (!unasked.empty()) text += "#   checks not applicable: " + unasked + "\n";
    const std::string resident = note("weights_resident");
    if (resident.starts_with("false (auto"))
        text += "#   weights resident: " + one_line(resident) + "\n";
    const std::string on_device = note("device_resident");
    if (on_device.starts_with("false"))
        text += "#   staged through the host: " + one_line(on_device) + "\n";
    std::size_t shown = 0;
    for (const core::Finding& f : c.findings) {
        if (shown++ == at_most) {
            text += fmt::format("#   ... and {} more; the record has them all\n",
                                c.findings.size() - at_most);
            break;
        }
        std::string where = f.tensor;
        if (!f.index.empty()) {
            where += " [";
            for (std::size_t i = 0; i < f.index.size(); ++i)
                where += (i != 0 ? ", " : "") + std::to_string(f.index[i]);
            where += "]";
        }
        // Messages begin with the tensor where that reads well; it need not stand there twice.
        const std::string subject =
            f.index.empty() && f.message.starts_with(f.tensor) ? "" : where + ": ";
        const std::string message = f.message.starts_with(f.tensor + ": ") && !subject.empty()
                                        ? f.message.substr(f.tensor.size() + 2)
                                        : f.message;
        text += fmt::format("#   {} {} rank {}: {}{}\n",
                            f.severity == core::Severity::error ? "error" : "warning", f.check,
                            f.rank, subject, one_line(message));
        if (explain && !f.engine_behaviour.empty()) {
            text += fmt::format(
                "#     {}: {}{}\n", c.engine, f.engine_behaviour,
                f.engine_message.empty() ? "" : ": \"" + one_line(f.engine_message) + "\"");
        }
        if (!f.remedy.empty()) text += fmt::format("#     remedy: {}\n", one_line(f.remedy));
    }
    return text;
}

std::string footer_text(const record::RunRecord& record, const std::string& record_path) {
    std::size_t passed = 0;
    std::size_t skipped = 0;
    std::size_t wrong = 0;
    for (const record::CaseRecord& c : record.cases) {
        if (c.outcome == "skipped") {
            ++skipped;
        } else if (c.outcome == "pass" || c.outcome.starts_with("expected")) {
            ++passed;
        } else {
            ++wrong;
        }
    }
    std::string text =
        fmt::format("# cases: {} as expected, {} not, {} skipped\n", passed, wrong, skipped);
    if (!record.error_message.empty()) text += "# error: " + one_line(record.error_message) + "\n";
    text += fmt::format("# verdict: {} (exit code {})\n", record.verdict, record.exit_code);
    if (!record_path.empty()) text += "# record: " + record_path + "\n";
    return text;
}

std::string explain_text(const Case& c) {
    std::string text = fmt::format("# {}{}{}: {} trainers ({}) -> {} engines of {} at TP {}\n",
                                   c.scenario, c.name.empty() ? "" : "/", one_line(c.name),
                                   c.trainer_ranks, c.layout, c.engines, c.engine, c.tp);
    text += fmt::format("#   payload {} {}, scale shape {}, non-finite {}\n", c.scheme,
                        c.recipe.empty() ? "default recipe" : c.recipe, c.scale_shape, c.nonfinite);
    text += fmt::format("#   transport {}, buckets of {}, depth {}, {}\n", c.transport,
                        bytes_text(c.bucket_bytes), c.depth,
                        c.link_bytes_per_s == 0
                            ? "no pacing"
                            : "emulated link of " + bytes_text(c.link_bytes_per_s) + "/s");
    text +=
        "#   wall = gather to commit, maximum over ranks, between barriers; source and audit are "
        "outside of it\n";
    for (const checks::CheckRow& row : checks::check_catalog()) {
        for (const std::string& name : c.checks) {
            if (name == row.name)
                text += fmt::format("#   check {}: {} (truth: {})\n", row.name, row.question,
                                    row.truth);
        }
    }
    return text;
}

}  // namespace refit::harness
