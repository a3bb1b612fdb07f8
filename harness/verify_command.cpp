// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/verify_command.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "checks/audit.hpp"
#include "core/error.hpp"
#include "harness/checkpoint_survey.hpp"
#include "harness/engine_verdict.hpp"
#include "harness/fp8_file.hpp"
#include "harness/reference_comparison.hpp"
#include "harness/run_output.hpp"
#include "receiver/engine_contract.hpp"

namespace refit::harness {
namespace {

using core::Finding;
using core::Severity;
using nlohmann::json;

/// Lines of findings that are printed; the JSON has all of them.
constexpr std::size_t kShownFindings = 20;

/// A line on standard error that grows while files are read; nothing where that is no terminal.
class ProgressLine {
 public:
    ProgressLine(const char* what, std::uint64_t bytes)
        : what_(what), bytes_(bytes), shown_(::isatty(STDERR_FILENO) == 1) {}
    ~ProgressLine() {
        if (printed_) fmt::print(stderr, "\r{:60}\r", "");
    }
    ProgressLine(const ProgressLine&) = delete;
    ProgressLine& operator=(const ProgressLine&) = delete;

    void add(std::uint64_t bytes) {
        done_ += bytes;
        if (!shown_) return;
        const auto now = std::chrono::steady_clock::now();
        if (now - last_ < std::chrono::milliseconds(200)) return;
        last_ = now;
        printed_ = true;
        const double share =
            bytes_ == 0 ? 1.0 : static_cast<double>(done_) / static_cast<double>(bytes_);
        constexpr std::size_t kWidth = 30;
        const auto filled = static_cast<std::size_t>(std::min(share, 1.0) * kWidth);
        fmt::print(stderr, "\r{} [{:<{}}] {:3.0f} %", what_, std::string(filled, '#'), kWidth,
                   100.0 * std::min(share, 1.0));
        std::fflush(stderr);
    }

 private:
    const char* what_;
    std::uint64_t bytes_;
    std::uint64_t done_ = 0;
    bool shown_;
    bool printed_ = false;
    std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

json finding_json(const Finding& finding) {
    json result = {{"check", finding.check},
                   {"severity", finding.severity == Severity::error ? "error" : "warning"},
                   {"tensor", finding.tensor},
                   {"index", finding.index},
                   {"measured", finding.measured},
                   {"limit", finding.limit},
                   {"rank", finding.rank},
                   {"message", finding.message},
                   {"remedy", finding.remedy}};
    if (!finding.engine_behaviour.empty()) result["engine_behaviour"] = finding.engine_behaviour;
    if (!finding.engine_message.empty()) result["engine_message"] = finding.engine_message;
    return result;
}

json findings_json(const core::Findings& findings) {
    json list = json::array();
    for (const Finding& finding : findings) list.push_back(finding_json(finding));
    return list;
}

const char* verdict_text(const EngineVerdict& verdict) {
    return verdict.passes() ? "pass" : "fail";
}

std::size_t count(const core::Findings& findings, Severity severity) {
    return static_cast<std::size_t>(
        std::count_if(findings.begin(), findings.end(),
                      [severity](const Finding& f) { return f.severity == severity; }));
}

json to_json(const CheckpointSurvey& survey, const std::vector<EngineVerdict>& verdicts,
             const std::optional<ReferenceResult>& reference, const VerifyOptions& options,
             const std::vector<std::string>& argv) {
    const EngineVerdict& best = best_of(verdicts);
    json root = json_head("refitbench.verify/1", argv);
    root["directory"] = options.directory.string();
    root["verdict"] = verdict_text(best);
    root["engine"] = best.engine;
    root["engine_version"] = best.engine_version;
    root["tp"] = options.tp;
    root["scheme"] = best.scheme;
    root["model"] = model::architecture_name(survey.model().architecture);
    root["tensors"] = survey.tensors();
    root["scales"] = static_cast<std::int64_t>(survey.names().size()) - survey.tensors();
    root["files"] = survey.files().file_count();
    root["bytes"] = survey.bytes();
    root["findings"] = findings_json(best.findings);
    if (options.engine.empty()) {
        json engines = json::array();
        for (const EngineVerdict& verdict : verdicts) {
            engines.push_back({{"engine", verdict.engine},
                               {"engine_version", verdict.engine_version},
                               {"scheme", verdict.scheme},
                               {"verdict", verdict_text(verdict)},
                               {"findings", findings_json(verdict.findings)}});
        }
        root["engines"] = engines;
    }
    if (reference) {
        const double sqnr = reference->sum_error2 > 0.0
                                ? checks::sqnr_db(reference->sum_x2, reference->sum_error2)
                                : 0.0;
        root["reference"] = {
            {"directory", options.reference.string()},
            {"quantized", reference->quantized},
            {"raw", reference->raw},
            {"not_compared", reference->not_compared},
            {"sqnr_db", reference->sum_error2 > 0.0 ? number_or_null(sqnr) : json(nullptr)},
            {"recipes", reference->recipes},
            {"recipe_matrices", reference->recipe_matrices}};
    }
    return root;
}

std::string joined(const std::vector<std::string>& names) {
    std::string text;
    for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
    return text;
}

void print_findings(const EngineVerdict& verdict) {
    for (std::size_t i = 0; i < verdict.findings.size() && i < kShownFindings; ++i) {
        const Finding& finding = verdict.findings[i];
        fmt::print("{}  {}  {}\n", finding.severity == Severity::error ? "error" : "warning",
                   finding.check, finding.message);
        if (!finding.engine_message.empty()) {
            fmt::print("#   {} says: {}\n", verdict.engine, finding.engine_message);
        }
    }
    if (verdict.findings.size() > kShownFindings) {
        fmt::print("# and {} more; --json FILE has all of them\n",
                   verdict.findings.size() - kShownFindings);
    }
}

void print(const CheckpointSurvey& survey, const std::vector<EngineVerdict>& verdicts,
           const std::optional<ReferenceResult>& reference, const VerifyOptions& options) {
    const EngineVerdict& best = best_of(verdicts);
    if (best.passes()) {
        fmt::print("pass  {}  {}  {} tensors are as {} at TP {} wants them\n",
                   options.directory.string(), best.scheme, survey.tensors(), best.engine,
                   options.tp);
    } else {
        const Finding& first = best.findings.front();
        fmt::print("fail  {}  {}\n", first.tensor, first.remedy);
    }
    print_findings(best);
    fmt::print("# {} {}, TP {}: {} errors, {} warnings; {} files, {} bytes\n", best.engine,
               best.engine_version, options.tp, count(best.findings, Severity::error),
               count(best.findings, Severity::warning), survey.files().file_count(),
               survey.bytes());
    if (options.engine.empty()) {
        for (const EngineVerdict& verdict : verdicts) {
            const bool passes = verdict.passes();
            fmt::print("# engine {}: {}{}\n", verdict.engine, verdict_text(verdict),
                       passes ? "" : "  " + verdict.findings.front().message);
        }
    }
    if (reference) {
        fmt::print(
            "# reference {}: {} matrices compared through their codes, {} tensors as they "
            "are, {} not compared\n",
            options.reference.string(), reference->quantized, reference->raw,
            reference->not_compared);
        fmt::print("# recipes that give exactly the codes and scales of {} matrices{}: {}\n",
                   reference->recipe_matrices == reference->quantized
                       ? fmt::format("all {}", reference->recipe_matrices)
                       : fmt::format("{} of {}", reference->recipe_matrices, reference->quantized),
                   reference->recipe_matrices == reference->quantized
                       ? ""
                       : " (the others' reference is not BF16, which recipes quantize)",
                   reference->recipes.empty() ? "none" : joined(reference->recipes));
    }
}

/// Scales that are called too small are right where the reference's weights are as small.
void believe_reference(const CheckpointSurvey& survey, const ReferenceResult& reference,
                       core::Findings& values) {
    for (Finding& finding : values) {
        if (finding.limit != CheckpointSurvey::kSmallestScale) continue;
        if (reference.faithful.count(survey.weight_of(finding.tensor)) == 0) continue;
        finding.severity = Severity::warning;
        finding.engine_behaviour.clear();
    }
}

int verify(const VerifyOptions& options, const std::vector<std::string>& argv) {
    if (!options.engine.empty()) static_cast<void>(receiver::find_engine(options.engine));
    check_writable(options.json);
    const CheckpointSurvey survey(options.directory);
    core::Findings values;
    {
        ProgressLine line("reading", survey.bytes());
        values = survey.judge_values([&](std::uint64_t bytes) { line.add(bytes); });
    }
    std::optional<ReferenceResult> reference;
    if (!options.reference.empty()) {
        // A quantized byte has two in the reference.
        ProgressLine line("comparing", 3 * survey.bytes());
        reference = compare_with_reference(survey, options.reference,
                                           [&](std::uint64_t bytes) { line.add(bytes); });
        believe_reference(survey, *reference, values);
        values.insert(values.end(), reference->findings.begin(), reference->findings.end());
    }
    std::vector<std::string> engines = {options.engine};
    if (options.engine.empty()) engines = engines_for(survey);
    std::vector<EngineVerdict> verdicts;
    for (const std::string& engine : engines) {
        verdicts.push_back(judge_for_engine(survey, engine, options.tp, values));
    }
    if (verdicts.empty()) verdicts.push_back(judge_without_engine(survey, values));
    if (!options.json.empty()) {
        put_json(options.json, to_json(survey, verdicts, reference, options, argv));
    }
    if (options.json != "-") print(survey, verdicts, reference, options);
    return static_cast<int>(best_of(verdicts).passes() ? core::ExitCode::as_expected
                                                       : core::ExitCode::verdict);
}

}  // namespace

int verify_command(const VerifyOptions& options, const std::vector<std::string>& argv) {
    return guarded([&] { return verify(options, argv); });
}

}  // namespace refit::harness
