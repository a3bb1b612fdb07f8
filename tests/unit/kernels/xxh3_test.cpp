// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The digest in parts against the xxHash library, and F16 against the processor's own conversion.
#include "kernels/numerics/xxh3.hpp"

#include <gtest/gtest.h>
#include <xxhash.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/digest_program.hpp"
#include "kernels/numerics/float16.hpp"

namespace refit::kernels {
namespace {

std::vector<std::uint8_t> random_bytes(std::size_t count, std::uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<std::uint8_t> bytes(count);
    for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random() >> 13);
    return bytes;
}

/// All threads of both kernels, one after the other.
std::vector<numerics::Xxh128> played(std::vector<cuda::DigestJob> jobs) {
    const auto count = static_cast<std::int64_t>(jobs.size());
    std::int64_t blocks = 0;
    for (cuda::DigestJob& job : jobs) {
        job.first_block = blocks;
        blocks += numerics::xxh3_blocks(job.length());
    }
    std::vector<std::uint64_t> sums(static_cast<std::size_t>(blocks * numerics::kXxh3Lanes));
    for (std::size_t i = 0; i < sums.size(); ++i) {
        const auto thread = static_cast<std::int64_t>(i);
        sums[i] = cuda::digest_block_lane(jobs.data(), count, thread / numerics::kXxh3Lanes,
                                          thread % numerics::kXxh3Lanes, numerics::kXxh3Secret);
    }
    std::vector<numerics::Xxh128> results;
    for (const cuda::DigestJob& job : jobs) {
        std::uint64_t lanes[numerics::kXxh3Lanes] = {};
        for (std::int64_t lane = 0;
             lane < numerics::kXxh3Lanes && job.length() > numerics::kXxh3ShortBytes; ++lane) {
            lanes[lane] = cuda::digest_lane(job, sums.data(), lane, numerics::kXxh3Secret);
        }
        results.push_back(cuda::digest_of_job(job, lanes, numerics::kXxh3Secret));
    }
    return results;
}

::testing::AssertionResult equals(const numerics::Xxh128& found, const XXH128_hash_t& expected) {
    if (found.low == expected.low64 && found.high == expected.high64)
        return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << "the digest is another than the library's";
}

TEST(Xxh3InParts, EqualsTheLibraryForEveryLengthAroundItsBordersAndAnyAlignment) {
    const std::vector<std::uint8_t> bytes = random_bytes(5 * 1024 + 64, 1);
    std::vector<cuda::DigestJob> jobs;
    std::vector<XXH128_hash_t> expected;
    for (std::int64_t length = 0; length <= 5 * 1024; length += length < 2200 ? 1 : 7) {
        const std::int64_t offset = length % 9;
        jobs.push_back({bytes.data() + offset, length, 1, length, 0});
        expected.push_back(XXH3_128bits(bytes.data() + offset, static_cast<std::size_t>(length)));
    }
    const std::vector<numerics::Xxh128> found = played(jobs);
    for (std::size_t i = 0; i < jobs.size(); ++i)
        ASSERT_TRUE(equals(found[i], expected[i])) << jobs[i].length() << " bytes";
}

TEST(Xxh3InParts, ReadsRowsOfARectangleAsOneStream) {
    const std::vector<std::uint8_t> bytes = random_bytes(200'000, 2);
    for (const std::int64_t row_bytes : {1, 7, 8, 24, 64, 100, 513, 1024}) {
        for (const std::int64_t rows : {1, 2, 33, 130}) {
            const std::int64_t stride = row_bytes + 16;
            std::vector<std::uint8_t> stream;
            for (std::int64_t r = 0; r < rows; ++r) {
                const std::uint8_t* row = bytes.data() + 8 + r * stride;
                stream.insert(stream.end(), row, row + row_bytes);
            }
            const auto found = played({{bytes.data() + 8, stride, rows, row_bytes, 0}});
            EXPECT_TRUE(equals(found[0], XXH3_128bits(stream.data(), stream.size())))
                << rows << " x " << row_bytes;
        }
    }
}

TEST(Xxh3InParts, SeesOneChangedBitAnywhere) {
    for (const std::int64_t length : {3, 8, 16, 100, 240, 241, 1024, 1025, 3000}) {
        std::vector<std::uint8_t> bytes = random_bytes(static_cast<std::size_t>(length), 3);
        const numerics::Xxh128 clean = played({{bytes.data(), length, 1, length, 0}})[0];
        for (const std::int64_t at : {std::int64_t{0}, length / 2, length - 1}) {
            bytes[static_cast<std::size_t>(at)] ^= 0x10;
            const numerics::Xxh128 struck = played({{bytes.data(), length, 1, length, 0}})[0];
            bytes[static_cast<std::size_t>(at)] ^= 0x10;
            EXPECT_TRUE(clean.low != struck.low && clean.high != struck.high) << length;
        }
    }
}

TEST(Float16, EveryPatternHasTheValueOfItsDefinition) {
    for (std::uint32_t bits = 0; bits < 65536; ++bits) {
        const float found = numerics::f16_to_f32(static_cast<std::uint16_t>(bits));
        const auto exponent = static_cast<int>(bits >> 10 & 31U);
        const auto mantissa = static_cast<double>(bits & 1023U);
        if (exponent == 31 && mantissa > 0.0) {
            ASSERT_TRUE(std::isnan(found)) << bits;
            continue;
        }
        const double magnitude = exponent == 31  ? HUGE_VAL
                                 : exponent == 0 ? std::ldexp(mantissa, -24)
                                                 : std::ldexp(1024.0 + mantissa, exponent - 25);
        const double value = (bits & 0x8000U) != 0 ? -magnitude : magnitude;
        ASSERT_EQ(found, static_cast<float>(value)) << bits;
        ASSERT_EQ(std::signbit(found), std::signbit(value)) << bits;
    }
}

}  // namespace
}  // namespace refit::kernels
