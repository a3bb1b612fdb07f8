// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Work on memory of the device: digests against the wire's own, types, verdicts, and what is late.
#include "kernels/cuda/device_queue.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cuda/cuda_backend.hpp"
#include "wire/checksum.hpp"

namespace refit::kernels::cuda {
namespace {

using Purpose = DeviceQueue::Purpose;

class Queues : public ::testing::Test {
 protected:
    void SetUp() override {
        if (!cuda_row().viable) GTEST_SKIP() << cuda_row().reason;
        queue_ = make_device_queue();
    }
    template <class Element>
    std::unique_ptr<DeviceBlock> uploaded(const std::vector<Element>& values) {
        auto block = queue_->allocate(values.size() * sizeof(Element));
        queue_->upload(block->data(), values.data(), values.size() * sizeof(Element),
                       Purpose::weights);
        return block;
    }
    template <class Element>
    std::vector<Element> fetched(const DeviceBlock& block, std::size_t count) {
        std::vector<Element> values(count);
        queue_->download(values.data(), block.data(), count * sizeof(Element), Purpose::weights);
        return values;
    }
    static std::uint8_t* bytes(const DeviceBlock& block) {
        return reinterpret_cast<std::uint8_t*>(block.data());
    }

    std::unique_ptr<DeviceQueue> queue_;
};

std::vector<std::byte> random_bytes(std::size_t count) {
    std::mt19937 random(11);
    std::vector<std::byte> values(count);
    for (std::byte& value : values) value = static_cast<std::byte>(random() >> 9);
    return values;
}

TEST_F(Queues, DigestsOfRectanglesAreTheWiresOwn) {
    const std::vector<std::byte> values = random_bytes(std::size_t{1} << 20);
    const auto block = uploaded(values);
    std::vector<DigestJob> jobs;
    std::vector<wire::Digest> expected;
    const auto add = [&](std::int64_t at, std::int64_t rows, std::int64_t row_bytes,
                         std::int64_t stride) {
        jobs.push_back({bytes(*block) + at, stride, rows, row_bytes, 0});
        std::vector<std::byte> stream;
        for (std::int64_t r = 0; r < rows; ++r) {
            const auto first = values.begin() + at + r * stride;
            stream.insert(stream.end(), first, first + row_bytes);
        }
        expected.push_back(wire::digest_of(stream));
    };
    add(0, 1, 1 << 20, 1 << 20);
    add(64, 0, 100, 100);
    add(192, 128, 128, 1024);
    add(7, 1, 5, 5);
    add(3, 33, 17, 40);
    add(65, 200, 4096, 4096);
    std::vector<numerics::Xxh128> first(jobs.size());
    std::vector<numerics::Xxh128> second(1);
    queue_->digest(std::span(jobs).last(1), second.data());
    // A second call before any wait: its scratch memory is larger than the first one's.
    queue_->digest(jobs, first.data());
    queue_->wait();
    for (std::size_t i = 0; i < jobs.size(); ++i)
        EXPECT_EQ((wire::Digest{first[i].low, first[i].high}), expected[i]) << i;
    EXPECT_EQ((wire::Digest{second[0].low, second[0].high}), expected.back());
    // One changed byte.
    const std::byte other = values[1000] ^ std::byte{1};
    queue_->upload(block->data() + 1000, &other, 1, Purpose::control);
    queue_->digest(jobs, first.data());
    queue_->wait();
    EXPECT_FALSE((wire::Digest{first[0].low, first[0].high}) == expected[0]);
}

TEST_F(Queues, ScalesOfAnyTypeThatCannotBeUsedAreCountedAndTheFirstIsNamed) {
    constexpr float kInf = std::numeric_limits<float>::infinity();
    const std::vector<float> wide = {1.0F, 0.5F,   99.0F, 2.0F, -1.0F, 99.0F,
                                     kInf, 1e-44F, 99.0F, 0.0F, NAN,   99.0F};
    const auto f32 = uploaded(wide);
    const std::vector<std::uint16_t> halves = {0x3f80, 0x7f80, 0x3f80, 0xbf80};
    const auto bf16 = uploaded(halves);
    const std::vector<std::uint8_t> exponents = {0, 254, 255, 127};
    const auto e8m0 = uploaded(exponents);
    std::vector<ValueRectangle> looked(4);
    looked[0] = {bytes(*f32), 12, ValueType::f32, nullptr, 0, ValueType::f32, 4, 2, 0};
    looked[1] = {bytes(*bf16), 8, ValueType::bf16, nullptr, 0, ValueType::f32, 1, 4, 0};
    looked[2] = {bytes(*e8m0), 4, ValueType::e8m0, nullptr, 0, ValueType::f32, 1, 4, 0};
    looked[3] = {bytes(*f32), 8, ValueType::f32, nullptr, 0, ValueType::f32, 1, 2, 0};
    std::vector<UnusableScales> found(looked.size());
    queue_->look_at_scales(looked, found.data());
    queue_->wait();
    // -1, Inf, 0 and NaN; the subnormal can be used.
    EXPECT_EQ(found[0].count, 4U);
    EXPECT_EQ(found[0].first, 3U);
    EXPECT_EQ(found[1].count, 2U);
    EXPECT_EQ(found[1].first, 1U);
    EXPECT_EQ(found[2].count, 1U);
    EXPECT_EQ(found[2].first, 2U);
    EXPECT_EQ(found[3].count, 0U);
}

TEST_F(Queues, ValuesChangeTheirTypeExactlyOrToTheNearest) {
    const auto bf16 = uploaded(std::vector<std::uint16_t>{0x3f80, 0xc049, 0x0001});
    const auto f16 = uploaded(std::vector<std::uint16_t>{0x3c00, 0x0001, 0xfbff});
    const auto e8m0 = uploaded(std::vector<std::uint8_t>{127, 0, 254});
    const auto f32 = uploaded(std::vector<float>{1.0F, 1.00390625F, 1.01171875F});
    const auto out = queue_->allocate(64);
    const auto at = [&](int i) { return bytes(*out) + 12 * i; };
    const std::vector<ValueRectangle> list = {
        {bytes(*bf16), 6, ValueType::bf16, at(0), 12, ValueType::f32, 1, 3, 0},
        {bytes(*f16), 6, ValueType::f16, at(1), 12, ValueType::f32, 1, 3, 0},
        {bytes(*e8m0), 3, ValueType::e8m0, at(2), 12, ValueType::f32, 1, 3, 0},
        {bytes(*f32), 12, ValueType::f32, at(3), 6, ValueType::bf16, 1, 3, 0}};
    queue_->convert(list);
    queue_->wait();
    const std::vector<float> values = fetched<float>(*out, 9);
    EXPECT_EQ(values, (std::vector<float>{1.0F, -3.140625F, std::bit_cast<float>(0x00010000U), 1.0F,
                                          std::ldexp(1.0F, -24), -65504.0F, 1.0F,
                                          std::ldexp(1.0F, -127), std::ldexp(1.0F, 127)}));
    // Half a step above 1 goes down to the even one, half a step below 1 + 2^-6 up to it.
    const std::vector<std::uint16_t> narrow = fetched<std::uint16_t>(*out, 21);
    EXPECT_EQ(std::vector<std::uint16_t>(narrow.end() - 3, narrow.end()),
              (std::vector<std::uint16_t>{0x3f80, 0x3f80, 0x3f82}));
}

TEST_F(Queues, ListsOfWorkOutliveManyCallsWithoutAWait) {
    constexpr std::int64_t kBytes = 6000;
    const std::vector<std::byte> values = random_bytes(kBytes);
    const auto from = uploaded(values);
    const auto to = queue_->allocate(kBytes);
    // Each call has a list of its own; together they need more than one drawer.
    for (std::int64_t i = 0; i < kBytes; ++i) {
        const PlacedRectangle one{bytes(*from) + i, 1, bytes(*to) + kBytes - 1 - i, 1, 1, 1, 0};
        queue_->place({&one, 1});
    }
    queue_->wait();
    const std::vector<std::byte> found = fetched<std::byte>(*to, kBytes);
    EXPECT_TRUE(std::equal(found.rbegin(), found.rend(), values.begin()));
}

TEST_F(Queues, AResultIsWrittenByTheWaitAndWeightsAreCountedApartFromControl) {
    const DeviceTraffic before = queue_->traffic();
    const auto block = uploaded(std::vector<std::uint16_t>{0x3f80, 0xff80, 0x4000, 0x7fc0});
    const auto* values = reinterpret_cast<const std::uint16_t*>(block->data());
    NonfiniteCounts counts;
    std::uint32_t largest = 5;
    queue_->count_nonfinite(values, 4, &counts);
    queue_->max_abs_bits(values, 1, &largest);
    EXPECT_EQ(counts.nan + counts.inf, 0U);
    EXPECT_EQ(largest, 5U);
    queue_->wait();
    EXPECT_EQ(counts.nan, 1U);
    EXPECT_EQ(counts.inf, 1U);
    EXPECT_EQ(counts.first, 1U);
    EXPECT_EQ(largest, 0x3f800000U);
    EXPECT_EQ(queue_->traffic().weights - before.weights, 8U);
    EXPECT_GT(queue_->traffic().control, before.control);
}

TEST_F(Queues, ReplacesWhatIsNotFiniteAtAnyAddressAndNothingElse) {
    // Every BF16 pattern, behind 0 to 17 bytes.
    constexpr std::size_t kAll = std::size_t{1} << 16;
    for (std::size_t before = 0; before < 18; ++before) {
        std::vector<std::uint8_t> values(before + 2 * kAll + 3, 0xff);
        for (std::size_t i = 0; i < kAll; ++i) {
            values[before + 2 * i] = static_cast<std::uint8_t>(i);
            values[before + 2 * i + 1] = static_cast<std::uint8_t>(i >> 8);
        }
        const auto block = uploaded(values);
        queue_->replace_nonfinite(bytes(*block) + before, static_cast<std::int64_t>(kAll));
        queue_->wait();
        const auto found = fetched<std::uint8_t>(*block, values.size());
        std::size_t wrong = 0;
        for (std::size_t i = 0; i < kAll; ++i) {
            std::size_t expected = i;
            if (i == 0x7f80 || i == 0xff80) {
                expected = i == 0x7f80 ? 0x43e0 : 0xc3e0;  // 448 = 1.75 * 2^8
            } else if ((i & 0x7fff) > 0x7f80) {
                expected = 0;
            }
            const std::size_t bits =
                found[before + 2 * i] | static_cast<std::size_t>(found[before + 2 * i + 1]) << 8;
            wrong += bits == expected ? 0 : 1;
        }
        EXPECT_EQ(wrong, 0U) << before;
        EXPECT_TRUE(std::equal(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(before),
                               values.begin()));
        EXPECT_EQ(std::count(found.end() - 3, found.end(), 0xff), 3);
    }
}

TEST_F(Queues, MarksTheScalesOfTilesThatAreNotFinite) {
    const std::vector<std::uint32_t> amax = {0, 0x7f7fffff, 0x7f800000, 1, 0x7fc00000, 0x43e00000};
    const std::vector<float> scales(amax.size(), 0.5F);
    const auto bits = uploaded(amax);
    const auto block = uploaded(scales);
    queue_->mark_nonfinite(reinterpret_cast<const std::uint32_t*>(bits->data()),
                           reinterpret_cast<float*>(block->data()),
                           static_cast<std::int64_t>(amax.size()));
    queue_->wait();
    const auto found = fetched<std::uint32_t>(*block, amax.size());
    const std::uint32_t half = std::bit_cast<std::uint32_t>(0.5F);
    EXPECT_EQ(found, (std::vector<std::uint32_t>{half, half, 0x7fc00000, half, 0x7fc00000, half}));
}

TEST_F(Queues, DerivesTheRowsOfEveryHeadAsTheyStandAndTransposed) {
    // Heads of 40 + 50 rows, of which tiles of 32 are cut, and 70 columns under blocks of 128 x 64.
    constexpr std::int64_t kHeads = 3;
    constexpr std::int64_t kHeadRows = 90;
    constexpr std::int64_t kCols = 70;
    std::vector<std::uint8_t> codes;
    for (const std::byte one : random_bytes(static_cast<std::size_t>(kHeads * kHeadRows * kCols)))
        codes.push_back(static_cast<std::uint8_t>(one));
    std::vector<float> scales;
    for (int i = 0; i < 6; ++i) scales.push_back(0.37F + 0.11F * static_cast<float>(i));
    // Subnormal results, and one that overflows.
    scales[4] = 1e-38F;
    scales[5] = 3e38F;
    const auto weight = uploaded(codes);
    const auto scale = uploaded(scales);
    for (const bool transposed : {false, true}) {
        DeriveJob job;
        job.weight = bytes(*weight);
        job.scale_inv = reinterpret_cast<const float*>(scale->data());
        job.cols = kCols;
        job.block_rows = 128;
        job.block_cols = 64;
        job.scale_cols = 2;
        job.heads = kHeads;
        job.head_rows = kHeadRows;
        job.first = transposed ? 40 : 0;
        job.count = transposed ? 50 : 40;
        job.transposed = transposed;
        const auto size = static_cast<std::size_t>(kHeads * job.count * kCols);
        const auto out = uploaded(std::vector<std::uint16_t>(size + 1, 0xeeee));
        job.out = reinterpret_cast<std::uint16_t*>(out->data());
        queue_->derive(job);
        queue_->wait();
        const auto found = fetched<std::uint16_t>(*out, size + 1);
        EXPECT_EQ(found.back(), 0xeeee);
        std::size_t wrong = 0;
        for (std::int64_t h = 0; h < kHeads; ++h) {
            for (std::int64_t r = 0; r < job.count; ++r) {
                for (std::int64_t c = 0; c < kCols; ++c) {
                    const std::int64_t row = h * kHeadRows + job.first + r;
                    const int code = codes[static_cast<std::size_t>(row * kCols + c)];
                    const int exponent = code / 8 % 16;
                    const double magnitude =
                        exponent == 0 ? code % 8 / 512.0 : std::ldexp(8 + code % 8, exponent - 10);
                    const float product = static_cast<float>(
                        (code > 127 ? -magnitude : magnitude) *
                        double{scales[static_cast<std::size_t>(row / 128 * 2 + c / 64)]});
                    // Nearest of BF16 by the distance of both neighbours.
                    const auto wide = std::bit_cast<std::uint32_t>(product);
                    std::uint32_t expected = wide >> 16;
                    const std::uint32_t rest = wide & 0xffffU;
                    if (rest > 0x8000U || (rest == 0x8000U && expected % 2 == 1)) ++expected;
                    if (code % 128 == 127) expected = 0x7fc0;
                    const std::int64_t at = transposed ? (h * kCols + c) * job.count + r
                                                       : (h * job.count + r) * kCols + c;
                    wrong += found[static_cast<std::size_t>(at)] == expected ? 0 : 1;
                }
            }
        }
        EXPECT_EQ(wrong, 0U) << transposed;
    }
}

}  // namespace
}  // namespace refit::kernels::cuda
