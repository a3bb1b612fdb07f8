// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "wire/piece.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "wire/packing.hpp"

namespace refit::wire {
namespace {

constexpr std::uint64_t kVersion = 41;

/// Two raw tensors in two buckets, cut into 2 x 2 and 1 x 1 cells, from two trainers.
RefitManifest sample() {
    PlannedParameter first;
    first.meta.name = "first.weight";
    first.meta.shape = {10, 6};
    first.meta.row_cuts = {0, 5, 10};
    first.meta.col_cuts = {0, 2, 6};
    first.regions_of_trainer = {{0, 0, 7, 6}, {7, 0, 3, 6}};
    PlannedParameter second = first;
    second.meta.name = "second.weight";
    second.meta.row_cuts = {0, 10};
    second.meta.col_cuts = {0, 6};
    return pack({first, second}, 120, 2);
}

std::vector<std::byte> piece_of(const RefitManifest& manifest, std::uint32_t bucket,
                                std::uint32_t trainer, PieceState state = PieceState::complete) {
    const PiecePlan& plan = manifest.buckets[bucket].pieces[trainer];
    std::vector<std::byte> bytes(plan.bytes, std::byte{0});
    for (const PieceEntry& entry : plan.entries) {
        for (std::uint64_t i = 0; i < entry.bytes; ++i) {
            bytes[entry.offset + i] = static_cast<std::byte>(i + trainer);
        }
    }
    PieceHeader header;
    header.version = kVersion;
    header.bucket = bucket;
    header.trainer = trainer;
    header.digest_count = digest_count(manifest, plan.entries);
    header.state = state;
    header.piece_bytes = plan.bytes;
    header.last_bucket = bucket + 1 == manifest.buckets.size() ? 1 : 0;
    std::vector<DigestRecord> digests(header.digest_count);
    for (std::uint32_t i = 0; i < header.digest_count; ++i) {
        digests[i] = {bucket, i, {i, trainer}};
    }
    write_piece_header(bytes, header, digests);
    return bytes;
}

TEST(PieceView, ReadsBackWhatTheWriterWrote) {
    const RefitManifest manifest = sample();
    ASSERT_EQ(manifest.buckets.size(), 2U);
    for (std::uint32_t bucket = 0; bucket < 2; ++bucket) {
        for (std::uint32_t trainer = 0; trainer < 2; ++trainer) {
            const std::vector<std::byte> bytes = piece_of(manifest, bucket, trainer);
            const PieceView view(manifest, bucket, trainer, kVersion, bytes);
            EXPECT_FALSE(view.aborted());
            // Trainer 0 holds rows on both sides of the row cut, trainer 1 on one.
            const std::size_t expected = bucket == 1 ? 1 : (trainer == 0 ? 4 : 2);
            ASSERT_EQ(view.digests().size(), expected);
            EXPECT_EQ(view.digests().back().cell, expected - 1);
            EXPECT_EQ(view.digests().back().digest, (Digest{expected - 1, trainer}));
            const PieceEntry& entry = manifest.buckets[bucket].pieces[trainer].entries.front();
            const std::span<const std::byte> payload = view.entry(entry);
            ASSERT_EQ(payload.size(), (trainer == 0 ? 7U : 3U) * 12U);
            EXPECT_EQ(payload[5], static_cast<std::byte>(5 + trainer));
        }
    }
}

TEST(PieceView, KnowsAnAbortedPiece) {
    const RefitManifest manifest = sample();
    const auto bytes = piece_of(manifest, 0, 1, PieceState::aborted);
    EXPECT_TRUE(PieceView(manifest, 0, 1, kVersion, bytes).aborted());
}

struct Damage {
    const char* field;
    void (*plant)(PieceHeader&);
};

class PieceHeaderDamage : public ::testing::TestWithParam<Damage> {};

const Damage kDamages[] = {
    {"magic", [](PieceHeader& h) { h.magic ^= 1; }},
    {"version", [](PieceHeader& h) { h.version -= 1; }},
    {"bucket", [](PieceHeader& h) { h.bucket += 1; }},
    {"trainer", [](PieceHeader& h) { h.trainer ^= 1; }},
    {"digest_count", [](PieceHeader& h) { h.digest_count += 1; }},
    {"piece_bytes", [](PieceHeader& h) { h.piece_bytes -= 64; }},
    {"end marker", [](PieceHeader& h) { h.last_bucket ^= 1; }},
    {"state", [](PieceHeader& h) { h.state = static_cast<PieceState>(7); }},
};

INSTANTIATE_TEST_SUITE_P(Fields, PieceHeaderDamage, ::testing::ValuesIn(kDamages),
                         [](const ::testing::TestParamInfo<Damage>& damage) {
                             std::string name = damage.param.field;
                             for (char& c : name) {
                                 if (c == ' ') c = '_';
                             }
                             return name;
                         });

TEST_P(PieceHeaderDamage, IsRefusedWithBucketTrainerAndField) {
    const RefitManifest manifest = sample();
    for (std::uint32_t bucket = 0; bucket < 2; ++bucket) {
        std::vector<std::byte> bytes = piece_of(manifest, bucket, 1);
        PieceHeader header;
        std::memcpy(&header, bytes.data(), sizeof header);
        GetParam().plant(header);
        std::memcpy(bytes.data(), &header, sizeof header);
        try {
            const PieceView view(manifest, bucket, 1, kVersion, bytes);
            FAIL() << "a wrong " << GetParam().field << " was taken";
        } catch (const core::Error& error) {
            const std::string text = error.what();
            EXPECT_NE(text.find(GetParam().field), std::string::npos) << text;
            EXPECT_NE(text.find("bucket " + std::to_string(bucket)), std::string::npos) << text;
            EXPECT_NE(text.find("trainer 1"), std::string::npos) << text;
        }
    }
}

TEST(PieceView, RefusesAPieceOfAnotherSize) {
    const RefitManifest manifest = sample();
    const std::vector<std::byte> bytes = piece_of(manifest, 0, 0);
    for (const std::size_t size : {std::size_t{0}, std::size_t{63}, bytes.size() - 1}) {
        EXPECT_THROW(PieceView(manifest, 0, 0, kVersion, std::span(bytes).first(size)), core::Error)
            << size;
    }
}

TEST(PieceView, RefusesAPieceOfAnotherTrainerOfTheSameSize) {
    PlannedParameter even;
    even.meta.name = "even.weight";
    even.meta.shape = {8, 4};
    even.meta.row_cuts = {0, 8};
    even.meta.col_cuts = {0, 4};
    even.regions_of_trainer = {{0, 0, 4, 4}, {4, 0, 4, 4}};
    const RefitManifest manifest = pack({even}, 1 << 20, 2);
    const std::vector<std::byte> bytes = piece_of(manifest, 0, 0);
    EXPECT_NO_THROW(PieceView(manifest, 0, 0, kVersion, bytes));
    EXPECT_THROW(PieceView(manifest, 0, 1, kVersion, bytes), core::Error);
}

TEST(PieceLayout, BeginsTheEntriesBehindHeaderAndDigests) {
    EXPECT_EQ(entries_offset(0), 64U);
    EXPECT_EQ(entries_offset(1), 128U);
    EXPECT_EQ(entries_offset(2), 128U);
    EXPECT_EQ(entries_offset(3), 192U);  // 64 + 72 = 136
}

}  // namespace
}  // namespace refit::wire
