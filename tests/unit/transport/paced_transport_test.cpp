// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/paced_transport.hpp"

#include <gtest/gtest.h>

#include "core/error.hpp"
#include "unit/transport/fake_transport.hpp"

namespace refit::transport {
namespace {

using Calls = std::vector<std::string>;

/// A link whose next byte is due long after the test, until the test says that the time has come.
class PacedTransportTest : public ::testing::Test {
 protected:
    void SetUp() override {
        clock_ = LinkPacer::now_ns() + std::int64_t{3'600'000'000'000};
        endpoint_.on_wait = [this] {
            if (++waits_ == 3) throw core::ResourceError("gave up");
        };
        link_ = make_paced_transport(std::make_unique<FakeTransport>(&calls_), endpoint_,
                                     LinkPacer(1'000'000'000, &clock_));
        link_->open({2, {{8}, {8}, {8}, {8}}});
        link_->begin_refit();
    }
    Calls calls_;
    int waits_ = 0;
    std::atomic<std::int64_t> clock_{0};
    Endpoint endpoint_{0, 1, 1, {}};
    std::unique_ptr<Transport> link_;
};

TEST_F(PacedTransportTest, KeepsAPieceUntilTheLinkHasCarriedIt) {
    (void)link_->acquire(0);
    link_->publish(0);
    link_->progress();
    EXPECT_EQ(calls_, (Calls{"begin", "acquire 0"}));
    EXPECT_EQ(waits_, 0) << "publish() and progress() never wait";
}

TEST_F(PacedTransportTest, HandsDuePiecesOverInOrder) {
    clock_ = 0;
    for (const std::size_t b : {0, 1, 2, 3}) {
        (void)link_->acquire(b);
        link_->publish(b);
    }
    link_->finish();
    Calls published;
    for (const std::string& call : calls_) {
        if (call.starts_with("publish") || call == "finish") published.push_back(call);
    }
    EXPECT_EQ(published, (Calls{"publish 0", "publish 1", "publish 2", "publish 3", "finish"}));
}

TEST_F(PacedTransportTest, WaitsForASlotWithoutLosingOnWait) {
    (void)link_->acquire(0);
    link_->publish(0);
    (void)link_->acquire(1);
    link_->publish(1);
    EXPECT_FALSE(link_->can_acquire(2));
    EXPECT_THROW((void)link_->acquire(2), core::ResourceError);
    EXPECT_EQ(waits_, 3);
}

TEST_F(PacedTransportTest, WaitsForTheLinkAtTheEnd) {
    (void)link_->acquire(0);
    link_->publish(0);
    EXPECT_THROW(link_->finish(), core::ResourceError);
    EXPECT_THROW(link_->close(), core::ShapeError);
    EXPECT_THROW(link_->begin_refit(), core::ShapeError);
}

}  // namespace
}  // namespace refit::transport
