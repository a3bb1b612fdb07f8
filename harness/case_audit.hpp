// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What a refit left behind, held to the truth, outside the measured time.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "checks/audit.hpp"
#include "harness/case_setup.hpp"
#include "harness/rank_status.hpp"
#include "harness/world.hpp"
#include "receiver/weight_loader.hpp"
#include "record/run_record.hpp"
#include "trainer/held_weights.hpp"
#include "weights/weight_source.hpp"

namespace refit::harness {

/// The checks of a case on every rank. All calls but remember_source() are collective.
class CaseAudit {
 public:
    /// What a rank holds: a receiver its loader, a trainer with resident weights its shard.
    struct Held {
        const receiver::WeightLoader* loader = nullptr;
        trainer::HeldWeights* shard = nullptr;
        const weights::WeightSource* source = nullptr;
        const weights::WeightSource* calibration = nullptr;  ///< with scales of the KV cache
        bool source_checked = false;  ///< the check source_unchanged is asked for and applies
    };

    /// References live as long as the audit; `record` gets findings and figures.
    CaseAudit(World& world, RankStatus& status, const Case& c, const CaseSetup& setup,
              const wire::RefitManifest& manifest, record::CaseRecord& record);

    /// Digests of the weights of this trainer before a refit.
    void remember_source(const trainer::HeldWeights& shard);

    /// What was loaded as `version` against the truth. False when the record has an error.
    bool run(const Held& held, std::uint64_t version);

 private:
    std::string audit_receiver(const Held& held);
    std::string changed_sources(trainer::HeldWeights& shard);
    void merge_sources(const std::vector<std::string>& all);
    void merge_versions(const receiver::WeightLoader* loader, std::uint64_t version);
    void merge_audits(const std::vector<std::string>& all);

    World& world_;
    RankStatus& status_;
    const Case& case_;
    const CaseSetup& setup_;
    const wire::RefitManifest& manifest_;
    record::CaseRecord& record_;
    std::set<std::string> enabled_;
    std::function<void()> moved_;
    std::vector<wire::Digest> before_;
    std::map<std::string, std::string> last_digests_;
};

}  // namespace refit::harness
