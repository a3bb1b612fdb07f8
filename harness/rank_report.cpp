// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/rank_report.hpp"

#include <nlohmann/json.hpp>

namespace refit::harness {
namespace {

using nlohmann::json;

json to_json(const core::Finding& f) {
    return {f.check,
            f.severity == core::Severity::error,
            f.tensor,
            f.index,
            f.measured,
            f.limit,
            f.rank,
            f.message,
            f.engine_behaviour,
            f.engine_message,
            f.remedy};
}

core::Finding finding_from(const json& row) {
    core::Finding f;
    f.check = row.at(0).get<std::string>();
    f.severity = row.at(1).get<bool>() ? core::Severity::error : core::Severity::warning;
    f.tensor = row.at(2).get<std::string>();
    f.index = row.at(3).get<std::vector<std::int64_t>>();
    f.measured = row.at(4).get<std::string>();
    f.limit = row.at(5).get<std::string>();
    f.rank = row.at(6).get<int>();
    f.message = row.at(7).get<std::string>();
    f.engine_behaviour = row.at(8).get<std::string>();
    f.engine_message = row.at(9).get<std::string>();
    f.remedy = row.at(10).get<std::string>();
    return f;
}

json to_json(const core::Findings& findings) {
    json rows = json::array();
    for (const core::Finding& f : findings) rows.push_back(to_json(f));
    return rows;
}

core::Findings findings_from(const json& rows) {
    core::Findings findings;
    for (const json& row : rows) findings.push_back(finding_from(row));
    return findings;
}

}  // namespace

std::string findings_to_json(const core::Findings& findings) {
    return to_json(findings).dump(-1, ' ', false, json::error_handler_t::replace);
}

core::Findings findings_from_json(const std::string& text) {
    return findings_from(json::parse(text));
}

std::string refit_result_to_json(const RefitResult& result) {
    json buckets = json::array();
    for (const BucketTimes& bucket : result.times.buckets)
        buckets.push_back({bucket.index, bucket.bytes, bucket.stage});
    const json root = {{"committed", result.committed}, {"wall_s", result.times.wall_s},
                       {"cpu_s", result.times.cpu_s},   {"stage_s", result.times.stage_s},
                       {"buckets", std::move(buckets)}, {"findings", to_json(result.findings)},
                       {"error", result.error},         {"error_stage", result.error_stage}};
    return root.dump(-1, ' ', false, json::error_handler_t::replace);
}

RefitResult refit_result_from_json(const std::string& text) {
    const json root = json::parse(text);
    RefitResult result;
    result.committed = root.at("committed").get<bool>();
    result.times.wall_s = root.at("wall_s").get<double>();
    result.times.cpu_s = root.at("cpu_s").get<double>();
    result.times.stage_s = root.at("stage_s").get<std::map<std::string, double>>();
    for (const json& row : root.at("buckets")) {
        BucketTimes bucket;
        bucket.index = row.at(0).get<std::int64_t>();
        bucket.bytes = row.at(1).get<std::int64_t>();
        bucket.stage = row.at(2).get<std::map<std::string, std::pair<double, double>>>();
        result.times.buckets.push_back(std::move(bucket));
    }
    result.findings = findings_from(root.at("findings"));
    result.error = root.at("error").get<std::string>();
    result.error_stage = root.at("error_stage").get<std::string>();
    return result;
}

}  // namespace refit::harness
