// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/case_audit.hpp"

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "harness/case_outcome.hpp"
#include "harness/loaded_digest.hpp"
#include "harness/rank_agreement.hpp"
#include "harness/tensor_rows.hpp"
#include "receiver/derived_weights.hpp"
#include "receiver/host_scales.hpp"
#include "weights/synthetic_weights.hpp"

namespace refit::harness {

CaseAudit::CaseAudit(World& world, RankStatus& status, const Case& c, const CaseSetup& setup,
                     const wire::RefitManifest& manifest, record::CaseRecord& record)
    : world_(world),
      status_(status),
      case_(c),
      setup_(setup),
      manifest_(manifest),
      record_(record),
      enabled_(c.checks.begin(), c.checks.end()),
      moved_([this] { status_.progressed(); }) {}

void CaseAudit::remember_source(const trainer::HeldWeights& shard) {
    before_ = shard.digests(moved_);
}

bool CaseAudit::run(const Held& held, std::uint64_t version) {
    const std::int64_t start = steady_now_ns();
    std::string mine;
    std::string sources;
    together(world_, [&] {
        status_.enter(Stage::audit);
        if (held.loader != nullptr) {
            mine = audit_receiver(held);
        } else if (held.source_checked) {
            sources = changed_sources(*held.shard);
        }
    });
    merge_audits(world_.allgather(mine));
    if (held.source_checked) merge_sources(world_.allgather(sources));
    if (enabled_.contains("version")) merge_versions(held.loader, version);
    if (last_digests_.empty() || case_.refits > 1) {
        std::vector<model::TensorSpec> digested = setup_.tensors;
        digested.insert(digested.end(), setup_.cache_scales.begin(), setup_.cache_scales.end());
        last_digests_ = loaded_digests(world_, case_.trainer_ranks, setup_.instance, held.loader,
                                       digested, moved_);
    }
    for (record::TensorRow& row : record_.tensor_rows) row.digest = last_digests_[row.name];
    record_.audit_s += 1e-9 * static_cast<double>(steady_now_ns() - start);
    return !core::has_error(record_.findings);
}

std::string CaseAudit::audit_receiver(const Held& held) {
    const receiver::WeightLoader& loader = *held.loader;
    std::optional<checks::CacheTruth> cache;
    if (held.calibration != nullptr)
        cache.emplace(checks::CacheTruth{setup_.payload.calibrations, *held.calibration});
    checks::AuditResult audit = checks::audit_parameters(
        setup_.instance, loader.tp_rank(), loader.loaded(), setup_.tensors, *held.source,
        setup_.facts, enabled_, world_.rank(), moved_, cache ? &*cache : nullptr);
    const auto add = [&](core::Findings findings) {
        for (core::Finding& finding : findings) {
            finding.rank = world_.rank();
            audit.findings.push_back(std::move(finding));
        }
    };
    if (enabled_.contains("version")) {
        add(receiver::check_derived(setup_.instance, loader.loaded(), loader.derived(),
                                    loader.version(), loader.tp_rank()));
        add(receiver::check_host_scales(setup_.instance, loader.loaded(), loader.host_scales(),
                                        loader.version()));
    }
    return checks::to_json(audit);
}

std::string CaseAudit::changed_sources(trainer::HeldWeights& shard) {
    // A planted write comes after the refit, where a buggy quantizer that works in place would
    // show.
    for (std::size_t i = 0; i < setup_.tensors.size(); ++i) {
        const bool struck =
            !setup_.trainer_faults.source_write.empty() && world_.rank() == 0 &&
            weights::glob_match(setup_.trainer_faults.source_write, setup_.tensors[i].name);
        if (struck && !parallel::is_empty(shard.held(i))) shard.flip_first(i);
    }
    const std::vector<wire::Digest> after = shard.digests(moved_);
    nlohmann::json rows = nlohmann::json::array();
    for (std::size_t i = 0; i < after.size(); ++i) {
        if (before_[i] == after[i]) continue;
        rows.push_back({setup_.tensors[i].name, world_.rank(), before_[i].low, before_[i].high,
                        after[i].low, after[i].high});
    }
    return rows.dump();
}

void CaseAudit::merge_sources(const std::vector<std::string>& all) {
    std::vector<checks::SourceDigest> digests;
    for (const std::string& one : all) {
        if (one.empty()) continue;
        for (const nlohmann::json& row : nlohmann::json::parse(one)) {
            digests.push_back({row.at(0).get<std::string>(),
                               row.at(1).get<int>(),
                               {row.at(2).get<std::uint64_t>(), row.at(3).get<std::uint64_t>()},
                               {row.at(4).get<std::uint64_t>(), row.at(5).get<std::uint64_t>()}});
        }
    }
    add_findings(record_, checks::check_source_unchanged(digests));
}

void CaseAudit::merge_versions(const receiver::WeightLoader* loader, std::uint64_t version) {
    const std::string mine = loader == nullptr ? std::string()
                                               : std::to_string(loader->version()) +
                                                     (loader->torn() ? " torn" : " whole");
    const std::vector<std::string> all = world_.allgather(mine);
    std::vector<int> ranks;
    std::vector<std::uint64_t> versions;
    std::vector<bool> torn;
    for (std::size_t r = 0; r < all.size(); ++r) {
        if (all[r].empty()) continue;
        ranks.push_back(static_cast<int>(r));
        versions.push_back(std::stoull(all[r]));
        torn.push_back(all[r].ends_with("torn"));
    }
    add_findings(record_, checks::check_versions(version, ranks, versions, torn));
}

void CaseAudit::merge_audits(const std::vector<std::string>& all) {
    std::vector<checks::RankAudit> every;
    std::vector<checks::RankAudit> first_engine;
    for (std::size_t r = static_cast<std::size_t>(case_.trainer_ranks); r < all.size(); ++r) {
        checks::RankAudit audit{static_cast<int>(r), checks::audit_from_json(all[r])};
        if (static_cast<int>(r) < case_.trainer_ranks + case_.tp) first_engine.push_back(audit);
        every.push_back(std::move(audit));
    }
    // Engines hold the same parts; the sums are of one engine, the rest is asked of all.
    add_findings(record_, checks::first_of_each_cause(every));
    const checks::MergedAudit merged = checks::merge_audits(first_engine, enabled_);
    add_findings(record_, merged.findings);
    if (enabled_.contains("byte_identity"))
        add_findings(record_, checks::check_byte_identity(every));
    record_.sqnr_db.reset();
    if (setup_.payload.recipe != nullptr) record_.sqnr_db = merged.pooled_sqnr_db;
    record_.max_error_over_bound = merged.max_error_over_bound;
    record_.saturated = merged.saturated;
    record_.flushed = merged.flushed;
    record_.exact = merged.exact;
    record_.subnormal = merged.subnormal;
    record_.output_snr_db.reset();
    record_.expected_output_snr_db.reset();
    if (!std::isnan(merged.expected_output_snr_db)) {
        record_.output_snr_db = merged.output_snr_db;
        record_.expected_output_snr_db = merged.expected_output_snr_db;
    }
    record_.code_histogram = merged.codes;
    record_.scale_histogram.clear();
    record_.scale_bin_width = 1.0 / checks::kScaleBinsPerOctave;
    for (const auto& [bin, count] : merged.scales) {
        record_.scale_histogram.emplace_back(bin * record_.scale_bin_width, count);
    }
    record_.tensor_rows = tensor_rows(setup_, manifest_, merged, record_.recipe);
}

}  // namespace refit::harness
