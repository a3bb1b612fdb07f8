// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A whole refit of a small model over loopback, with ranks as threads.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "harness/case_setup.hpp"
#include "harness/loaded_digest.hpp"
#include "harness/rank_status.hpp"
#include "harness/refit_cycle.hpp"
#include "kernels/backend.hpp"
#include "thread_ranks.hpp"
#include "trainer/bucket_source.hpp"
#include "trainer/refit_publisher.hpp"
#include "trainer/resident_shard.hpp"

namespace refit::harness_test {

inline harness::Case small_case(const std::string& engine, const std::string& scheme,
                                int trainers = 2, int tp = 2) {
    harness::Case c;
    c.scenario = "small";
    c.model_name = "tiny-llama";
    c.layers = 1;
    c.seed = 5;
    c.trainer_ranks = trainers;
    c.shard_multiple = 1;
    c.engine = engine;
    c.scheme = scheme;
    c.tp = tp;
    c.transport = "loopback";
    c.bucket_bytes = 300'000;
    return c;
}

struct SmallRun {
    std::vector<harness::RefitResult> results;  ///< of the last refit, by rank
    std::vector<std::uint64_t> versions;        ///< by receiver
    std::map<std::string, std::string> digests;
    int trainers = 1;
    [[nodiscard]] bool any_committed() const {
        for (const harness::RefitResult& result : results) {
            if (result.committed) return true;
        }
        return false;
    }
};

/// Refits of the versions 1 .. `refits`; `prepare` runs on every rank before the last one.
inline SmallRun run_small(
    const harness::Case& c, int refits = 1,
    const std::function<void(int rank, harness::RankStatus&, harness::RefitContext&)>& prepare = {},
    const kernels::Backend* backend = nullptr) {
    const int size = c.world_size();
    const int receivers = size - c.trainer_ranks;
    SmallRun run;
    run.trainers = c.trainer_ranks;
    run.results.resize(static_cast<std::size_t>(size));
    run.versions.resize(static_cast<std::size_t>(receivers));
    harness::StatusPage page;
    const auto hub = transport::make_loopback_hub(c.trainer_ranks, receivers);
    std::map<std::string, std::string> digests_of_rank_0;
    run_ranks(size, [&](harness::World& world, const std::function<void()>& on_wait) {
        const int rank = world.rank();
        harness::RankStatus status(world, page);
        const harness::CaseSetup setup = harness::set_up_case(c);
        const trainer::RefitPlan plan =
            trainer::make_plan(setup.tensors, setup.instance.wanted, setup.payload, setup.sharding,
                               setup.trainer_faults);
        transport::TransportOptions options;
        options.name = "loopback";
        options.hub = hub;
        const auto transport =
            transport::make_transport(options, {rank, c.trainer_ranks, receivers, on_wait});
        transport->open(harness::stream_plan(c, plan.manifest));
        const auto source = harness::open_weights(c, setup.tensors);
        std::unique_ptr<trainer::ResidentShard> shard;
        std::unique_ptr<trainer::BucketSource> by_bucket;
        std::unique_ptr<trainer::RefitPublisher> publisher;
        std::unique_ptr<receiver::WeightLoader> loader;
        if (rank < c.trainer_ranks) {
            const trainer::WeightRows* weights = nullptr;
            if (c.resident == harness::Resident::no) {
                by_bucket =
                    std::make_unique<trainer::BucketSource>(setup.tensors, plan, rank, *source);
                weights = by_bucket.get();
            } else {
                shard = std::make_unique<trainer::ResidentShard>(setup.tensors, plan.placements,
                                                                 rank, *source, [] {});
                weights = shard.get();
            }
            publisher = std::make_unique<trainer::RefitPublisher>(
                setup.tensors, plan, setup.payload, setup.trainer_faults,
                backend != nullptr ? *backend : *kernels::find_backend("auto"), *weights, rank);
        } else {
            loader = std::make_unique<receiver::WeightLoader>(
                setup.instance, plan.manifest, (rank - c.trainer_ranks) % c.tp,
                receiver::CommitMode::staged, setup.load_faults);
        }
        harness::RefitContext context{world,           status,     *transport,      plan.manifest,
                                      c.trainer_ranks, c.pipeline, publisher.get(), loader.get()};
        context.source_by_bucket = c.resident == harness::Resident::no;
        if (by_bucket != nullptr) {
            context.read_source = [&](std::size_t bucket, const std::function<void()>& moved) {
                by_bucket->read(bucket, moved);
            };
        }
        for (int refit = 1; refit <= refits; ++refit) {
            if (refit == refits && prepare) prepare(rank, status, context);
            run.results[static_cast<std::size_t>(rank)] =
                harness::run_refit(context, static_cast<std::uint64_t>(refit));
        }
        status.set_on_enter({});
        if (loader != nullptr) {
            run.versions[static_cast<std::size_t>(rank - c.trainer_ranks)] = loader->version();
        }
        const auto digests = harness::loaded_digests(world, c.trainer_ranks, setup.instance,
                                                     loader.get(), setup.tensors, [] {});
        if (rank == 0) digests_of_rank_0 = digests;
        transport->close();
    });
    run.digests = digests_of_rank_0;
    return run;
}

}  // namespace refit::harness_test
