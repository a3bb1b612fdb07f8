// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/faulty_transport.hpp"

#include <gtest/gtest.h>

#include "core/error.hpp"
#include "unit/transport/fake_transport.hpp"

namespace refit::transport {
namespace {

const Endpoint kReceiver0{2, 2, 2, {}};
using Kind = TransportFault::Kind;

std::unique_ptr<Transport> faulty(TransportFault fault, const Endpoint& endpoint = kReceiver0) {
    static std::vector<std::string> calls;
    auto link = make_faulty_transport(std::make_unique<FakeTransport>(&calls), endpoint, {fault});
    link->open({2, {{0, 4}, {4, 4}, {3, 4}}});
    link->begin_refit();
    return link;
}

std::vector<int> values(std::span<const std::byte> piece) {
    std::vector<int> v;
    for (const std::byte b : piece) v.push_back(std::to_integer<int>(b));
    return v;
}

TEST(FaultyTransport, FlipsOneBitOfTheByteNamed) {
    EXPECT_EQ(values(faulty({Kind::flip_byte, 1, 2, 0})->receive(1, 0)),
              (std::vector<int>{16, 17, 18 ^ 16, 19}));
}

TEST(FaultyTransport, CountsANegativeOffsetFromTheEndAndClamps) {
    const auto last = static_cast<std::uint64_t>(-1);
    const std::vector<int> flipped_last{16, 17, 18, 19 ^ 16};
    EXPECT_EQ(values(faulty({Kind::flip_byte, 1, last, 0})->receive(1, 0)), flipped_last);
    EXPECT_EQ(values(faulty({Kind::flip_byte, 1, 1000, 0})->receive(1, 0)), flipped_last);
    EXPECT_EQ(
        values(faulty({Kind::flip_byte, 1, static_cast<std::uint64_t>(-1000), 0})->receive(1, 0)),
        (std::vector<int>{16 ^ 16, 17, 18, 19}));
}

TEST(FaultyTransport, LeavesTheOtherReceiversAndTrainersAlone) {
    const std::vector<int> sent{16, 17, 18, 19};
    EXPECT_EQ(values(faulty({Kind::truncate, 1, 0, 1})->receive(1, 0)), sent);
    EXPECT_EQ(values(faulty({Kind::truncate, 1, 0, 0})->receive(1, 1)), sent);
    EXPECT_EQ(values(faulty({Kind::truncate, 1, 0, 0})->receive(1, 0)),
              (std::vector<int>{16, 17, 0, 0}));
}

TEST(FaultyTransport, MeansTheFirstTrainerThatSendsInTheBucket) {
    EXPECT_EQ(values(faulty({Kind::truncate, 0, 0, 0})->receive(0, 1)),
              (std::vector<int>{0, 1, 0, 0}));
    EXPECT_EQ(values(faulty({Kind::truncate, 1, 0, 0, 1})->receive(1, 1)),
              (std::vector<int>{16, 17, 0, 0}));
}

TEST(FaultyTransport, ReordersOrRotatesWhereTheSizesDiffer) {
    auto link = faulty({Kind::reorder, 2, 0, 0, 1});
    EXPECT_EQ(values(link->receive(1, 1)), (std::vector<int>{16, 17, 18, 19}));
    EXPECT_EQ(values(link->receive(2, 1)), (std::vector<int>{16, 17, 18, 19}));
    link = faulty({Kind::reorder, 2, 0, 0, 0});
    (void)link->receive(1, 0);
    EXPECT_EQ(values(link->receive(2, 0)), (std::vector<int>{33, 34, 32}));
}

TEST(FaultyTransport, RefusesAFaultThatCanNeverFire) {
    EXPECT_THROW((void)faulty({Kind::truncate, 3, 0, 0}), core::UsageError);
    EXPECT_THROW((void)faulty({Kind::truncate, 1, 0, 2}), core::UsageError);
    EXPECT_THROW((void)faulty({Kind::truncate, 0, 0, 0, 0}), core::UsageError);
    EXPECT_THROW((void)faulty({Kind::truncate, 0, 0, 0, 2}), core::UsageError);
}

}  // namespace
}  // namespace refit::transport
