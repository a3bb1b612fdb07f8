// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <chrono>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>

#include "conformance/transport_conformance.hpp"

namespace refit::testing {
namespace {

using transport::Endpoint;
using transport::Transport;
using transport::TransportOptions;
using Wrap = std::function<std::unique_ptr<Transport>(std::unique_ptr<Transport>, const Endpoint&)>;

/// Plays a case with threads as ranks; returns the failures of all.
std::vector<std::string> play(const TransportCase& test, int trainers, int receivers,
                              const Wrap& wrap = {}) {
    const int ranks = trainers + receivers;
    const auto hub = transport::make_loopback_hub(trainers, receivers);
    std::atomic<std::int64_t> link{0};
    std::atomic<int> in_barrier{0};
    std::atomic<int> generation{0};
    std::mutex mutex;
    std::set<std::string> events;
    std::vector<std::string> failures;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    const auto on_wait = [deadline] {
        if (std::chrono::steady_clock::now() > deadline)
            throw std::runtime_error("no end after a minute");
    };
    std::vector<std::thread> threads;
    for (int rank = 0; rank < ranks; ++rank) {
        threads.emplace_back([&, rank] {
            RankContext context;
            context.endpoint = Endpoint{rank, trainers, receivers, on_wait};
            context.options.name = "loopback";
            context.options.hub = hub;
            context.options.link_free_at_ns = &link;
            context.make = [&](const TransportOptions& options, const Endpoint& endpoint) {
                auto made = transport::make_transport(options, endpoint);
                return wrap ? wrap(std::move(made), endpoint) : std::move(made);
            };
            context.barrier = [&] {
                const int mine = generation.load();
                if (in_barrier.fetch_add(1) + 1 == ranks) {
                    in_barrier.store(0);
                    generation.fetch_add(1);
                }
                while (generation.load() == mine) {
                    on_wait();
                    std::this_thread::yield();
                }
            };
            context.signal = [&](const std::string& event) {
                const std::lock_guard lock(mutex);
                events.insert(event);
            };
            context.signalled = [&](const std::string& event) {
                const std::lock_guard lock(mutex);
                return events.contains(event);
            };
            try {
                test.run(context);
            } catch (const std::exception& e) {
                context.failures.push_back("rank " + std::to_string(rank) + ": " + e.what());
            }
            const std::lock_guard lock(mutex);
            failures.insert(failures.end(), context.failures.begin(), context.failures.end());
        });
    }
    for (std::thread& thread : threads) thread.join();
    return failures;
}

const TransportCase& find_case(const std::string& name) {
    for (const TransportCase& test : transport_cases()) {
        if (test.name == name) return test;
    }
    throw std::runtime_error("no case " + name);
}

struct Split {
    int trainers;
    int receivers;
};

std::ostream& operator<<(std::ostream& out, const Split& split) {
    return out << split.trainers << " trainers, " << split.receivers << " receivers";
}

class LoopbackConformance : public ::testing::TestWithParam<std::tuple<TransportCase, Split>> {};

TEST_P(LoopbackConformance, Holds) {
    const auto& [test, split] = GetParam();
    for (const std::string& failure : play(test, split.trainers, split.receivers))
        ADD_FAILURE() << failure;
}

std::string case_name(const ::testing::TestParamInfo<std::tuple<TransportCase, Split>>& parameter) {
    const auto& [test, split] = parameter.param;
    return test.name + "_" + std::to_string(split.trainers) + "x" + std::to_string(split.receivers);
}

INSTANTIATE_TEST_SUITE_P(Threads, LoopbackConformance,
                         ::testing::Combine(::testing::ValuesIn(transport_cases()),
                                            ::testing::Values(Split{1, 1}, Split{2, 3},
                                                              Split{3, 1})),
                         case_name);

/// Forwards every call; the planted faults override one.
class Forwarding : public Transport {
 public:
    explicit Forwarding(std::unique_ptr<Transport> inner) : inner_(std::move(inner)) {}
    [[nodiscard]] std::string_view name() const override { return inner_->name(); }
    void open(const transport::StreamPlan& plan) override { inner_->open(plan); }
    void begin_refit() override { inner_->begin_refit(); }
    std::span<std::byte> acquire(std::size_t b) override { return inner_->acquire(b); }
    bool can_acquire(std::size_t b) override { return inner_->can_acquire(b); }
    void publish(std::size_t b) override { inner_->publish(b); }
    bool arrived(std::size_t b, int t) override { return inner_->arrived(b, t); }
    std::span<const std::byte> receive(std::size_t b, int t) override {
        return inner_->receive(b, t);
    }
    void release(std::size_t b, int t) override { inner_->release(b, t); }
    void progress() override { inner_->progress(); }
    void finish() override { inner_->finish(); }
    void close() override { inner_->close(); }
    [[nodiscard]] std::uint64_t buffer_bytes() const override { return inner_->buffer_bytes(); }

 protected:
    Transport& inner() { return *inner_; }

 private:
    std::unique_ptr<Transport> inner_;
};

/// Gives the slot back while the receiver still reads it.
class ReleasesAtOnce final : public Forwarding {
 public:
    using Forwarding::Forwarding;
    std::span<const std::byte> receive(std::size_t b, int t) override {
        const auto piece = inner().receive(b, t);
        inner().release(b, t);
        return piece;
    }
    void release(std::size_t, int) override {}
};

TEST(TransportConformanceSuite, CatchesATransportThatReusesAHeldSlot) {
    const Wrap wrap = [](std::unique_ptr<Transport> inner,
                         const Endpoint&) -> std::unique_ptr<Transport> {
        return std::make_unique<ReleasesAtOnce>(std::move(inner));
    };
    EXPECT_FALSE(play(find_case("AHeldPieceKeepsItsBytes"), 1, 1, wrap).empty());
}

/// Loses the last byte of odd pieces, as a copy in words would.
class DropsTheOddByte final : public Forwarding {
 public:
    using Forwarding::Forwarding;
    void publish(std::size_t b) override {
        if (piece_.size() % 2 == 1 && piece_.size() > 1) piece_.back() = std::byte{0x5a};
        inner().publish(b);
    }
    std::span<std::byte> acquire(std::size_t b) override { return piece_ = inner().acquire(b); }

 private:
    std::span<std::byte> piece_;
};

TEST(TransportConformanceSuite, CatchesATransportThatLosesAByteOfOddPieces) {
    const Wrap wrap = [](std::unique_ptr<Transport> inner,
                         const Endpoint&) -> std::unique_ptr<Transport> {
        return std::make_unique<DropsTheOddByte>(std::move(inner));
    };
    EXPECT_FALSE(play(find_case("EveryByteOfEveryPieceArrives"), 1, 1, wrap).empty());
    EXPECT_FALSE(play(find_case("EveryByteOfEveryPieceArrives"), 2, 2, wrap).empty());
}

/// Says that everything is here.
class ArrivedLies final : public Forwarding {
 public:
    using Forwarding::Forwarding;
    bool arrived(std::size_t, int) override { return true; }
};

TEST(TransportConformanceSuite, CatchesATransportThatSaysArrivedTooEarly) {
    const Wrap wrap = [](std::unique_ptr<Transport> inner,
                         const Endpoint&) -> std::unique_ptr<Transport> {
        return std::make_unique<ArrivedLies>(std::move(inner));
    };
    EXPECT_FALSE(play(find_case("ArrivedIsFalseBeforeAndTrueAfter"), 1, 2, wrap).empty());
}

/// Every byte value, and bytes that differ between neighbours in every coordinate, or a mix-up
/// could not be seen.
TEST(TransportConformanceSuite, HasAPayloadThatShowsEveryMixUp) {
    std::set<int> values;
    for (std::uint64_t i = 0; i < 256; ++i)
        values.insert(std::to_integer<int>(payload_byte(0, 0, 0, i)));
    EXPECT_EQ(values.size(), 256u);
    const auto differs = [](int refit, std::size_t bucket, int trainer) {
        for (std::uint64_t i = 0; i < 3; ++i) {
            if (payload_byte(0, 0, 0, i) != payload_byte(refit, bucket, trainer, i)) return true;
        }
        return false;
    };
    EXPECT_TRUE(differs(1, 0, 0));
    EXPECT_TRUE(differs(0, 1, 0));
    EXPECT_TRUE(differs(0, 0, 1));
}

}  // namespace
}  // namespace refit::testing
