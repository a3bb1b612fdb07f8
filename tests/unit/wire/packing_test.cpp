// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The promises of pack() checked on many random parameter sets, by counting elements.
#include "wire/packing.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "wire/piece.hpp"

namespace refit::wire {
namespace {

PlannedParameter raw(const std::string& name, std::int64_t rows, std::int64_t cols,
                     const std::vector<core::RowRange>& ranges, const std::string& unit = "") {
    PlannedParameter parameter;
    parameter.meta.name = name;
    parameter.meta.shape = {rows, cols};
    parameter.meta.row_cuts = {0, rows};
    parameter.meta.col_cuts = {0, cols};
    for (const core::RowRange& range : ranges)
        parameter.regions_of_trainer.push_back({range.begin, 0, range.count(), cols});
    parameter.unit = unit;
    return parameter;
}

std::vector<core::RowRange> random_ranges(std::mt19937& random, std::int64_t rows, int trainers) {
    std::vector<std::int64_t> borders = {0, rows};
    for (int t = 1; t < trainers; ++t) {
        borders.push_back(static_cast<std::int64_t>(random() % static_cast<unsigned>(rows + 1)));
    }
    std::sort(borders.begin(), borders.end());
    std::vector<core::RowRange> ranges;
    for (int t = 0; t < trainers; ++t) {
        const auto i = static_cast<std::size_t>(t);
        ranges.push_back({borders[i], borders[i + 1]});
    }
    return ranges;
}

std::vector<PlannedParameter> random_parameters(std::mt19937& random, int trainers) {
    std::vector<PlannedParameter> parameters;
    const std::size_t count = 1 + random() % 12;
    int unit = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const auto rows = static_cast<std::int64_t>(1 + random() % 300);
        const auto cols = static_cast<std::int64_t>(1 + random() % 40);
        // Runs of equal units, sometimes none.
        if (random() % 3 == 0) ++unit;
        const std::string name = random() % 3 == 0 ? "" : "unit" + std::to_string(unit);
        PlannedParameter parameter =
            raw("p" + std::to_string(i), rows, cols, random_ranges(random, rows, trainers), name);
        // Every third one is cut by columns instead, for some trainers with nothing.
        if (random() % 3 == 0) {
            const auto ranges = random_ranges(random, cols, trainers);
            for (std::size_t t = 0; t < ranges.size(); ++t)
                parameter.regions_of_trainer[t] = {0, ranges[t].begin, rows, ranges[t].count()};
        }
        const core::DType dtypes[] = {core::DType::bf16, core::DType::f32, core::DType::f8_e4m3};
        parameter.meta.dtype = dtypes[random() % 3];
        if (rows > 2) parameter.meta.row_cuts = {0, rows / 2, rows};
        if (cols > 3) parameter.meta.col_cuts = {0, cols / 3, cols};
        parameters.push_back(parameter);
    }
    return parameters;
}

TEST(Pack, KeepsItsPromisesForRandomParameters) {
    std::mt19937 random(2026);
    for (int turn = 0; turn < 400; ++turn) {
        const int trainers = 1 + static_cast<int>(random() % 4);
        const std::uint64_t bucket_bytes = 64 + random() % 40000;
        const auto parameters = random_parameters(random, trainers);
        const RefitManifest manifest = pack(parameters, bucket_bytes, trainers);
        SCOPED_TRACE("turn " + std::to_string(turn));
        ASSERT_EQ(manifest.parameters.size(), parameters.size());

        // How often each element of each parameter was sent, and in which buckets each unit
        // travels.
        std::vector<std::vector<int>> sent;
        for (const PlannedParameter& p : parameters) {
            sent.emplace_back(static_cast<std::size_t>(p.meta.rows() * p.meta.cols()), 0);
        }
        std::vector<std::set<std::size_t>> buckets_of(parameters.size());
        std::uint32_t last_parameter = 0;
        for (std::size_t b = 0; b < manifest.buckets.size(); ++b) {
            const BucketPlan& bucket = manifest.buckets[b];
            ASSERT_EQ(bucket.pieces.size(), static_cast<std::size_t>(trainers));
            std::uint64_t bucket_payload = 0;
            std::set<std::string> units;
            std::uint32_t first_in_bucket = ~std::uint32_t{0};
            std::uint32_t last_in_bucket = 0;
            for (std::size_t t = 0; t < bucket.pieces.size(); ++t) {
                const PiecePlan& piece = bucket.pieces[t];
                if (piece.entries.empty()) {
                    EXPECT_EQ(piece.bytes, 0U);
                    EXPECT_EQ(piece.payload_bytes, 0U);
                    continue;
                }
                std::uint64_t cells = 0;
                for (const PieceEntry& entry : piece.entries) {
                    const ParameterMeta& meta = manifest.parameters[entry.parameter];
                    cells += cells_in_region(meta, entry.region(meta)).size();
                }
                std::uint64_t free_from = sizeof(PieceHeader) + cells * sizeof(DigestRecord);
                std::uint64_t payload = 0;
                for (const PieceEntry& entry : piece.entries) {
                    const ParameterMeta& meta = manifest.parameters[entry.parameter];
                    EXPECT_EQ(entry.offset % kParameterAlignment, 0U);
                    EXPECT_GE(entry.offset, free_from) << "entries overlap";
                    free_from = entry.offset + entry.bytes;
                    EXPECT_EQ(entry.bytes,
                              static_cast<std::uint64_t>(entry.rows.count() * entry.cols.count() *
                                                         core::size_bytes(meta.dtype)));
                    payload += entry.bytes;
                    const core::Region& own = parameters[entry.parameter].regions_of_trainer[t];
                    ASSERT_GE(entry.rows.begin, own.row);
                    ASSERT_LE(entry.rows.end, own.row + own.rows);
                    EXPECT_EQ(entry.cols, (core::RowRange{own.col, own.col + own.cols}));
                    for (std::int64_t r = entry.rows.begin; r < entry.rows.end; ++r) {
                        for (std::int64_t c = entry.cols.begin; c < entry.cols.end; ++c)
                            ++sent[entry.parameter][static_cast<std::size_t>(r * meta.cols() + c)];
                    }
                    buckets_of[entry.parameter].insert(b);
                    first_in_bucket = std::min(first_in_bucket, entry.parameter);
                    last_in_bucket = std::max(last_in_bucket, entry.parameter);
                    units.insert(parameters[entry.parameter].unit.empty()
                                     ? meta.name
                                     : parameters[entry.parameter].unit);
                }
                EXPECT_GE(piece.bytes, free_from);
                EXPECT_EQ(piece.payload_bytes, payload);
                bucket_payload += payload;
            }
            EXPECT_GT(bucket_payload, 0U) << "bucket " << b << " carries nothing";
            // More than a bucket holds: only one unit larger than a bucket, or one part of a split
            // tensor, whose rows do not divide.
            if (bucket_payload > bucket_bytes) {
                EXPECT_EQ(units.size(), 1U);
            }
            EXPECT_GE(first_in_bucket, last_parameter) << "buckets do not follow the list";
            last_parameter = last_in_bucket;
        }
        for (std::size_t i = 0; i < parameters.size(); ++i) {
            EXPECT_TRUE(std::all_of(sent[i].begin(), sent[i].end(), [](int n) { return n == 1; }))
                << "an element of " << parameters[i].meta.name << " is not sent exactly once";
            const auto bytes = static_cast<std::uint64_t>(parameters[i].meta.rows() *
                                                          parameters[i].meta.row_bytes());
            if (parameters[i].unit.empty()) {
                EXPECT_TRUE(bytes > bucket_bytes || buckets_of[i].size() == 1);
                continue;
            }
            EXPECT_EQ(buckets_of[i].size(), 1U) << "a unit straddles buckets";
            if (i > 0 && parameters[i - 1].unit == parameters[i].unit) {
                EXPECT_EQ(buckets_of[i], buckets_of[i - 1]) << "a unit straddles buckets";
            }
        }
        // The text between processes must accept what the packer makes.
        EXPECT_EQ(to_json(manifest_from_json(to_json(manifest))), to_json(manifest));
    }
}

TEST(Pack, FillsABucketUntilTheNextUnitDoesNotFit) {
    const std::vector<PlannedParameter> parameters = {
        raw("a", 10, 10, {{0, 10}}), raw("b", 10, 10, {{0, 10}}), raw("c", 10, 10, {{0, 10}})};
    EXPECT_EQ(pack(parameters, 600, 1).buckets.size(), 1U);
    EXPECT_EQ(pack(parameters, 599, 1).buckets.size(), 2U);
    EXPECT_EQ(pack(parameters, 400, 1).buckets.size(), 2U);
    EXPECT_EQ(pack(parameters, 399, 1).buckets.size(), 3U);
}

TEST(Pack, SplitsARawTensorThatIsLargerThanABucket) {
    const RefitManifest manifest =
        pack({raw("embedding", 1000, 16, {{0, 600}, {600, 1000}})}, 8000, 2);
    EXPECT_EQ(manifest.buckets.size(), 4U);  // 32 000 bytes
    for (const BucketPlan& bucket : manifest.buckets) {
        std::uint64_t bytes = 0;
        for (const PiecePlan& piece : bucket.pieces) bytes += piece.payload_bytes;
        EXPECT_EQ(bytes, 8000U);
    }
}

TEST(Pack, GivesAUnitThatIsLargerThanABucketOneOfItsOwn) {
    const RefitManifest manifest =
        pack({raw("a", 10, 10, {{0, 10}}), raw("w", 100, 10, {{0, 100}}, "u"),
              raw("s", 1, 1, {{0, 1}}, "u"), raw("b", 10, 10, {{0, 10}})},
             300, 1);
    ASSERT_EQ(manifest.buckets.size(), 3U);
    EXPECT_EQ(manifest.buckets[1].pieces[0].entries.size(), 2U);
    EXPECT_EQ(manifest.buckets[1].pieces[0].payload_bytes, 2002U);
}

TEST(Pack, MakesNoEmptyBucketsWhenOneRowIsLargerThanABucket) {
    // 3 rows of 2000 bytes in buckets of 100: a row is the least that can travel.
    const RefitManifest manifest = pack({raw("wide", 3, 1000, {{0, 2}, {2, 3}})}, 100, 2);
    for (const BucketPlan& bucket : manifest.buckets) {
        EXPECT_GT(bucket.pieces[0].payload_bytes + bucket.pieces[1].payload_bytes, 0U);
    }
    EXPECT_EQ(manifest.payload_bytes(), 6000U);
}

TEST(Pack, MakesNothingOfNothing) {
    EXPECT_TRUE(pack({}, 100, 3).buckets.empty());
}

}  // namespace
}  // namespace refit::wire
