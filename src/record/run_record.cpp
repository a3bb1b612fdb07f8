// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "record/run_record.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

namespace refit::record {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// Mean of the two middle values where their number is even; NaN for none. `values` has no NaN.
double median_of(std::vector<double> values) {
    if (values.empty()) return kNan;
    std::sort(values.begin(), values.end());
    const std::size_t half = values.size() / 2;
    if (values.size() % 2 == 1) return values[half];
    return 0.5 * (values[half - 1] + values[half]);
}

/// The largest value of a row; NaN where no rank has a part.
double maximum_over_ranks(const std::vector<double>& row) {
    double result = kNan;
    for (const double value : row) {
        if (std::isnan(value)) continue;
        if (std::isnan(result) || value > result) result = value;
    }
    return result;
}

/// One value an iteration in which at least one rank has a part.
std::vector<double> maxima_by_iteration(const Samples& samples) {
    std::vector<double> result;
    for (const std::vector<double>& row : samples) {
        const double value = maximum_over_ranks(row);
        if (!std::isnan(value)) result.push_back(value);
    }
    return result;
}

/// The rank with the largest median over iterations: one slow iteration does not name a rank.
int slowest_rank_of(const Samples& samples) {
    std::size_t ranks = 0;
    for (const std::vector<double>& row : samples) ranks = std::max(ranks, row.size());
    int slowest = -1;
    double slowest_median = kNan;
    for (std::size_t rank = 0; rank < ranks; ++rank) {
        std::vector<double> values;
        for (const std::vector<double>& row : samples) {
            if (rank < row.size() && !std::isnan(row[rank])) values.push_back(row[rank]);
        }
        const double median = median_of(values);
        if (std::isnan(median)) continue;
        if (slowest < 0 || median > slowest_median) {
            slowest = static_cast<int>(rank);
            slowest_median = median;
        }
    }
    return slowest;
}

}  // namespace

WallSummary wall_of(const CaseRecord& record) {
    WallSummary result;
    const auto found = record.samples.find("wall");
    if (found != record.samples.end()) result.samples = maxima_by_iteration(found->second);
    result.median = median_of(result.samples);
    if (result.samples.empty()) {
        result.min = kNan;
        result.max = kNan;
        return result;
    }
    const auto [lowest, highest] =
        std::minmax_element(result.samples.begin(), result.samples.end());
    result.min = *lowest;
    result.max = *highest;
    return result;
}

std::map<std::string, StageSummary> stages_of(const CaseRecord& record) {
    std::map<std::string, StageSummary> result;
    for (const auto& [name, samples] : record.samples) {
        if (name == "wall") continue;
        const std::vector<double> maxima = maxima_by_iteration(samples);
        if (maxima.empty()) continue;
        result[name] = StageSummary{median_of(maxima), slowest_rank_of(samples)};
    }
    return result;
}

double algbw_bytes_per_s(const CaseRecord& record) {
    const double wall = wall_of(record).median;
    return wall > 0.0 ? static_cast<double>(record.bytes_wire) / wall : kNan;
}

double byte_ratio(const CaseRecord& record) {
    if (record.bytes_bf16 <= 0) return kNan;
    return static_cast<double>(record.bytes_wire) / static_cast<double>(record.bytes_bf16);
}

std::string verdict_of(const std::vector<CaseRecord>& cases) {
    bool failed = false;
    bool ran = false;
    for (const CaseRecord& entry : cases) {
        if (entry.outcome == "error") return "error";
        failed = failed || entry.outcome == "fail" || entry.outcome == "unexpected_pass";
        ran = ran || entry.outcome != "skipped";
    }
    if (failed) return "fail";
    return ran ? "pass" : "skipped";
}

}  // namespace refit::record
