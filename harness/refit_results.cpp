// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/refit_results.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "harness/case_outcome.hpp"
#include "harness/rank_report.hpp"
#include "harness/stream_check.hpp"
#include "receiver/framing_check.hpp"

namespace refit::harness {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// 0 of none.
double median(std::vector<double> values) {
    if (values.empty()) return 0.0;
    std::sort(values.begin(), values.end());
    const std::size_t middle = values.size() / 2;
    return values.size() % 2 == 1 ? values[middle] : 0.5 * (values[middle - 1] + values[middle]);
}

/// Takes away what follows from another rank's failure and is no finding of its own.
void drop_consequences(std::vector<RefitResult>& all, std::size_t trainers) {
    bool given_up = false;
    bool trainer_failed = false;
    for (std::size_t r = 0; r < all.size(); ++r) {
        trainer_failed = trainer_failed || (r < trainers && !all[r].error.empty());
        given_up =
            given_up || !all[r].error.empty() || (r < trainers && core::has_error(all[r].findings));
    }
    for (std::size_t r = 0; r < all.size(); ++r) {
        // What receivers miss where a trainer gave up or a rank could not do its part.
        if (given_up) {
            std::erase_if(all[r].findings,
                          [](const core::Finding& f) { return f.check == "completeness"; });
        }
        // The old piece that stands where a trainer could not even say that it gave up.
        if (trainer_failed && r >= trainers) {
            std::erase_if(all[r].findings, [](const core::Finding& f) {
                return f.check == "version" || f.measured == "a damaged piece header";
            });
        }
    }
}

}  // namespace

RefitResults::RefitResults(World& world, const Case& c, const CaseSetup& setup,
                           record::CaseRecord& record)
    : world_(world), case_(c), setup_(setup), record_(record) {}

bool RefitResults::add(RefitResult mine, bool measured, bool last) {
    if (!last) mine.times.buckets.clear();
    std::vector<RefitResult> all;
    for (const std::string& one : world_.allgather(refit_result_to_json(mine))) {
        all.push_back(refit_result_from_json(one));
    }
    add_findings_of(all);
    if (measured && error_.empty()) keep_samples(all);
    if (last) keep_buckets(all);
    const bool committed =
        std::all_of(all.begin(), all.end(), [](const RefitResult& one) { return one.committed; });
    return committed && error_.empty() && !core::has_error(record_.findings);
}

void RefitResults::add_findings_of(std::vector<RefitResult>& all) {
    drop_consequences(all, static_cast<std::size_t>(case_.trainer_ranks));
    for (std::size_t r = 0; r < all.size(); ++r) {
        receiver::add_unnoticed_by_engine(all[r].findings, setup_.payload.framing);
        add_findings(record_, in_checkpoint_names(all[r].findings, case_, setup_));
        if (!all[r].error.empty() && error_.empty()) {
            error_ = "rank " + std::to_string(r) + ": " + all[r].error;
            error_rank_ = static_cast<int>(r);
            error_stage_ = all[r].error_stage;
        }
    }
}

void RefitResults::keep_samples(const std::vector<RefitResult>& all) {
    const auto keep_stage = [&](const std::string& stage) {
        std::vector<double> row;
        for (const RefitResult& one : all) {
            const auto found = one.times.stage_s.find(stage);
            row.push_back(found == one.times.stage_s.end() ? kNaN : found->second);
        }
        record_.samples[stage].push_back(std::move(row));
    };
    for (const char* stage : record::kStages) keep_stage(stage);
    if (source_stage_) keep_stage("source");
    if (record_.backend == "cuda") keep_stage("staging");
    std::vector<double> wall;
    double cpu = 0.0;
    for (const RefitResult& one : all) {
        wall.push_back(one.times.wall_s);
        cpu += one.times.cpu_s;
    }
    record_.samples["wall"].push_back(std::move(wall));
    cpu_sums_.push_back(cpu);
    ++record_.iterations;
}

void RefitResults::keep_buckets(const std::vector<RefitResult>& all) {
    record_.bucket_rows.clear();
    for (std::size_t r = 0; r < all.size(); ++r) {
        for (const BucketTimes& bucket : all[r].times.buckets) {
            record_.bucket_rows.push_back(
                {bucket.index, static_cast<int>(r), bucket.bytes, bucket.stage});
        }
    }
}

void RefitResults::conclude() {
    record_.cpu_s_sum = median(cpu_sums_);
    if (error_.empty()) return;
    record_.notes["error_rank"] = std::to_string(error_rank_);
    record_.notes["error_stage"] = error_stage_;
    record_.notes["error_message"] = error_;
}

}  // namespace refit::harness
