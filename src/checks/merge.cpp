// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>

#include "checks/audit.hpp"
#include "checks/layer_output.hpp"
#include "core/error.hpp"

namespace refit::checks {

namespace {

/// How far the measured SQNR of a tensor may lie from the expected one, in dB.
constexpr double kSqnrTolerance = 0.05;

std::vector<const RankAudit*> by_rank(const std::vector<RankAudit>& ranks) {
    std::vector<const RankAudit*> sorted;
    for (const RankAudit& rank : ranks) sorted.push_back(&rank);
    std::stable_sort(sorted.begin(), sorted.end(),
                     [](const RankAudit* a, const RankAudit* b) { return a->rank < b->rank; });
    return sorted;
}

/// Wire name of a digest's key.
std::string name_of_key(const std::string& key) {
    return key.substr(0, key.rfind('|'));
}

void add(TensorAudit& sum, const TensorAudit& part) {
    sum.quantized = sum.quantized || part.quantized;
    sum.elements += part.elements;
    sum.sum_x2 += part.sum_x2;
    sum.sum_error2 += part.sum_error2;
    sum.sum_expected_error2 += part.sum_expected_error2;
    sum.max_error_over_bound = std::max(sum.max_error_over_bound, part.max_error_over_bound);
    sum.saturated += part.saturated;
    sum.flushed += part.flushed;
    sum.exact += part.exact;
    sum.mismatched += part.mismatched;
    sum.sum_x_error += part.sum_x_error;
    if (sum.codes.empty()) sum.codes.resize(part.codes.size());
    for (std::size_t i = 0; i < part.codes.size(); ++i) sum.codes.at(i) += part.codes[i];
    sum.output.outputs += part.output.outputs;
    sum.output.y2 += part.output.y2;
    sum.output.error2 += part.output.error2;
    sum.output.expected_error2 += part.output.expected_error2;
}

void add_scales(std::map<int, std::int64_t>& sum, const std::map<int, std::int64_t>& part) {
    for (const auto& [bin, count] : part) sum[bin] += count;
}

/// Sums over ranks, each part once, tensors in the order in which the ranks first name them.
std::vector<TensorAudit> merged_tensors(const std::vector<const RankAudit*>& ranks) {
    std::vector<TensorAudit> merged;
    std::map<std::string, std::size_t> position;
    std::map<std::string, std::set<std::string>> seen;  // keys of parts by tensor
    for (const RankAudit* rank : ranks) {
        std::map<std::string, std::vector<std::string>> keys;
        for (const PartDigest& digest : rank->result.digests) {
            keys[name_of_key(digest.key)].push_back(digest.key);
        }
        for (const TensorAudit& tensor : rank->result.tensors) {
            const auto [found, is_new] = position.try_emplace(tensor.tensor, merged.size());
            if (is_new) {
                TensorAudit empty;
                empty.tensor = tensor.tensor;
                merged.push_back(std::move(empty));
            }
            const auto adds_a_part = [&](const std::string& name) {
                bool adds = is_new;
                for (const std::string& key : keys[name]) {
                    adds = seen[name].insert(key).second || adds;
                }
                return adds;
            };
            TensorAudit& sum = merged[found->second];
            if (adds_a_part(tensor.tensor)) add(sum, tensor);
            // Ranks that hold different columns may hold the same scales.
            if (!tensor.scale.empty() && adds_a_part(tensor.scale)) {
                sum.scale = tensor.scale;
                add_scales(sum.scales, tensor.scales);
            }
        }
    }
    return merged;
}

core::Finding sqnr_finding(const TensorAudit& tensor, std::string measured, std::string limit) {
    core::Finding finding;
    finding.check = "sqnr";
    finding.tensor = tensor.tensor;
    finding.measured = std::move(measured);
    finding.limit = std::move(limit);
    finding.remedy =
        "compare the recipe's scales with amax / 448 of the tiles, and look for damaged elements "
        "in "
        "round_trip";
    finding.message = fmt::format(
        "{}: the error of what was loaded is not what the scheme gives on this data: found {}, "
        "expected {}; {}.",
        tensor.tensor, finding.measured, finding.limit, finding.remedy);
    return finding;
}

void append_sqnr_finding(const TensorAudit& tensor, core::Findings& findings) {
    if (!tensor.quantized) return;
    // The scale is an F32 number: a few roundings of 2^-24 move every value, which shows where the
    // codes are (nearly) exact, such as a row of one element.
    constexpr double kScaleRounding = 1.0 / (1 << 22);
    const double apart =
        std::abs(std::sqrt(tensor.sum_error2) - std::sqrt(tensor.sum_expected_error2));
    if (apart <= kScaleRounding * std::sqrt(tensor.sum_x2)) return;
    if (tensor.sum_expected_error2 == 0.0) {
        findings.push_back(sqnr_finding(tensor,
                                        fmt::format("a squared error of {:.6g}", tensor.sum_error2),
                                        "no error at all"));
        return;
    }
    const double measured = sqnr_db(tensor.sum_x2, tensor.sum_error2);
    const double expected = sqnr_db(tensor.sum_x2, tensor.sum_expected_error2);
    // Written so that a NaN is a finding.
    if (std::abs(measured - expected) <= kSqnrTolerance) return;
    findings.push_back(
        sqnr_finding(tensor, fmt::format("{:.4f} dB", measured),
                     fmt::format("{:.4f} dB within {} dB", expected, kSqnrTolerance)));
}

}  // namespace

double sqnr_db(double sum_x2, double sum_error2) {
    if (sum_error2 == 0.0) return std::numeric_limits<double>::infinity();
    return 10.0 * std::log10(sum_x2 / sum_error2);
}

double relative_error(const TensorAudit& tensor) {
    return std::sqrt(tensor.sum_error2 / tensor.sum_x2);
}

double cosine(const TensorAudit& tensor) {
    const double loaded2 = tensor.sum_x2 + 2.0 * tensor.sum_x_error + tensor.sum_error2;
    return (tensor.sum_x2 + tensor.sum_x_error) / std::sqrt(tensor.sum_x2 * loaded2);
}

std::int64_t subnormal_codes(const TensorAudit& tensor) {
    std::int64_t count = 0;
    for (std::size_t code = 0; code < tensor.codes.size(); ++code) {
        const std::size_t magnitude = code & 0x7fU;
        if (magnitude >= 1 && magnitude <= 7) count += tensor.codes[code];
    }
    return count;
}

core::Findings first_of_each_cause(const std::vector<RankAudit>& ranks) {
    std::map<std::tuple<std::string, std::string, std::string>, int> spoken;
    core::Findings findings;
    for (const RankAudit* rank : by_rank(ranks)) {
        for (const core::Finding& finding : rank->result.findings) {
            const auto first =
                spoken.try_emplace({finding.check, finding.tensor, finding.remedy}, rank->rank)
                    .first;
            if (first->second == rank->rank) findings.push_back(finding);
        }
    }
    return findings;
}

MergedAudit merge_audits(const std::vector<RankAudit>& ranks,
                         const std::set<std::string>& enabled) {
    const std::vector<const RankAudit*> sorted = by_rank(ranks);
    MergedAudit merged;
    merged.tensors = merged_tensors(sorted);
    merged.findings = first_of_each_cause(ranks);
    double sum_x2 = 0.0;
    double sum_error2 = 0.0;
    bool any_quantized = false;
    double output_error = 0.0;
    double expected_output_error = 0.0;
    double with_output = 0.0;
    for (const TensorAudit& tensor : merged.tensors) {
        if (!tensor.quantized) continue;
        any_quantized = any_quantized || tensor.elements > 0;
        sum_x2 += tensor.sum_x2;
        sum_error2 += tensor.sum_error2;
        merged.max_error_over_bound =
            std::max(merged.max_error_over_bound, tensor.max_error_over_bound);
        merged.saturated += tensor.saturated;
        merged.flushed += tensor.flushed;
        merged.exact += tensor.exact;
        merged.subnormal += subnormal_codes(tensor);
        if (merged.codes.empty()) merged.codes.resize(tensor.codes.size());
        for (std::size_t i = 0; i < tensor.codes.size(); ++i) {
            merged.codes.at(i) += tensor.codes[i];
        }
        add_scales(merged.scales, tensor.scales);
        if (enabled.count("sqnr") != 0) append_sqnr_finding(tensor, merged.findings);
        if (enabled.count("layer_output") != 0) append_output_finding(tensor, merged.findings);
        // A tensor of zeros has no relative error.
        if (tensor.output.outputs == 0 || tensor.output.y2 == 0.0) continue;
        with_output += 1.0;
        output_error += tensor.output.error2 / tensor.output.y2;
        expected_output_error += tensor.output.expected_error2 / tensor.output.y2;
    }
    // The mean is NaN without tensors.
    merged.output_snr_db = -10.0 * std::log10(output_error / with_output);
    merged.expected_output_snr_db = -10.0 * std::log10(expected_output_error / with_output);
    merged.pooled_sqnr_db =
        any_quantized ? sqnr_db(sum_x2, sum_error2) : std::numeric_limits<double>::quiet_NaN();
    return merged;
}

core::Findings check_byte_identity(const std::vector<RankAudit>& ranks) {
    struct First {
        int rank = 0;
        wire::Digest digest;
        bool reported = false;
    };
    std::map<std::string, First> first;
    core::Findings findings;
    for (const RankAudit* rank : by_rank(ranks)) {
        for (const PartDigest& part : rank->result.digests) {
            const auto [found, is_new] =
                first.try_emplace(part.key, First{rank->rank, part.digest, false});
            First& known = found->second;
            if (is_new || known.digest == part.digest || known.reported) continue;
            known.reported = true;
            core::Finding finding;
            finding.check = "byte_identity";
            finding.tensor = name_of_key(part.key);
            finding.measured = wire::to_string(part.digest);
            finding.limit = wire::to_string(known.digest);
            finding.rank = rank->rank;
            finding.remedy =
                "load both ranks from the same refit and compare the bytes of the part";
            finding.message = fmt::format(
                "{}: ranks {} and {} hold different bytes of the part row,col,rows,cols = {}: "
                "digest "
                "{} and {}; {}.",
                finding.tensor, known.rank, rank->rank, part.key.substr(part.key.rfind('|') + 1),
                finding.limit, finding.measured, finding.remedy);
            findings.push_back(std::move(finding));
        }
    }
    return findings;
}

core::Findings check_versions(std::uint64_t expected, const std::vector<int>& ranks,
                              const std::vector<std::uint64_t>& versions,
                              const std::vector<bool>& torn) {
    if (ranks.size() != versions.size() || ranks.size() != torn.size()) {
        throw core::ShapeError(fmt::format("version check: {} ranks, {} versions, {} torn marks",
                                           ranks.size(), versions.size(), torn.size()));
    }
    core::Findings findings;
    for (std::size_t i = 0; i < ranks.size(); ++i) {
        if (versions[i] == expected && !torn[i]) continue;
        core::Finding finding;
        finding.check = "version";
        finding.rank = ranks[i];
        finding.measured = fmt::format("version {}{}", versions[i], torn[i] ? ", torn" : "");
        finding.limit = fmt::format("version {}, whole", expected);
        finding.remedy = torn[i] ? "refit this receiver again before it serves"
                                 : "look at why its commit was refused or did not happen";
        finding.message = fmt::format("receiver rank {} shows {} after the refit, expected {}; {}.",
                                      ranks[i], finding.measured, finding.limit, finding.remedy);
        findings.push_back(std::move(finding));
    }
    return findings;
}

core::Findings check_source_unchanged(const std::vector<SourceDigest>& digests) {
    std::vector<std::string> order;
    std::map<std::string, std::vector<const SourceDigest*>> changed;
    for (const SourceDigest& digest : digests) {
        if (digest.before == digest.after) continue;
        if (changed.count(digest.tensor) == 0) order.push_back(digest.tensor);
        changed[digest.tensor].push_back(&digest);
    }
    core::Findings findings;
    for (const std::string& tensor : order) {
        const std::vector<const SourceDigest*>& shards = changed[tensor];
        std::string where;
        for (const SourceDigest* shard : shards) {
            where += fmt::format("{}{}", where.empty() ? "" : ", ", shard->rank);
        }
        core::Finding finding;
        finding.check = "source_unchanged";
        finding.tensor = tensor;
        finding.rank = shards.front()->rank;
        finding.measured = wire::to_string(shards.front()->after);
        finding.limit = wire::to_string(shards.front()->before);
        finding.remedy = "look for a stage that writes into the resident weights";
        finding.message = fmt::format(
            "{}: the trainer's resident weights changed during the refit on rank {}: digest {} "
            "before, {} after; {}.",
            tensor, where, finding.limit, finding.measured, finding.remedy);
        findings.push_back(std::move(finding));
    }
    return findings;
}

}  // namespace refit::checks
