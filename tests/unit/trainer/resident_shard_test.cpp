// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/resident_shard.hpp"

#include <gtest/gtest.h>

#include <span>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "publication.hpp"

namespace refit::trainer_test {
namespace {

struct Setting {
    std::vector<model::TensorSpec> tensors = {matrix("a.weight", 11, 7), matrix("b.weight", 5, 3),
                                              matrix("c.weight", 6, 5)};
    std::vector<parallel::Placement> placements = {{{{0, 0, 4, 7}, {4, 0, 7, 7}}, {}},
                                                   {{{}, {0, 0, 5, 3}}, {}},
                                                   {{{0, 0, 6, 2}, {0, 2, 6, 3}}, {}}};
    FixedWeights source;
    int calls = 0;

    Setting() {
        source.set("a.weight", random_values(77, 1));
        source.set("b.weight", random_values(15, 2));
        source.set("c.weight", random_values(30, 3));
    }
    [[nodiscard]] trainer::ResidentShard shard(int rank) {
        return {tensors, placements, rank, source, [this] { ++calls; }};
    }
};

TEST(ResidentShard, HoldsItsOwnRowsOfEachTensor) {
    Setting setting;
    const trainer::ResidentShard shard = setting.shard(1);
    EXPECT_EQ(shard.held(0), (core::Region{4, 0, 7, 7}));
    for (std::int64_t r = 4; r < 11; ++r) {
        for (std::int64_t c = 0; c < 7; ++c) {
            EXPECT_EQ(shard.values(0, {r, c, 1, 1}).data[0],
                      setting.source.values("a.weight")[static_cast<std::size_t>(r * 7 + c)]);
        }
    }
    EXPECT_EQ(shard.values(1, {4, 2, 1, 1}).data[0], setting.source.values("b.weight").back());
    EXPECT_GE(setting.calls, 2);
}

TEST(ResidentShard, MayOwnNothingOfATensor) {
    Setting setting;
    const trainer::ResidentShard shard = setting.shard(0);
    EXPECT_TRUE(parallel::is_empty(shard.held(1)));
    const std::vector<wire::Digest> digests = shard.digests([] {});
    ASSERT_EQ(digests.size(), 3U);
    EXPECT_EQ(wire::to_string(digests[1]), "99aa06d3014798d86001c324468d497f");
}

TEST(ResidentShard, DigestsItsOwnRowsAndSeesAWrite) {
    Setting setting;
    trainer::ResidentShard shard = setting.shard(1);
    const std::vector<wire::Digest> before = shard.digests([] {});
    const auto& a = setting.source.values("a.weight");
    EXPECT_EQ(before[0], wire::digest_of(std::as_bytes(std::span(a).subspan(28))));
    *shard.at(0, 10, 6) ^= 1;
    const std::vector<wire::Digest> after = shard.digests([] {});
    EXPECT_NE(after[0], before[0]);
    EXPECT_EQ(after[1], before[1]);
}

TEST(ResidentShard, HoldsColumnsRowByRow) {
    Setting setting;
    const trainer::ResidentShard shard = setting.shard(1);
    const trainer::Values values = shard.values(2, {1, 2, 5, 3});
    EXPECT_EQ(values.stride, 3);
    for (std::int64_t r = 1; r < 6; ++r) {
        for (std::int64_t c = 2; c < 5; ++c) {
            EXPECT_EQ(values.data[(r - 1) * 3 + c - 2],
                      setting.source.values("c.weight")[static_cast<std::size_t>(r * 5 + c)]);
        }
    }
}

TEST(ResidentShard, RefusesWhatAnotherTrainerHolds) {
    Setting setting;
    const trainer::ResidentShard shard = setting.shard(1);
    EXPECT_THROW((void)shard.values(0, {3, 0, 2, 7}), core::ShapeError);
    EXPECT_THROW((void)shard.values(2, {0, 1, 6, 3}), core::ShapeError);
    EXPECT_NO_THROW((void)shard.values(2, {0, 2, 6, 3}));
}

TEST(ResidentShard, ReloadsInPlace) {
    Setting setting;
    trainer::ResidentShard shard = setting.shard(1);
    const std::uint16_t* first = shard.at(0, 4, 0);
    const std::vector<std::uint16_t> next = random_values(77, 9);
    setting.source.set("a.weight", next);
    shard.reload(setting.tensors, setting.source, [] {});
    EXPECT_EQ(shard.at(0, 4, 0), first);
    EXPECT_EQ(first[0], next[28]);
}

}  // namespace
}  // namespace refit::trainer_test
