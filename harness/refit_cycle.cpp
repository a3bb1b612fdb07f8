// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/refit_cycle.hpp"

#include <exception>
#include <vector>

#include "core/error.hpp"
#include "harness/lost_rank_monitor.hpp"
#include "kernels/cuda/cuda_backend.hpp"

namespace refit::harness {
namespace {

/// The end of a bucket without a pipeline: every receiver has released it. What was published moves
/// on meanwhile; finish() would not do, for it ends the whole refit.
void wait_for_all(RefitContext& context, StageClock& clock) {
    struct Meanwhile {
        World& world;
        ~Meanwhile() { world.set_meanwhile({}); }
    } const meanwhile{context.world};
    clock.pause();
    context.world.set_meanwhile([&] { context.transport.progress(); });
    context.world.barrier();
    clock.resume();
}

/// The phase in which a bucket's values are read; see RefitContext::source_by_bucket. Returns
/// without effect where the weights are resident. `read` must not throw.
void source_phase(RefitContext& context, StageClock& clock, const std::function<void()>& read) {
    if (!context.source_by_bucket) return;
    wait_for_all(context, clock);
    clock.halt();
    if (read) {
        const std::int64_t begin = steady_now_ns();
        read();
        clock.add(Stage::source, 1e-9 * static_cast<double>(steady_now_ns() - begin));
    }
    context.world.barrier();
    clock.restart();
}

/// Keeps the first error of this rank, with the stage in which it was met.
void note_error(RefitResult& result, const RankStatus& status, const std::exception& error) {
    if (!result.error.empty()) return;
    result.error = error.what();
    result.error_stage = stage_name(status.stage());
}

/// A device that is lost to this process is a finding: it names the rank and what to do.
void report_lost_device(RefitResult& result, int rank) {
    const std::string why = kernels::cuda::device_lost();
    if (result.error.empty() || why.empty()) return;
    core::Finding finding;
    finding.check = "device";
    finding.measured = why;
    finding.limit = "a device that works until the end";
    finding.rank = rank;
    finding.remedy =
        "start the run again, with CUDA_LAUNCH_BLOCKING=1 or under compute-sanitizer to see which "
        "kernel it was; backend auto does without the device";
    finding.message =
        "rank " + std::to_string(rank) + " lost its CUDA device: " + why + "; " + finding.remedy;
    result.findings.push_back(std::move(finding));
}

/// A trainer's part: every bucket is made and sent, also after an error (then as aborted pieces),
/// so that no receiver waits for bytes that never come.
void send_all(RefitContext& context, StageClock& clock, RefitResult& result) {
    RankStatus& status = context.status;
    trainer::Publisher& publisher = *context.publisher;
    const auto trainer = static_cast<std::size_t>(context.world.rank());
    auto guarded = [&](const std::function<void()>& part) {
        try {
            part();
        } catch (const std::exception& error) {
            note_error(result, status, error);
            publisher.abort();
        }
    };
    const std::function<void()> on_progress = [&] {
        status.progressed();
        context.transport.progress();
    };

    const bool stages = context.staging_backend != nullptr;
    const auto staged = [&] { return stages ? context.staging_backend->staging_seconds() : 0.0; };

    for (std::size_t b = 0; b < context.manifest.buckets.size(); ++b) {
        const wire::PiecePlan& piece = context.manifest.buckets[b].pieces[trainer];
        const auto bucket = static_cast<std::int64_t>(b);
        source_phase(context, clock, [&] {
            guarded([&] {
                status.enter(Stage::source, bucket);
                context.read_source(b, [&] { status.progressed(); });
            });
        });
        clock.begin_bucket(bucket, static_cast<std::int64_t>(piece.bytes));

        double begin = clock.now_s();
        const double staged_before = staged();
        guarded([&] { status.enter(Stage::gather, bucket); });
        bool exchanged = false;
        const trainer::MaxOverTrainers exchange = [&](std::span<std::uint32_t> amax) {
            exchanged = true;
            clock.pause();
            context.world.max_over_trainers(context.trainers, amax);
            clock.resume();
        };
        try {
            publisher.gather(b, exchange);
        } catch (const std::exception& error) {
            note_error(result, status, error);
            publisher.abort();
            // The other trainers wait for the exchange of this bucket, if it has one.
            if (!exchanged) publisher.gather(b, exchange);
        }
        double end = clock.now_s();
        const double staged_in_gather = staged() - staged_before;
        clock.add(Stage::gather, end - begin - staged_in_gather);
        if (stages) clock.add(Stage::staging, staged_in_gather);
        clock.bucket_span(Stage::gather, begin, end);

        if (piece.bytes != 0) {
            begin = end;
            guarded([&] { status.enter(Stage::broadcast, bucket); });
            clock.pause();
            const std::span<std::byte> slot = context.transport.acquire(b);
            clock.resume();
            end = clock.now_s();
            clock.add(Stage::broadcast, end - begin);

            begin = end;
            trainer::PublishTimes times;
            guarded([&] { status.enter(Stage::quantize, bucket); });
            guarded([&] { status.enter(Stage::pack, bucket); });
            try {
                publisher.fill(b, slot, on_progress, times);
            } catch (const std::exception& error) {
                note_error(result, status, error);
                publisher.abort();
                // Where not even the head of an aborted piece can be written (a device that is
                // lost), the slot holds another piece or none, and receivers refuse either.
                guarded([&] { publisher.fill(b, slot, on_progress, times); });
            }
            end = clock.now_s();
            const bool quantizes = times.quantize_s > 0.0;
            if (quantizes) clock.add(Stage::quantize, times.quantize_s);
            if (stages) clock.add(Stage::staging, times.staging_s);
            clock.add(Stage::pack, times.pack_s);
            // Quantizing and packing alternate stripe by stripe; the spans share the time in the
            // proportion of their sums. Staging lies within what it is done for.
            const double staging = quantizes ? times.staging_s : 0.0;
            const double busy = times.quantize_s + staging + times.pack_s;
            const double border =
                busy > 0.0 ? begin + (end - begin) * (times.quantize_s + staging) / busy : begin;
            if (quantizes) clock.bucket_span(Stage::quantize, begin, border);
            clock.bucket_span(Stage::pack, border, end);

            guarded([&] { status.enter(Stage::broadcast, bucket); });
            begin = clock.now_s();
            context.transport.publish(b);
            end = clock.now_s();
            clock.add(Stage::broadcast, end - begin);
            clock.bucket_span(Stage::broadcast, begin, end);
        }
        if (!context.pipeline) {
            wait_for_all(context, clock);
        }
    }
    const double begin = clock.now_s();
    clock.pause();
    context.transport.finish();
    clock.resume();
    clock.add(Stage::broadcast, clock.now_s() - begin);
    for (const core::Finding& finding : publisher.findings()) result.findings.push_back(finding);
}

/// A receiver's part: pieces in bucket order, from whichever trainer comes first.
void receive_all(RefitContext& context, StageClock& clock, RefitResult& result) {
    RankStatus& status = context.status;
    receiver::WeightLoader& loader = *context.loader;
    const std::function<void()> on_progress = [&] {
        status.progressed();
        context.transport.progress();
    };

    for (std::size_t b = 0; b < context.manifest.buckets.size(); ++b) {
        const auto bucket = static_cast<std::int64_t>(b);
        std::vector<int> waiting;
        std::int64_t bytes = 0;
        for (int t = 0; t < context.trainers; ++t) {
            const std::uint64_t piece =
                context.manifest.buckets[b].pieces[static_cast<std::size_t>(t)].bytes;
            if (piece != 0) waiting.push_back(t);
            bytes += static_cast<std::int64_t>(piece);
        }
        source_phase(context, clock, {});
        clock.begin_bucket(bucket, bytes);
        while (!waiting.empty()) {
            std::size_t next = 0;
            for (std::size_t i = 0; i < waiting.size(); ++i) {
                if (context.transport.arrived(b, waiting[i])) {
                    next = i;
                    break;
                }
            }
            const int trainer = waiting[next];
            waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(next));

            double begin = clock.now_s();
            bool usable = result.error.empty();
            auto guarded = [&](const std::function<void()>& part) {
                try {
                    part();
                } catch (const std::exception& error) {
                    note_error(result, status, error);
                    usable = false;
                }
            };
            guarded([&] { status.enter(Stage::broadcast, bucket); });
            clock.pause();
            const std::span<const std::byte> piece = context.transport.receive(b, trainer);
            clock.resume();
            double end = clock.now_s();
            clock.add(Stage::broadcast, end - begin);
            clock.bucket_span(Stage::broadcast, begin, end);

            begin = end;
            receiver::LoadTimes times;
            guarded([&] { status.enter(Stage::check, bucket); });
            guarded([&] { status.enter(Stage::load, bucket); });
            if (usable) {
                guarded([&] {
                    loader.load_piece(static_cast<std::uint32_t>(b),
                                      static_cast<std::uint32_t>(trainer), piece, on_progress,
                                      times);
                });
            }
            end = clock.now_s();
            clock.add(Stage::check, times.check_s);
            clock.add(Stage::load, times.load_s);
            const double busy = times.check_s + times.load_s;
            const double border = busy > 0.0 ? begin + (end - begin) * times.check_s / busy : begin;
            clock.bucket_span(Stage::check, begin, border);
            clock.bucket_span(Stage::load, border, end);
            context.transport.release(b, trainer);
        }
        if (!context.pipeline) {
            wait_for_all(context, clock);
        }
    }
    const double begin = clock.now_s();
    try {
        loader.finish_stream();
    } catch (const std::exception& error) {
        note_error(result, status, error);
    }
    clock.add(Stage::check, clock.now_s() - begin);
    context.transport.finish();
    for (const core::Finding& finding : loader.findings()) result.findings.push_back(finding);
}

}  // namespace

RefitResult run_refit(RefitContext& context, std::uint64_t version) {
    RefitResult result;
    StageClock clock;
    context.transport.begin_refit();
    try {
        if (context.publisher != nullptr) context.publisher->begin(version);
        if (context.loader != nullptr) {
            context.loader->begin(version, [&] { context.status.progressed(); });
        }
    } catch (const std::exception& error) {
        note_error(result, context.status, error);
        if (context.publisher != nullptr) context.publisher->abort();
    }
    context.world.barrier();

    clock.start();
    try {
        if (context.publisher != nullptr) {
            send_all(context, clock, result);
        } else {
            receive_all(context, clock, result);
        }
    } catch (const std::exception& error) {
        // The transport cannot go on, and the other ranks wait for this one: the run ends. What
        // came first is the cause.
        if (result.error.empty()) throw;
        throw core::ResourceError(result.error +
                                  "; after that the transport could not go on: " + error.what());
    }
    const double begin = clock.now_s();
    try {
        context.status.enter(Stage::commit);
    } catch (const std::exception& error) {
        note_error(result, context.status, error);
    }
    report_lost_device(result, context.world.rank());
    const bool fine = result.error.empty() && !core::has_error(result.findings);
    clock.pause();
    const bool all_fine = context.world.all_true(fine);
    clock.resume();
    // Once somebody has claimed the record of a lost run, nothing becomes visible any more.
    const bool allowed = all_fine && !context.status.given_up_by_other();
    if (context.loader != nullptr) {
        try {
            result.committed = context.loader->commit(allowed);
        } catch (const std::exception& error) {
            note_error(result, context.status, error);
            report_lost_device(result, context.world.rank());
        }
    } else {
        result.committed = allowed;
    }
    clock.add(Stage::commit, clock.now_s() - begin);
    result.times = clock.finish();
    for (core::Finding& finding : result.findings) {
        if (finding.rank < 0) finding.rank = context.world.rank();
    }
    return result;
}

}  // namespace refit::harness
