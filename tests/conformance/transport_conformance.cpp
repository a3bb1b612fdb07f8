// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "conformance/transport_conformance.hpp"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <sstream>
#include <stdexcept>

#include "core/error.hpp"
#include "transport/faulty_transport.hpp"

namespace refit::testing {
namespace {

using transport::Endpoint;
using transport::StreamPlan;
using transport::Transport;
using transport::TransportFault;
using transport::TransportOptions;

std::string where(const RankContext& c, int refit, std::size_t bucket, int trainer) {
    std::ostringstream text;
    text << "rank " << c.endpoint.rank << ", refit " << refit << ", bucket " << bucket
         << ", trainer " << trainer << ": ";
    return text.str();
}

void fill(std::span<std::byte> piece, int refit, std::size_t bucket, int trainer) {
    for (std::uint64_t i = 0; i < piece.size(); ++i)
        piece[i] = payload_byte(refit, bucket, trainer, i);
}

/// Index of the first byte that is not as sent; the size when all are.
std::uint64_t first_difference(std::span<const std::byte> piece, int refit, std::size_t bucket,
                               int trainer) {
    for (std::uint64_t i = 0; i < piece.size(); ++i) {
        if (piece[i] != payload_byte(refit, bucket, trainer, i)) return i;
    }
    return piece.size();
}

void expect_as_sent(RankContext& c, std::span<const std::byte> piece, int refit, std::size_t bucket,
                    int trainer) {
    const std::uint64_t at = first_difference(piece, refit, bucket, trainer);
    c.expect(at == piece.size(), where(c, refit, bucket, trainer) + "byte " + std::to_string(at) +
                                     " of " + std::to_string(piece.size()) +
                                     " is not what was sent");
}

void wait_for(RankContext& c, const std::string& event) {
    while (!c.signalled(event)) {
        c.endpoint.on_wait();
        (void)sched_yield();
    }
}

StreamPlan uneven_plan(int trainers, std::size_t buckets, int depth) {
    constexpr std::uint64_t kSizes[] = {1,    0, 3,    63,   64,    65,  999,  1000,
                                        1001, 0, 4096, 4097, 70001, 255, 2000, 7};
    StreamPlan plan;
    plan.depth = depth;
    for (std::size_t b = 0; b < buckets; ++b) {
        std::vector<std::uint64_t> row;
        for (int t = 0; t < trainers; ++t)
            row.push_back(kSizes[(b * 5 + static_cast<std::size_t>(t) * 3) % std::size(kSizes)]);
        plan.pieces.push_back(std::move(row));
    }
    return plan;
}

StreamPlan even_plan(int trainers, std::size_t buckets, int depth, std::uint64_t bytes) {
    StreamPlan plan;
    plan.depth = depth;
    plan.pieces.assign(buckets,
                       std::vector<std::uint64_t>(static_cast<std::size_t>(trainers), bytes));
    return plan;
}

void send_bucket(RankContext& c, Transport& link, const StreamPlan& plan, int refit,
                 std::size_t b) {
    const int me = c.endpoint.rank;
    const std::uint64_t bytes = plan.pieces[b][static_cast<std::size_t>(me)];
    if (bytes == 0) return;
    const std::span<std::byte> piece = link.acquire(b);
    c.expect(piece.size() == bytes,
             where(c, refit, b, me) + "acquire gave a piece of another size");
    c.expect(reinterpret_cast<std::uintptr_t>(piece.data()) % 64 == 0,
             where(c, refit, b, me) + "piece not aligned to 64");
    fill(piece, refit, b, me);
    link.publish(b);
    link.progress();
}

/// One whole refit with the given sizes; every byte is compared.
void stream(RankContext& c, Transport& link, const StreamPlan& plan, int refit) {
    link.begin_refit();
    for (std::size_t b = 0; b < plan.pieces.size(); ++b) {
        if (c.endpoint.is_trainer()) {
            send_bucket(c, link, plan, refit, b);
            continue;
        }
        for (int t = 0; t < c.endpoint.trainers; ++t) {
            const std::uint64_t bytes = plan.pieces[b][static_cast<std::size_t>(t)];
            if (bytes == 0) continue;
            const std::span<const std::byte> piece = link.receive(b, t);
            c.expect(piece.size() == bytes,
                     where(c, refit, b, t) + "received a piece of another size");
            expect_as_sent(c, piece, refit, b, t);
            link.release(b, t);
        }
    }
    link.finish();
}

void every_byte_of_every_piece_arrives(RankContext& c) {
    TransportOptions options = c.options;
    options.chunk_bytes = 1000;
    const auto link = c.make(options, c.endpoint);
    for (const int depth : {1, 2, 3, 5}) {
        const StreamPlan plan = uneven_plan(c.endpoint.trainers, 40, depth);
        link->open(plan);
        for (int refit = 0; refit < 3; ++refit) {
            stream(c, *link, plan, refit);
            c.barrier();
        }
        link->close();
    }
}

void large_pieces_cross(RankContext& c) {
    const auto link = c.make(c.options, c.endpoint);
    const StreamPlan plan = even_plan(c.endpoint.trainers, 5, 2, (std::uint64_t{3} << 20) + 1);
    link->open(plan);
    c.expect(!c.endpoint.is_trainer() || link->buffer_bytes() >= 2 * plan.pieces[0][0],
             "a trainer counts its slots");
    stream(c, *link, plan, 0);
    c.barrier();
    link->close();
}

void a_trainer_may_send_nothing(RankContext& c) {
    const auto link = c.make(c.options, c.endpoint);
    StreamPlan plan = even_plan(c.endpoint.trainers, 6, 2, 100);
    for (auto& bucket : plan.pieces) bucket[0] = 0;
    link->open(plan);
    stream(c, *link, plan, 0);
    c.barrier();
    link->close();
    plan.pieces.clear();
    link->open(plan);
    stream(c, *link, plan, 0);
    c.barrier();
    link->close();
}

/// Whether pieces can be memory of a device that the host plays, which alone it can read and write.
bool plays_device(const Transport& link) {
    return link.piece_device() >= 0 && std::getenv("REFIT_CUDA_LIBRARY") != nullptr;
}

void pieces_of_device_memory_cross(RankContext& c) {
    const auto link = c.make(c.options, c.endpoint);
    if (!plays_device(*link)) return;
    for (const int depth : {1, 3}) {
        StreamPlan plan = uneven_plan(c.endpoint.trainers, 20, depth);
        link->open(plan);
        const std::uint64_t staged = link->buffer_bytes();
        link->close();
        plan.on_device = true;
        link->open(plan);
        c.expect(staged == 0 || link->buffer_bytes() <= staged / 2,
                 "pieces of device memory have slots on the host");
        for (int refit = 0; refit < 3; ++refit) {
            stream(c, *link, plan, refit);
            c.barrier();
        }
        link->close();
    }
}

void hold_a_piece(RankContext& c, Transport& link, const StreamPlan& plan);

void a_held_piece_keeps_its_bytes(RankContext& c) {
    const auto link = c.make(c.options, c.endpoint);
    hold_a_piece(c, *link, even_plan(c.endpoint.trainers, 8, 2, 200'000));
}

void a_held_piece_of_device_memory_keeps_its_bytes(RankContext& c) {
    const auto link = c.make(c.options, c.endpoint);
    if (!plays_device(*link)) return;
    StreamPlan plan = even_plan(c.endpoint.trainers, 8, 2, 200'000);
    plan.on_device = true;
    hold_a_piece(c, *link, plan);
}

void hold_a_piece(RankContext& c, Transport& own, const StreamPlan& plan) {
    Transport* const link = &own;
    link->open(plan);
    link->begin_refit();
    const int trainers = c.endpoint.trainers;
    if (c.endpoint.is_trainer()) {
        for (std::size_t b = 0; b < plan.pieces.size(); ++b) {
            if (b == 2) c.signal("asks" + std::to_string(c.endpoint.rank));
            send_bucket(c, *link, plan, 0, b);
        }
    } else {
        for (int t = 0; t < trainers; ++t) {
            const auto held = link->receive(0, t);
            // The trainer has published bucket 1 and wants a slot for bucket 2, which is the one
            // that is held here.
            while (!c.signalled("asks" + std::to_string(t))) {
                c.endpoint.on_wait();
                link->progress();
                (void)sched_yield();
            }
            for (int turn = 0; turn < 300; ++turn) {
                link->progress();
                (void)sched_yield();
            }
            expect_as_sent(c, held, 0, 0, t);
            const auto next = link->receive(1, t);
            expect_as_sent(c, held, 0, 0, t);
            expect_as_sent(c, next, 0, 1, t);
            link->release(0, t);
            for (int turn = 0; turn < 300; ++turn) {
                link->progress();
                (void)sched_yield();
            }
            expect_as_sent(c, next, 0, 1, t);
            link->release(1, t);
        }
        for (std::size_t b = 2; b < plan.pieces.size(); ++b) {
            for (int t = 0; t < trainers; ++t) {
                expect_as_sent(c, link->receive(b, t), 0, b, t);
                link->release(b, t);
            }
        }
    }
    link->finish();
    c.barrier();
    link->close();
}

void receivers_choose_the_order_of_trainers_and_releases(RankContext& c) {
    TransportOptions options = c.options;
    options.chunk_bytes = 30'000;
    const auto link = c.make(options, c.endpoint);
    const int trainers = c.endpoint.trainers;
    const StreamPlan plan = even_plan(trainers, 12, 3, 100'003);
    link->open(plan);
    for (int refit = 0; refit < 2; ++refit) {
        link->begin_refit();
        if (c.endpoint.is_trainer()) {
            for (std::size_t b = 0; b < plan.pieces.size(); ++b)
                send_bucket(c, *link, plan, refit, b);
        } else {
            for (std::size_t b = 0; b + 1 < plan.pieces.size(); b += 2) {
                for (int i = 0; i < trainers; ++i) {
                    const int t =
                        c.endpoint.receiver() % 2 == 0 ? trainers - 1 - i : (i + refit) % trainers;
                    const auto first = link->receive(b, t);
                    const auto second = link->receive(b + 1, t);
                    expect_as_sent(c, second, refit, b + 1, t);
                    link->release(b + 1, t);
                    link->progress();
                    expect_as_sent(c, first, refit, b, t);
                    link->release(b, t);
                }
            }
        }
        link->finish();
        c.barrier();
    }
    link->close();
}

void arrived_is_false_before_and_true_after(RankContext& c) {
    const auto link = c.make(c.options, c.endpoint);
    const int receivers = c.endpoint.receivers;
    const StreamPlan plan = even_plan(c.endpoint.trainers, 3, 2, 50'000);
    link->open(plan);
    link->begin_refit();
    for (std::size_t b = 0; b < plan.pieces.size(); ++b) {
        const std::string looked = "looked" + std::to_string(b) + ".";
        if (c.endpoint.is_trainer()) {
            for (int r = 0; r < receivers; ++r) {
                while (!c.signalled(looked + std::to_string(r))) {
                    c.endpoint.on_wait();
                    link->progress();
                    (void)sched_yield();
                }
            }
            send_bucket(c, *link, plan, 0, b);
            continue;
        }
        for (int t = 0; t < c.endpoint.trainers; ++t) {
            c.expect(!link->arrived(b, t), where(c, 0, b, t) + "arrived before it was published");
        }
        c.signal(looked + std::to_string(c.endpoint.receiver()));
        for (int t = 0; t < c.endpoint.trainers; ++t) {
            while (!link->arrived(b, t)) {
                c.endpoint.on_wait();
                (void)sched_yield();
            }
            expect_as_sent(c, link->receive(b, t), 0, b, t);
            link->release(b, t);
        }
    }
    link->finish();
    c.barrier();
    link->close();
}

void a_computing_trainer_lets_pieces_go_by_progress(RankContext& c) {
    const auto link = c.make(c.options, c.endpoint);
    const StreamPlan plan = even_plan(c.endpoint.trainers, 2, 2, std::uint64_t{8} << 20);
    link->open(plan);
    link->begin_refit();
    if (c.endpoint.is_trainer()) {
        send_bucket(c, *link, plan, 0, 0);
        // "Computing": only progress() is called. The loop ends by what the receivers say, so an
        // implementation that moves bytes in acquire() and finish() alone runs into the deadline of
        // on_wait.
        for (int r = 0; r < c.endpoint.receivers; ++r) {
            while (!c.signalled("got" + std::to_string(r))) {
                c.endpoint.on_wait();
                link->progress();
            }
        }
        c.signal("computed" + std::to_string(c.endpoint.rank));
        send_bucket(c, *link, plan, 0, 1);
    } else {
        for (int t = 0; t < c.endpoint.trainers; ++t) {
            expect_as_sent(c, link->receive(0, t), 0, 0, t);
            link->release(0, t);
        }
        for (int t = 0; t < c.endpoint.trainers; ++t) {
            c.expect(!c.signalled("computed" + std::to_string(t)),
                     "the trainer stopped computing before the piece was here");
        }
        c.signal("got" + std::to_string(c.endpoint.receiver()));
        for (int t = 0; t < c.endpoint.trainers; ++t) {
            expect_as_sent(c, link->receive(1, t), 0, 1, t);
            link->release(1, t);
        }
    }
    link->finish();
    c.barrier();
    link->close();
}

void another_plan_may_follow_close(RankContext& c) {
    const auto link = c.make(c.options, c.endpoint);
    for (int round = 0; round < 4; ++round) {
        const StreamPlan plan = uneven_plan(c.endpoint.trainers,
                                            static_cast<std::size_t>(3 + 7 * round), 1 + round % 3);
        link->open(plan);
        stream(c, *link, plan, round);
        // No barrier: close() is collective and a faster rank may be in the next open() already.
        link->close();
        c.expect(link->buffer_bytes() == 0, "buffers are given back by close()");
    }
}

void plans_that_differ_are_refused_by_every_rank(RankContext& c) {
    const auto link = c.make(c.options, c.endpoint);
    StreamPlan plan = even_plan(c.endpoint.trainers, 3, 2, 1000);
    StreamPlan other = plan;
    other.pieces[1][0] = 1001;
    bool refused = false;
    try {
        link->open(c.endpoint.rank == c.endpoint.trainers ? other : plan);
    } catch (const core::ShapeError& e) {
        refused = std::string(e.what()).find("stream plan") != std::string::npos;
    }
    c.expect(refused, "rank " + std::to_string(c.endpoint.rank) +
                          " took a plan that another rank does not have");
    c.barrier();
    link->open(plan);
    stream(c, *link, plan, 0);
    link->close();
}

void a_paced_link_is_no_faster_than_its_rate(RankContext& c) {
    TransportOptions options = c.options;
    constexpr std::uint64_t kPiece = 50'000;
    constexpr std::size_t kBuckets = 6;
    options.link_bytes_per_s = 10'000'000;
    const auto link = c.make(options, c.endpoint);
    const StreamPlan plan = even_plan(c.endpoint.trainers, kBuckets, 2, kPiece);
    link->open(plan);
    const auto start = std::chrono::steady_clock::now();
    c.barrier();
    stream(c, *link, plan, 0);
    c.barrier();
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    // All trainers share the link and each byte crosses once, whatever the number of receivers.
    const double least = static_cast<double>(kPiece * kBuckets) * c.endpoint.trainers / 1e7;
    c.expect(seconds >= least, "took " + std::to_string(seconds) + " s, the link needs " +
                                   std::to_string(least) + " s");
    link->close();
}

void a_fault_damages_exactly_the_receiver_it_names(RankContext& c) {
    const int victim = c.endpoint.receivers - 1;
    const StreamPlan plan = even_plan(c.endpoint.trainers, 6, 2, 3000);
    using Kind = TransportFault::Kind;
    struct Planted {
        TransportFault fault;
        std::function<std::byte(std::uint64_t)>
            arrives;  ///< what the victim must see, from the definition of the fault
    };
    const auto sent = [](std::size_t b, std::uint64_t i) { return payload_byte(0, b, 0, i); };
    const std::vector<Planted> planted = {
        {{Kind::flip_byte, 1, 2999, victim, 0}, {}},
        {{Kind::truncate, 2, 0, victim, 0},
         [&](std::uint64_t i) { return i < 1500 ? sent(2, i) : std::byte{0}; }},
        {{Kind::reorder, 4, 0, victim, 0}, [&](std::uint64_t i) { return sent(3, i); }},
        {{Kind::reorder, 0, 0, victim, 0},
         [&](std::uint64_t i) { return sent(0, (i + 1) % 3000); }},
    };
    std::vector<TransportFault> faults;
    for (const Planted& p : planted) faults.push_back(p.fault);
    const auto link =
        transport::make_faulty_transport(c.make(c.options, c.endpoint), c.endpoint, faults);
    link->open(plan);
    link->begin_refit();
    for (std::size_t b = 0; b < plan.pieces.size(); ++b) {
        if (c.endpoint.is_trainer()) {
            send_bucket(c, *link, plan, 0, b);
            continue;
        }
        for (int t = 0; t < c.endpoint.trainers; ++t) {
            const auto piece = link->receive(b, t);
            const auto hit = std::find_if(planted.begin(), planted.end(), [&](const Planted& p) {
                return p.fault.bucket == b && t == 0 && p.fault.receiver == c.endpoint.receiver();
            });
            if (hit == planted.end()) {
                expect_as_sent(c, piece, 0, b, t);
            } else if (hit->arrives) {
                for (std::uint64_t i = 0; i < piece.size(); ++i) {
                    if (piece[i] != hit->arrives(i)) {
                        c.expect(false, where(c, 0, b, t) + "byte " + std::to_string(i) +
                                            " is not as the fault defines");
                        break;
                    }
                }
            } else {
                std::vector<std::uint64_t> different;
                for (std::uint64_t i = 0; i < piece.size(); ++i) {
                    if (piece[i] != sent(b, i)) different.push_back(i);
                }
                c.expect(different == std::vector<std::uint64_t>{2999},
                         where(c, 0, b, t) + "exactly one byte is damaged");
            }
            link->release(b, t);
        }
    }
    link->finish();
    c.barrier();
    link->close();
}

struct Stop : std::runtime_error {
    Stop() : std::runtime_error("stop") {}
};

Endpoint stopping_after(const Endpoint& endpoint, int calls, const std::shared_ptr<bool>& armed) {
    Endpoint stopping = endpoint;
    auto left = std::make_shared<int>(calls);
    stopping.on_wait = [=, watchdog = endpoint.on_wait] {
        watchdog();
        if (*armed && (*left)-- <= 0) throw Stop();
    };
    return stopping;
}

/// What `call` does when on_wait throws: true when the same exception comes out.
template <class Call>
bool stops(Call&& call) {
    try {
        call();
    } catch (const Stop&) {
        return true;
    }
    return false;
}

void an_exception_of_on_wait_ends_a_receive(RankContext& c) {
    const auto armed = std::make_shared<bool>(false);
    const auto link = c.make(c.options, stopping_after(c.endpoint, 5, armed));
    const StreamPlan plan = even_plan(c.endpoint.trainers, 4, 2, 100'000);
    link->open(plan);
    link->begin_refit();
    if (!c.endpoint.is_trainer()) {
        *armed = true;
        c.expect(stops([&] { (void)link->receive(0, 0); }),
                 "receive() did not end with the exception of on_wait");
        c.signal("stopped" + std::to_string(c.endpoint.receiver()));
    }
    for (int r = 0; r < c.endpoint.receivers; ++r) wait_for(c, "stopped" + std::to_string(r));
}

void an_exception_of_on_wait_ends_an_acquire(RankContext& c) {
    const auto armed = std::make_shared<bool>(false);
    const auto link = c.make(c.options, stopping_after(c.endpoint, 5, armed));
    const StreamPlan plan = even_plan(c.endpoint.trainers, 4, 2, std::uint64_t{1} << 20);
    link->open(plan);
    if (c.endpoint.is_trainer()) {
        link->begin_refit();
        send_bucket(c, *link, plan, 0, 0);
        send_bucket(c, *link, plan, 0, 1);
        *armed = true;
        c.expect(!link->can_acquire(2), "a third piece is under way with depth 2 and no receiver");
        c.expect(stops([&] { (void)link->acquire(2); }),
                 "acquire() did not end with the exception of on_wait");
        c.signal("stopped" + std::to_string(c.endpoint.rank));
    }
    for (int t = 0; t < c.endpoint.trainers; ++t) wait_for(c, "stopped" + std::to_string(t));
}

}  // namespace

std::byte payload_byte(int refit, std::size_t bucket, int trainer, std::uint64_t i) {
    constexpr unsigned char kSignallingNan[] = {0x01, 0x00, 0xa0,
                                                0x7f};  // a float that arithmetic would change
    const std::uint64_t salt = static_cast<std::uint64_t>(refit) * 13 + bucket * 37 +
                               static_cast<std::uint64_t>(trainer) * 91;
    if (i % 512 < 256) return static_cast<std::byte>((i ^ salt) & 0xff);
    if (i % 1021 < 4) return static_cast<std::byte>(kSignallingNan[i % 1021]);
    const std::uint64_t mixed = (i + 1) * 0x9e3779b97f4a7c15ull + salt * 0xbf58476d1ce4e5b9ull;
    return static_cast<std::byte>((mixed >> 40) & 0xff);
}

const std::vector<TransportCase>& transport_cases() {
    static const std::vector<TransportCase> cases = {
        {"EveryByteOfEveryPieceArrives", every_byte_of_every_piece_arrives},
        {"LargePiecesCross", large_pieces_cross},
        {"ATrainerMaySendNothing", a_trainer_may_send_nothing},
        {"AHeldPieceKeepsItsBytes", a_held_piece_keeps_its_bytes},
        {"PiecesOfDeviceMemoryCrossWithoutSlotsOnTheHost", pieces_of_device_memory_cross},
        {"AHeldPieceOfDeviceMemoryKeepsItsBytes", a_held_piece_of_device_memory_keeps_its_bytes},
        {"ReceiversChooseTheOrderOfTrainersAndReleases",
         receivers_choose_the_order_of_trainers_and_releases},
        {"ArrivedIsFalseBeforeAndTrueAfter", arrived_is_false_before_and_true_after},
        {"AComputingTrainerLetsPiecesGoByProgress", a_computing_trainer_lets_pieces_go_by_progress},
        {"AnotherPlanMayFollowClose", another_plan_may_follow_close},
        {"PlansThatDifferAreRefusedByEveryRank", plans_that_differ_are_refused_by_every_rank},
        {"APacedLinkIsNoFasterThanItsRate", a_paced_link_is_no_faster_than_its_rate},
        {"AFaultDamagesExactlyTheReceiverItNames", a_fault_damages_exactly_the_receiver_it_names},
        {"AnExceptionOfOnWaitEndsAReceive", an_exception_of_on_wait_ends_a_receive, true},
        {"AnExceptionOfOnWaitEndsAnAcquire", an_exception_of_on_wait_ends_an_acquire, true},
    };
    return cases;
}

}  // namespace refit::testing
