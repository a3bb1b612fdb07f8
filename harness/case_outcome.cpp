// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/case_outcome.hpp"

#include <algorithm>
#include <thread>

#include "weights/synthetic_weights.hpp"

namespace refit::harness {

record::CaseRecord begun_case(const Case& c, const std::string& transport) {
    record::CaseRecord record;
    record.scenario = c.scenario;
    record.purpose = c.purpose;
    record.case_name = c.name;
    record.model = c.model_config ? c.model_config->string() : c.model_name;
    if (c.layers) record.model += " (" + std::to_string(*c.layers) + " layers)";
    record.engine = c.engine;
    record.transport = transport;
    record.backend = c.backend;
    record.tp = c.tp;
    record.engines = c.engines;
    record.cores = static_cast<int>(std::thread::hardware_concurrency());
    if (c.link_bytes_per_s != 0) {
        record.link_bytes_per_s = static_cast<double>(c.link_bytes_per_s);
        record.link_emulated = true;
    }
    if (!c.remark.empty()) record.notes["remark"] = c.remark;
    record.scheme = c.scheme;
    record.recipe = c.recipe;
    std::string names;
    for (const std::string& name : c.checks) names += (names.empty() ? "" : ",") + name;
    record.notes["checks"] = names;
    return record;
}

void add_findings(record::CaseRecord& record, const core::Findings& findings) {
    for (const core::Finding& finding : findings) {
        const bool known = std::any_of(
            record.findings.begin(), record.findings.end(), [&](const core::Finding& old) {
                return old.check == finding.check && old.tensor == finding.tensor &&
                       old.index == finding.index && old.measured == finding.measured &&
                       old.rank == finding.rank;
            });
        if (!known) record.findings.push_back(finding);
    }
}

record::CaseRecord skipped_case(const Case& c, const std::string& reason) {
    record::CaseRecord record = begun_case(c, c.transport);
    record.outcome = "skipped";
    record.skip_reason = reason;
    return record;
}

std::string judge_outcome(const Expectation& expect, const core::Findings& findings, bool error) {
    if (expect.outcome == "error") {
        if (error) return "expected_error";
        return core::has_error(findings) ? "fail" : "unexpected_pass";
    }
    if (error) return "error";
    if (expect.outcome != "finding") return core::has_error(findings) ? "fail" : "pass";
    const bool expected =
        std::any_of(findings.begin(), findings.end(), [&](const core::Finding& finding) {
            return finding.severity == core::Severity::error &&
                   (expect.check.empty() || finding.check == expect.check) &&
                   (expect.tensor.empty() || weights::glob_match(expect.tensor, finding.tensor));
        });
    if (expected) return "expected_finding";
    return core::has_error(findings) ? "fail" : "unexpected_pass";
}

}  // namespace refit::harness
