// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// run_refit over loopback: what commits, what does not, and that nobody is left waiting.
#include "harness/refit_cycle.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <map>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>

#include "core/error.hpp"
#include "small_run.hpp"

namespace refit::harness_test {
namespace {

using harness::RankStatus;
using harness::RefitContext;
using harness::RefitResult;
using harness::Stage;

void expect_committed(const SmallRun& run, std::uint64_t version) {
    for (const RefitResult& result : run.results) {
        EXPECT_TRUE(result.committed);
        EXPECT_EQ(result.error, "");
        for (const core::Finding& finding : result.findings) ADD_FAILURE() << finding.message;
    }
    for (const std::uint64_t seen : run.versions) EXPECT_EQ(seen, version);
}

void expect_refused(const SmallRun& run, std::uint64_t version) {
    EXPECT_FALSE(run.any_committed());
    for (const std::uint64_t seen : run.versions) EXPECT_EQ(seen, version);
}

TEST(RunRefit, CommitsOnEveryReceiver) {
    for (const bool pipeline : {true, false}) {
        harness::Case c = small_case("vllm-fp8", "fp8_blockwise", 2, 2);
        c.pipeline = pipeline;
        const SmallRun run = run_small(c, 3);
        expect_committed(run, 3);
        for (std::size_t rank = 0; rank < run.results.size(); ++rank) {
            const auto& stages = run.results[rank].times.stage_s;
            const bool trainer = rank < 2;
            for (const char* name : {"gather", "quantize", "pack"}) {
                EXPECT_EQ(stages.contains(name), trainer) << name;
            }
            for (const char* name : {"check", "load"}) {
                EXPECT_EQ(stages.contains(name), !trainer) << name;
            }
            EXPECT_TRUE(stages.contains("broadcast"));
            EXPECT_TRUE(stages.contains("commit"));
            EXPECT_GT(run.results[rank].times.buckets.size(), 5U);
        }
    }
}

TEST(RunRefit, RefusesANonfiniteRefitEverywhereAndKeepsTheVersion) {
    harness::Case c = small_case("vllm-fp8", "fp8_blockwise");
    weights::Plant plant;
    plant.tensor = "model.layers.0.mlp.up_proj.weight";
    plant.row = 3;
    plant.col = 4;
    c.plants = {plant};
    const SmallRun run = run_small(c);
    expect_refused(run, 0);
    ASSERT_EQ(run.results[0].findings.size(), 1U);
    EXPECT_EQ(run.results[0].findings[0].check, "nonfinite");
    EXPECT_EQ(run.results[0].findings[0].rank, 0);
    EXPECT_EQ(run.results[0].findings[0].index, (std::vector<std::int64_t>{3, 4}));
    for (const RefitResult& result : run.results) EXPECT_EQ(result.error, "");
}

TEST(RunRefit, SurvivesAnErrorInAnyStageOfAnyRankWithoutCommitting) {
    struct Strike {
        int rank;
        Stage stage;
    };
    const Strike strikes[] = {{0, Stage::gather},    {1, Stage::quantize}, {0, Stage::pack},
                              {1, Stage::broadcast}, {0, Stage::commit},   {2, Stage::broadcast},
                              {3, Stage::check},     {2, Stage::load},     {3, Stage::commit}};
    for (const bool pipeline : {true, false}) {
        for (const Strike& strike : strikes) {
            SCOPED_TRACE("rank " + std::to_string(strike.rank) + " in " +
                         harness::stage_name(strike.stage));
            harness::Case c = small_case("vllm-fp8", "fp8_blockwise");
            c.pipeline = pipeline;
            const SmallRun run = run_small(c, 2, [&](int rank, RankStatus& status, RefitContext&) {
                if (rank != strike.rank) return;
                status.set_on_enter([&](Stage stage, std::int64_t bucket) {
                    if (stage == strike.stage && bucket <= 2) {
                        throw std::runtime_error("struck");
                    }
                });
            });
            expect_refused(run, 1);
            for (std::size_t rank = 0; rank < run.results.size(); ++rank) {
                EXPECT_EQ(run.results[rank].error,
                          static_cast<int>(rank) == strike.rank ? "struck" : "");
            }
        }
    }
}

TEST(RunRefit, RefusesTheCommitOfARunThatWasGivenUp) {
    const SmallRun run = run_small(small_case("vllm-fp8", "fp8_blockwise"), 2,
                                   [](int rank, RankStatus& status, RefitContext& context) {
                                       // The refit before is over on every rank.
                                       context.world.barrier();
                                       if (rank == 0) {
                                           EXPECT_TRUE(status.claim_loss());
                                       }
                                       context.world.barrier();
                                   });
    for (std::size_t rank = 1; rank < run.results.size(); ++rank) {
        EXPECT_FALSE(run.results[rank].committed);
    }
    for (const std::uint64_t version : run.versions) EXPECT_EQ(version, 1U);
}

/// Cannot even write the head of an aborted piece, as where its device is lost.
class DeadPublisher final : public trainer::Publisher {
 public:
    explicit DeadPublisher(trainer::Publisher& inner) : inner_(inner) {}
    void begin(std::uint64_t version) override { inner_.begin(version); }
    void gather(std::size_t bucket, const trainer::MaxOverTrainers& exchange) override {
        inner_.gather(bucket, exchange);
    }
    void fill(std::size_t bucket, std::span<std::byte> piece,
              const std::function<void()>& on_progress, trainer::PublishTimes& times) override {
        if (bucket >= 2) throw std::runtime_error("dead");
        inner_.fill(bucket, piece, on_progress, times);
    }
    void abort() override { inner_.abort(); }
    [[nodiscard]] const core::Findings& findings() const override { return inner_.findings(); }

 private:
    trainer::Publisher& inner_;
};

TEST(RunRefit, EndsWithoutACommitWhereATrainerCannotEvenAbortItsPieces) {
    for (const bool pipeline : {true, false}) {
        harness::Case c = small_case("vllm-fp8", "fp8_blockwise");
        c.pipeline = pipeline;
        std::unique_ptr<DeadPublisher> dead;
        const SmallRun run = run_small(c, 2, [&](int rank, RankStatus&, RefitContext& context) {
            if (rank != 0) return;
            dead = std::make_unique<DeadPublisher>(*context.publisher);
            context.publisher = dead.get();
        });
        expect_refused(run, 1);
        for (std::size_t rank = 0; rank < run.results.size(); ++rank)
            EXPECT_EQ(run.results[rank].error, rank == 0 ? "dead" : "");
    }
}

TEST(RunRefit, GoesOnAfterARefusedRefit) {
    // Errors of one refit do not stick: the next one with sound ranks commits.
    harness::Case c = small_case("vllm-fp8", "fp8_blockwise");
    int turn = 0;
    const SmallRun run = run_small(c, 2, [&](int rank, RankStatus& status, RefitContext& context) {
        if (rank == 2) {
            status.set_on_enter([](Stage stage, std::int64_t) {
                if (stage == Stage::load) throw std::runtime_error("struck");
            });
        }
        const RefitResult refused = harness::run_refit(context, 9);
        EXPECT_FALSE(refused.committed);
        status.set_on_enter({});
        if (rank == 0) ++turn;
    });
    EXPECT_EQ(turn, 1);
    expect_committed(run, 2);
}

TEST(RefitCycle, LoadsTheSameBytesWhateverTheTrainersLayout) {
    for (const char* scheme : {"fp8_blockwise", "bf16"}) {
        const std::string engine = std::string(scheme) == "bf16" ? "vllm-bf16" : "vllm-fp8";
        std::map<std::string, std::string> first;
        for (const auto& [layout, trainers, resident] :
             {std::tuple{"fsdp", 1, true}, std::tuple{"fsdp", 3, true}, std::tuple{"tp", 2, true},
              std::tuple{"tp", 2, false}, std::tuple{"ep", 2, true},
              std::tuple{"fsdp", 2, false}}) {
            SCOPED_TRACE(std::string(scheme) + " " + layout + " " + std::to_string(trainers));
            harness::Case c = small_case(engine, scheme, trainers, 2);
            c.layout = layout;
            c.resident = resident ? harness::Resident::yes : harness::Resident::no;
            const SmallRun run = run_small(c, 2);
            EXPECT_TRUE(run.any_committed());
            ASSERT_FALSE(run.digests.empty());
            if (first.empty()) first = run.digests;
            EXPECT_EQ(run.digests, first);
            for (std::size_t rank = 0; rank < run.results.size(); ++rank) {
                const bool reads = !resident && static_cast<int>(rank) < trainers;
                EXPECT_EQ(run.results[rank].times.stage_s.contains("source"), reads);
            }
        }
    }
}

TEST(RefitCycle, WithWeightsReadByBucketStandsStillWhileTheSourceIsRead) {
    harness::Case c = small_case("vllm-fp8", "fp8_blockwise", 2, 2);
    c.resident = harness::Resident::no;
    std::atomic<int> reads{0};
    const std::int64_t begin = harness::steady_now_ns();
    const SmallRun run =
        run_small(c, 1, [&](int rank, harness::RankStatus&, harness::RefitContext& context) {
            if (rank != 1) return;
            const auto read = context.read_source;
            context.read_source = [&reads, read](std::size_t bucket,
                                                 const std::function<void()>& on_progress) {
                ++reads;
                std::this_thread::sleep_for(std::chrono::milliseconds(200));
                read(bucket, on_progress);
            };
        });
    const double passed = 1e-9 * static_cast<double>(harness::steady_now_ns() - begin);
    ASSERT_GE(reads.load(), 3);
    // The reading is a stage of its own and in nobody's wall: both together fit into the time that
    // has passed, which they would not if the clocks ran on.
    const double source = run.results[1].times.stage_s.at("source");
    EXPECT_GE(source, 0.2 * reads.load());
    for (const harness::RefitResult& result : run.results)
        EXPECT_LE(result.times.wall_s + source, passed);
}

/// A CPU backend that carries its rows as a device's would, and says so.
class CarryingBackend final : public kernels::Backend {
 public:
    [[nodiscard]] std::string_view name() const override { return "carrying"; }
    void tile_amax(const numerics::TileScaling& scaling, const kernels::Band& band,
                   std::span<std::uint32_t> amax) const override {
        carry();
        host_.tile_amax(scaling, band, amax);
    }
    void scales(const numerics::TileScaling& scaling, std::span<const std::uint32_t> amax,
                std::span<float> scales) const override {
        host_.scales(scaling, amax, scales);
    }
    void encode(const numerics::TileScaling& scaling, const kernels::Band& band,
                std::span<const std::uint32_t> amax, std::uint8_t* codes, std::int64_t stride,
                const kernels::StripeDone& done) const override {
        carry();
        host_.encode(scaling, band, amax, codes, stride, done);
    }
    void quantize(const numerics::TileScaling& scaling, const kernels::Band& band,
                  std::span<std::uint32_t> amax, std::span<float> scales, std::uint8_t* codes,
                  std::int64_t stride, const kernels::StripeDone& done) const override {
        carry();
        host_.quantize(scaling, band, amax, scales, codes, stride, done);
    }
    [[nodiscard]] std::uint32_t max_abs_bits(const std::uint16_t* values,
                                             std::int64_t count) const override {
        carry();
        return host_.max_abs_bits(values, count);
    }
    [[nodiscard]] std::int64_t count_nan_codes(const std::uint8_t* codes,
                                               std::int64_t count) const override {
        return host_.count_nan_codes(codes, count);
    }
    [[nodiscard]] double staging_seconds() const override { return seconds_; }
    /// Of all threads together.
    [[nodiscard]] double all_seconds() const { return 1e-9 * static_cast<double>(all_ns_); }

 private:
    void carry() const {
        const std::int64_t begin = harness::steady_now_ns();
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        const std::int64_t passed = harness::steady_now_ns() - begin;
        seconds_ += 1e-9 * static_cast<double>(passed);
        all_ns_ += passed;
    }
    static thread_local double seconds_;
    mutable std::atomic<std::int64_t> all_ns_{0};
    const kernels::Backend& host_ = *kernels::find_backend("auto");
};
thread_local double CarryingBackend::seconds_ = 0.0;

TEST(RefitCycle, StagingIsAStageOfItsOwnAndInNoOther) {
    const CarryingBackend backend;
    // Cuts at multiples of 1 row share tiles, so that the gather stages too.
    const harness::Case c = small_case("vllm-fp8", "fp8_blockwise", 2, 2);
    const SmallRun plain = run_small(c);
    const SmallRun run = run_small(
        c, 1,
        [&](int rank, harness::RankStatus&, harness::RefitContext& context) {
            if (rank < 2) context.staging_backend = &backend;
        },
        &backend);
    expect_committed(run, 1);
    EXPECT_EQ(run.digests, plain.digests);
    double staging = 0.0;
    for (std::size_t rank = 0; rank < run.results.size(); ++rank) {
        const auto& times = run.results[rank].times;
        EXPECT_FALSE(plain.results[rank].times.stage_s.contains("staging"));
        ASSERT_EQ(times.stage_s.contains("staging"), rank < 2);
        if (rank >= 2) continue;
        double sum = 0.0;
        for (const char* stage : {"gather", "quantize", "staging", "pack"}) {
            EXPECT_GE(times.stage_s.at(stage), 0.0) << stage;
            sum += times.stage_s.at(stage);
        }
        EXPECT_GT(times.stage_s.at("staging"), 0.0);
        EXPECT_LE(sum, times.wall_s);
        staging += times.stage_s.at("staging");
    }
    EXPECT_NEAR(staging, backend.all_seconds(), 1e-6);
}

TEST(RefitCycle, ASourceThatCannotBeReadEndsTheRefitWithoutACommit) {
    harness::Case c = small_case("vllm-fp8", "fp8_blockwise", 2, 2);
    c.resident = harness::Resident::no;
    const SmallRun run =
        run_small(c, 2, [](int rank, harness::RankStatus&, harness::RefitContext& context) {
            if (rank != 0) return;
            context.read_source = [](std::size_t, const std::function<void()>&) {
                throw core::FileError("planted: the checkpoint went away");
            };
        });
    EXPECT_FALSE(run.any_committed());
    EXPECT_NE(run.results[0].error.find("went away"), std::string::npos);
    EXPECT_EQ(run.results[0].error_stage, "source");
    for (const std::uint64_t version : run.versions) EXPECT_EQ(version, 1U);
}

}  // namespace
}  // namespace refit::harness_test
