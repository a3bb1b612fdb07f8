// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/resident_shard.hpp"

#include <gtest/gtest.h>

#include <span>
#include <string>
#include <vector>

#include "publication.hpp"

namespace refit::trainer_test {
namespace {

struct Setting {
    std::vector<model::TensorSpec> tensors = {matrix("a.weight", 11, 7), matrix("b.weight", 5, 3)};
    std::vector<std::vector<core::RowRange>> shards = {{{0, 4}, {4, 11}}, {{0, 0}, {0, 5}}};
    FixedWeights source;
    int calls = 0;

    Setting() {
        source.set("a.weight", random_values(77, 1));
        source.set("b.weight", random_values(15, 2));
    }
    [[nodiscard]] trainer::ResidentShard shard(int rank) {
        return {tensors, shards, rank, source, [this] { ++calls; }};
    }
};

TEST(ResidentShard, HoldsItsOwnRowsOfEachTensor) {
    Setting setting;
    const trainer::ResidentShard shard = setting.shard(1);
    EXPECT_EQ(shard.rows(0), (core::RowRange{4, 11}));
    for (std::int64_t r = 4; r < 11; ++r) {
        for (std::int64_t c = 0; c < 7; ++c) {
            EXPECT_EQ(shard.row(0, r)[c],
                      setting.source.values("a.weight")[static_cast<std::size_t>(r * 7 + c)]);
        }
    }
    EXPECT_EQ(shard.row(1, 4)[2], setting.source.values("b.weight").back());
    EXPECT_GE(setting.calls, 2);
}

TEST(ResidentShard, MayOwnNothingOfATensor) {
    Setting setting;
    const trainer::ResidentShard shard = setting.shard(0);
    EXPECT_TRUE(shard.rows(1).empty());
    const std::vector<wire::Digest> digests = shard.digests([] {});
    ASSERT_EQ(digests.size(), 2U);
    EXPECT_EQ(wire::to_string(digests[1]), "99aa06d3014798d86001c324468d497f");
}

TEST(ResidentShard, DigestsItsOwnRowsAndSeesAWrite) {
    Setting setting;
    trainer::ResidentShard shard = setting.shard(1);
    const std::vector<wire::Digest> before = shard.digests([] {});
    const auto& a = setting.source.values("a.weight");
    EXPECT_EQ(before[0], wire::digest_of(std::as_bytes(std::span(a).subspan(28))));
    shard.row(0, 10)[6] ^= 1;
    const std::vector<wire::Digest> after = shard.digests([] {});
    EXPECT_NE(after[0], before[0]);
    EXPECT_EQ(after[1], before[1]);
}

TEST(ResidentShard, ReloadsInPlace) {
    Setting setting;
    trainer::ResidentShard shard = setting.shard(1);
    const std::uint16_t* first = shard.row(0, 4);
    const std::vector<std::uint16_t> next = random_values(77, 9);
    setting.source.set("a.weight", next);
    shard.reload(setting.tensors, setting.source, [] {});
    EXPECT_EQ(shard.row(0, 4), first);
    EXPECT_EQ(first[0], next[28]);
}

}  // namespace
}  // namespace refit::trainer_test
