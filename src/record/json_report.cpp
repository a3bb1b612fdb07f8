// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "record/json_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "record/build_info.hpp"

namespace refit::record {
namespace {

using Json = nlohmann::ordered_json;

/// JSON has no NaN and no infinity.
Json number(double value) {
    return std::isfinite(value) ? Json(value) : Json(nullptr);
}

Json optional_number(const std::optional<double>& value) {
    return value ? number(*value) : Json(nullptr);
}

const char* severity_name(core::Severity severity) {
    return severity == core::Severity::warning ? "warning" : "error";
}

Json finding_json(const core::Finding& finding) {
    Json result = {{"check", finding.check},       {"severity", severity_name(finding.severity)},
                   {"tensor", finding.tensor},     {"index", finding.index},
                   {"measured", finding.measured}, {"limit", finding.limit},
                   {"rank", finding.rank},         {"message", finding.message}};
    if (!finding.engine_behaviour.empty()) result["engine_behaviour"] = finding.engine_behaviour;
    if (!finding.engine_message.empty()) result["engine_message"] = finding.engine_message;
    if (!finding.remedy.empty()) result["remedy"] = finding.remedy;
    return result;
}

Json case_json(const CaseRecord& record) {
    const WallSummary wall = wall_of(record);
    Json samples = Json::array();
    for (const double value : wall.samples) samples.push_back(number(value));

    const auto summaries = stages_of(record);
    Json stages = Json::object();
    for (const char* name : kStages) {
        stages[name] = Json::object();
        const auto found = summaries.find(name);
        if (found == summaries.end()) continue;
        stages[name]["median_s"] = number(found->second.median_s);
        stages[name]["slowest_rank"] = found->second.slowest_rank;
    }

    // Generating or reading the weights lies outside the wall; it is here only where it was
    // measured.
    const auto source = summaries.find("source");
    if (source != summaries.end()) {
        stages["source"] = {{"median_s", number(source->second.median_s)},
                            {"slowest_rank", source->second.slowest_rank}};
    }

    Json link = {{"bytes_per_s", nullptr}, {"emulated", record.link_emulated}};
    if (record.link_bytes_per_s) link["bytes_per_s"] = number(*record.link_bytes_per_s);
    const bool has_floor = record.floor_wall_s > 0.0;

    Json findings = Json::array();
    for (const core::Finding& finding : record.findings) findings.push_back(finding_json(finding));

    Json result;
    result["scenario"] = record.scenario;
    result["purpose"] = record.purpose;
    result["case"] = record.case_name;
    result["model"] = record.model;
    result["scheme"] = record.scheme;
    result["recipe"] = record.recipe;
    result["engine"] = record.engine;
    result["tp"] = record.tp;
    result["engines"] = record.engines;
    result["transport"] = record.transport;
    result["backend"] = record.backend;
    result["outcome"] = record.outcome;
    result["skip_reason"] = record.skip_reason;
    result["tensors"] = record.tensors;
    result["bytes_bf16"] = record.bytes_bf16;
    result["bytes_wire"] = record.bytes_wire;
    result["byte_ratio"] = number(byte_ratio(record));
    result["iterations"] = record.iterations;
    result["wall_s"] = {{"median", number(wall.median)},
                        {"min", number(wall.min)},
                        {"max", number(wall.max)},
                        {"samples", samples}};
    result["stages"] = stages;
    if (source != summaries.end()) result["source_s"] = number(source->second.median_s);
    result["audit_s"] = number(record.audit_s);
    result["cpu_s"] = {{"sum", number(record.cpu_s_sum)}, {"waiting_excluded", true}};
    result["cores"] = record.cores;
    result["link"] = link;
    result["floor"] = {
        {"wall_s", has_floor ? number(record.floor_wall_s) : Json(nullptr)},
        {"wall_over_floor", has_floor ? number(wall.median / record.floor_wall_s) : Json(nullptr)},
        {"formula", record.floor_formula}};
    result["algbw_bytes_per_s"] = number(algbw_bytes_per_s(record));
    result["peak_rss_bytes"] = {{"max", record.peak_rss_max_bytes},
                                {"sum", record.peak_rss_sum_bytes}};
    result["accuracy"] = {
        {"sqnr_db", optional_number(record.sqnr_db)},
        {"max_error_over_bound", number(record.max_error_over_bound)},
        {"saturated", record.saturated},
        {"flushed", record.flushed},
        {"exact", record.exact},
        {"subnormal", record.subnormal},
        {"output_snr_db", optional_number(record.output_snr_db)},
        {"expected_output_snr_db", optional_number(record.expected_output_snr_db)}};
    result["findings"] = findings;
    result["notes"] = record.notes;
    return result;
}

/// Text for XML: the five entities, and '?' for control characters, which XML 1.0 cannot carry at
/// all. Bytes that are no UTF-8 become U+FFFD by the same rule as in the JSON.
std::string xml(const std::string& text) {
    const std::string valid =
        Json::parse(Json(text).dump(-1, ' ', false, Json::error_handler_t::replace))
            .get<std::string>();
    std::string result;
    for (const char c : valid) {
        switch (c) {
            case '&':
                result += "&amp;";
                break;
            case '<':
                result += "&lt;";
                break;
            case '>':
                result += "&gt;";
                break;
            case '"':
                result += "&quot;";
                break;
            case '\n':
                result += "&#10;";
                break;
            case '\t':
                result += "&#9;";
                break;
            default: {
                const auto byte = static_cast<unsigned char>(c);
                result += byte < 0x20 || byte == 0x7F ? '?' : c;
            }
        }
    }
    return result;
}

std::vector<std::string> split_names(const std::map<std::string, std::string>& notes,
                                     const std::string& key) {
    std::vector<std::string> result;
    const auto found = notes.find(key);
    if (found == notes.end()) return result;
    std::string name;
    for (const char c : found->second + ",") {
        if (c == ',' || c == ' ') {
            if (!name.empty()) result.push_back(name);
            name.clear();
        } else {
            name += c;
        }
    }
    return result;
}

struct JunitCase {
    std::string name;
    double time_s = 0.0;
    std::string kind;  ///< "" passed, else failure | error | skipped
    std::string message;
    std::string output;
};

std::vector<JunitCase> junit_cases(const CaseRecord& record) {
    std::vector<std::string> checks = split_names(record.notes, "checks");
    const std::vector<std::string> not_applicable =
        split_names(record.notes, "checks_not_applicable");
    const auto add = [&checks](const std::string& name) {
        if (std::find(checks.begin(), checks.end(), name) == checks.end()) checks.push_back(name);
    };
    for (const std::string& name : not_applicable) add(name);
    for (const core::Finding& finding : record.findings) add(finding.check);

    std::vector<JunitCase> result;
    JunitCase outcome;
    outcome.name = "outcome";
    const double wall = wall_of(record).median;
    outcome.time_s = std::isfinite(wall) ? wall : 0.0;
    if (record.outcome == "skipped") {
        outcome.kind = "skipped";
        outcome.message = record.skip_reason;
    } else if (record.outcome == "error") {
        outcome.kind = "error";
        const auto reason = record.notes.find("error_message");
        outcome.message =
            reason == record.notes.end() ? "the case could not be finished" : reason->second;
    } else if (record.outcome == "unexpected_pass") {
        outcome.kind = "failure";
        outcome.message = "the case passed although the scenario expects otherwise";
    } else if (record.outcome == "fail" && !core::has_error(record.findings)) {
        outcome.kind = "failure";
        outcome.message = "the case failed without a finding of severity error";
    }
    result.push_back(outcome);
    // A case that did not run to its end has answered no check, so none may show as passed.
    if (record.outcome == "skipped" || record.outcome == "error") checks.clear();

    for (const std::string& check : checks) {
        JunitCase entry;
        entry.name = check;
        if (std::find(not_applicable.begin(), not_applicable.end(), check) !=
            not_applicable.end()) {
            entry.kind = "skipped";
            entry.message = "not applicable in this case";
        }
        bool has_error = false;
        for (const core::Finding& finding : record.findings) {
            if (finding.check != check) continue;
            entry.output += fmt::format(
                "{}: {}: measured {}, limit {}, rank {}: {}\n", severity_name(finding.severity),
                finding.tensor, finding.measured, finding.limit, finding.rank, finding.message);
            if (finding.severity == core::Severity::error && !has_error) {
                has_error = true;
                entry.message = finding.message;
            }
        }
        // An expected finding is what the scenario asked for; it stays visible in the output only.
        if (has_error) entry.kind = record.outcome == "fail" ? "failure" : "";
        result.push_back(entry);
    }
    return result;
}

}  // namespace

std::string to_json(const RunRecord& record, const std::string& record_path) {
    Json cases = Json::array();
    for (const CaseRecord& entry : record.cases) cases.push_back(case_json(entry));
    Json result;
    result["schema"] = "refitbench.run/1";
    result["tool"] = {{"name", "refitbench"},
                      {"version", tool_version()},
                      {"commit", tool_commit()},
                      {"dirty", tool_dirty()}};
    result["argv"] = record.argv;
    result["created_utc"] = record.created_utc;
    result["verdict"] = record.verdict;
    result["exit_code"] = record.exit_code;
    if (record.verdict == "error") {
        result["error"] = {{"rank", record.error_rank.value_or(-1)},
                           {"stage", record.error_stage},
                           {"message", record.error_message}};
    }
    result["record"] = record_path;
    result["world"] = {{"size", record.trainers + record.receivers},
                       {"trainers", record.trainers},
                       {"receivers", record.receivers}};
    result["environment"] = record.environment;
    Json ceilings = Json::object();
    for (const Ceiling& ceiling : record.ceilings) {
        ceilings[ceiling.name] = {
            {"value", number(ceiling.value)}, {"unit", ceiling.unit}, {"how", ceiling.how}};
    }
    result["ceilings"] = ceilings;
    result["cases"] = cases;
    // A path or an engine's text may hold bytes that are no UTF-8; they must not cost the report.
    return result.dump(2, ' ', false, Json::error_handler_t::replace);
}

std::string to_junit(const RunRecord& record) {
    std::string suites;
    std::size_t tests = 0, failures = 0, errors = 0, skips = 0;
    std::set<std::string> names;
    const auto append_suite = [&](std::string name, const std::vector<JunitCase>& entries) {
        // Scenarios of two folders may share a name; what a CI system keeps by name must not.
        const std::string wanted = name;
        for (int count = 2; !names.insert(name).second; ++count) {
            name = fmt::format("{} ({})", wanted, count);
        }
        const auto count = [&entries](const char* kind) {
            return static_cast<std::size_t>(
                std::count_if(entries.begin(), entries.end(),
                              [kind](const JunitCase& e) { return e.kind == kind; }));
        };
        suites += fmt::format(
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\">\n",
            xml(name), entries.size(), count("failure"), count("error"), count("skipped"));
        for (const JunitCase& entry : entries) {
            suites += fmt::format("    <testcase classname=\"{}\" name=\"{}\" time=\"{:.6f}\">",
                                  xml(name), xml(entry.name), entry.time_s);
            if (!entry.kind.empty()) {
                suites += fmt::format("<{} message=\"{}\"/>", entry.kind, xml(entry.message));
            }
            if (!entry.output.empty()) {
                suites += fmt::format("<system-out>{}</system-out>", xml(entry.output));
            }
            suites += "</testcase>\n";
        }
        suites += "  </testsuite>\n";
        tests += entries.size();
        failures += count("failure");
        errors += count("error");
        skips += count("skipped");
    };
    for (const CaseRecord& entry : record.cases) {
        append_suite(
            entry.case_name.empty() ? entry.scenario : entry.scenario + "/" + entry.case_name,
            junit_cases(entry));
    }
    if (record.verdict == "error") {
        JunitCase run;
        run.name = "run";
        run.kind = "error";
        run.message = fmt::format("rank {}, stage {}: {}", record.error_rank.value_or(-1),
                                  record.error_stage, record.error_message);
        append_suite("refitbench", {run});
    }
    return fmt::format(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"refitbench\" "
        "tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\">\n{}</testsuites>\n",
        tests, failures, errors, skips, suites);
}

}  // namespace refit::record
