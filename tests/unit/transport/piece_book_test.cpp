// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/piece_book.hpp"

#include <gtest/gtest.h>

#include "core/error.hpp"
#include "transport/ring_transport.hpp"

namespace refit::transport {
namespace {

const Endpoint kTrainer{0, 2, 1, {}};
const Endpoint kReceiver{2, 2, 1, {}};
const StreamPlan kPlan{2, {{10, 0}, {20, 5}, {0, 7}, {30, 9}}};

PieceBook started(const Endpoint& endpoint) {
    PieceBook book;
    book.open(kPlan, endpoint);
    book.begin_refit();
    return book;
}

template <class Call>
std::string refusal(Call&& call) {
    try {
        call();
    } catch (const core::ShapeError& e) {
        return e.what();
    }
    return {};
}

TEST(PieceBook, NumbersOnlyPiecesThatCross) {
    const PieceBook book = started(kReceiver);
    EXPECT_EQ(book.count(0), 3u);
    EXPECT_EQ(book.count(1), 3u);
    EXPECT_EQ(book.number(3, 0), 2u);
    EXPECT_EQ(book.number(1, 1), 0u);
    EXPECT_EQ(book.bucket(1, 2), 3u);
}

TEST(PieceBook, NamesTheBucketExpectedWhenACallIsOutOfOrder) {
    PieceBook book = started(kTrainer);
    EXPECT_NE(refusal([&] { (void)book.acquire(1); }).find("expected bucket 0"), std::string::npos);
    EXPECT_NE(refusal([&] { (void)book.publish(0); }).find("publish of bucket 0"),
              std::string::npos);
    (void)book.acquire(0);
    (void)book.acquire(1);
    EXPECT_NE(refusal([&] { (void)book.publish(1); }).find("expected bucket 0"), std::string::npos);
    EXPECT_EQ(book.publish(0), 0u);
    EXPECT_EQ(book.publish(1), 1u);
}

TEST(PieceBook, RefusesAPieceThatDoesNotCross) {
    PieceBook book = started(kTrainer);
    EXPECT_NE(refusal([&] { (void)book.acquire(2); }).find("sends nothing in bucket 2"),
              std::string::npos);
    EXPECT_NE(refusal([&] { (void)book.acquire(9); }).find("4 buckets"), std::string::npos);
}

TEST(PieceBook, RefusesTheCallsOfTheOtherRole) {
    PieceBook trainer = started(kTrainer);
    PieceBook receiver = started(kReceiver);
    EXPECT_NE(refusal([&] { (void)trainer.receive(0, 0); }).find("which is a trainer"),
              std::string::npos);
    EXPECT_NE(refusal([&] { (void)receiver.acquire(0); }).find("which is a receiver"),
              std::string::npos);
}

TEST(PieceBook, CountsReleasesInOrderWhateverTheirOrder) {
    PieceBook book = started(kReceiver);
    (void)book.receive(0, 0);
    (void)book.receive(1, 0);
    (void)book.release(1, 0);
    EXPECT_EQ(book.released(0), 0u);
    EXPECT_FALSE(refusal([&] { (void)book.release(1, 0); }).empty()) << "released twice";
    (void)book.release(0, 0);
    EXPECT_EQ(book.released(0), 2u);
    EXPECT_EQ(book.released(1), 0u);
}

TEST(PieceBook, RefusesToWaitForAPieceThatCannotCome) {
    PieceBook book = started(kReceiver);
    (void)book.receive(0, 0);
    (void)book.receive(1, 0);
    EXPECT_NE(refusal([&] { (void)book.receive(3, 0); }).find("bucket 0 is still held"),
              std::string::npos);
}

TEST(PieceBook, SaysWhatIsMissingAtTheEnd) {
    PieceBook book = started(kReceiver);
    EXPECT_NE(refusal([&] { book.check_finished(); }).find("received 0 of 3 pieces of trainer 0"),
              std::string::npos);
    for (const std::size_t b : {0, 1, 3}) {
        (void)book.receive(b, 0);
        if (b != 3) (void)book.release(b, 0);
    }
    EXPECT_NE(refusal([&] { book.check_finished(); }).find("still holds bucket 3 of trainer 0"),
              std::string::npos);
    (void)book.release(3, 0);
    for (const std::size_t b : {1, 2, 3}) {
        (void)book.receive(b, 1);
        (void)book.release(b, 1);
    }
    EXPECT_EQ(refusal([&] { book.check_finished(); }), "");
    EXPECT_NO_THROW(book.begin_refit());
}

TEST(PieceBook, RefusesAPlanThatDoesNotFitTheWorld) {
    PieceBook book;
    EXPECT_NE(refusal([&] {
                  book.open({2, {{1, 2, 3}}}, kTrainer);
              }).find("3 trainers, expected 2"),
              std::string::npos);
    EXPECT_NE(refusal([&] { book.open({0, {}}, kTrainer); }).find("depth 0"), std::string::npos);
    EXPECT_FALSE(refusal([&] { book.begin_refit(); }).empty());
}

TEST(RingBytes, AreCountersAndAsManyPagesAsThePiecesNeed) {
    // Largest piece 30 -> one page of 4096; depth 2.
    EXPECT_EQ(ring_bytes(kPlan, 0), 65536u + 2 * 4096u);
    // One piece needs one slot, whatever the depth.
    EXPECT_EQ(ring_bytes({4, {{5000, 0}}}, 0), 65536u + 8192u);
    EXPECT_EQ(ring_bytes({4, {{5000, 0}}}, 1), 0u);
}

TEST(PlanFingerprint, ChangesWithDepthSizesAndTheirPlaces) {
    const auto print = plan_fingerprint(kPlan);
    StreamPlan other = kPlan;
    other.depth = 3;
    EXPECT_NE(plan_fingerprint(other), print);
    other = kPlan;
    std::swap(other.pieces[1][0], other.pieces[1][1]);
    EXPECT_NE(plan_fingerprint(other), print);
    EXPECT_EQ(plan_fingerprint(StreamPlan(kPlan)), print);
}

}  // namespace
}  // namespace refit::transport
