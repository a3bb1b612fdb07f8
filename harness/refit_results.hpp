// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What the refits of a case came to, over all ranks.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "harness/case_setup.hpp"
#include "harness/refit_cycle.hpp"
#include "harness/scenario.hpp"
#include "harness/world.hpp"
#include "record/run_record.hpp"

namespace refit::harness {

/// Gathers the results of one refit after the other into the record: findings, times, buckets.
class RefitResults {
 public:
    /// References live as long as this; `record` has its backend.
    RefitResults(World& world, const Case& c, const CaseSetup& setup, record::CaseRecord& record);

    /// Collective: `mine` is this rank's result. Only `measured` refits leave times, only the
    /// `last` one leaves buckets. False where the case ends here: a rank could not do its part, the
    /// version was not committed, or there is a finding.
    [[nodiscard]] bool add(RefitResult mine, bool measured, bool last);

    /// Weights of this receiver became visible here.
    void saw_address(const void* address) { addresses_.insert(address); }
    [[nodiscard]] std::size_t addresses() const { return addresses_.size(); }

    /// What the first rank that could not do its part says; empty where none failed.
    [[nodiscard]] const std::string& error() const { return error_; }

    /// Writes the median CPU time and the error into the record.
    void conclude();

    /// Whether a stage `source` is part of every measured refit.
    void has_source_stage(bool has) { source_stage_ = has; }

 private:
    void add_findings_of(std::vector<RefitResult>& all);
    void keep_samples(const std::vector<RefitResult>& all);
    void keep_buckets(const std::vector<RefitResult>& all);

    World& world_;
    const Case& case_;
    const CaseSetup& setup_;
    record::CaseRecord& record_;
    bool source_stage_ = false;
    std::vector<double> cpu_sums_;
    std::set<const void*> addresses_;
    std::string error_;
    int error_rank_ = -1;
    std::string error_stage_;
};

}  // namespace refit::harness
