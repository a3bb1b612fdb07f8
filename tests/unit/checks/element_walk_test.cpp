// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/element_walk.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "checks/decode.hpp"

namespace refit::checks {
namespace {

constexpr double kSlack = 1.0 / 65536.0;
constexpr std::uint16_t kOne = 0x3f80;
constexpr std::uint16_t kNan = 0x7fc0;

struct Walked {
    TensorAudit audit;
    std::vector<std::int64_t> beyond;
    std::vector<std::int64_t> nonfinite;
};

Walked walk(const std::vector<std::uint16_t>& source, const std::vector<std::uint8_t>& codes,
            double loaded_scale, double own_scale, bool finite = true) {
    Walked walked;
    walk_segment({.source = source.data(),
                  .codes = codes.data(),
                  .count = static_cast<std::int64_t>(source.size()),
                  .loaded_scale = loaded_scale,
                  .own_scale = own_scale,
                  .source_finite = finite},
                 kSlack, walked.audit, walked.beyond, walked.nonfinite);
    return walked;
}

TEST(LargestMagnitude, EqualsAPlainMaximumAtEveryLengthAndPlace) {
    for (std::size_t count : {1U, 2U, 63U, 64U, 65U, 127U, 128U, 200U, 384U}) {
        for (std::size_t place = 0; place < count; place += 7) {
            std::vector<std::uint16_t> values(count, 0x8003);
            values[place] = 0xc123;
            EXPECT_EQ(largest_magnitude(values.data(), static_cast<std::int64_t>(count)), 0x4123);
            values[place] = 0xff80;
            EXPECT_EQ(largest_magnitude(values.data(), static_cast<std::int64_t>(count)), 0x7f80);
        }
    }
    EXPECT_EQ(largest_magnitude(nullptr, 0), 0);
}

TEST(WalkSegment, AcceptsTheMidpointAndRefusesTheNextBf16) {
    // 1.0625 = 0x3f88 lies between the codes of 1 and 1.125: its error is exactly |x| / 17.
    const Walked legal = walk({0x3f88}, {0x38}, 1.0, 1.0);
    EXPECT_TRUE(legal.beyond.empty());
    EXPECT_DOUBLE_EQ(legal.audit.max_error_over_bound, 1.0);
    // 1.0703125 is nearer to 1.125, so 1 is wrong by one code.
    const Walked wrong = walk({0x3f89}, {0x38}, 1.0, 1.0);
    EXPECT_EQ(wrong.beyond, std::vector<std::int64_t>{0});
    EXPECT_EQ(wrong.audit.mismatched, 1);
}

TEST(WalkSegment, SumsWhatArithmeticOnPaperGives) {
    // Source 1, 1.0625, 0.25 with scale 2: codes of 0.5 (0x30), 0.5 (0x30), 0.125 (0x20).
    const Walked walked = walk({kOne, 0x3f88, 0x3e80}, {0x30, 0x30, 0x20}, 2.0, 2.0);
    EXPECT_EQ(walked.audit.elements, 3);
    EXPECT_EQ(walked.audit.exact, 2);
    EXPECT_DOUBLE_EQ(walked.audit.sum_x2, 1.0 + 1.0625 * 1.0625 + 0.0625);
    EXPECT_DOUBLE_EQ(walked.audit.sum_error2, 0.0625 * 0.0625);
    EXPECT_DOUBLE_EQ(walked.audit.sum_expected_error2, 0.0625 * 0.0625);
    EXPECT_DOUBLE_EQ(walked.audit.sum_x_error, -1.0625 * 0.0625);
    // <x, d> = 1 + 1.0625 + 0.0625, ||d||^2 = 1 + 1 + 0.0625.
    const double dot = 1.0 + 1.0625 + 0.0625;
    EXPECT_DOUBLE_EQ(cosine(walked.audit), dot / std::sqrt(walked.audit.sum_x2 * 2.0625));
    EXPECT_DOUBLE_EQ(relative_error(walked.audit), 0.0625 / std::sqrt(walked.audit.sum_x2));
    EXPECT_TRUE(walked.beyond.empty());
}

TEST(WalkSegment, RefusesAnErrorThreePercentBeyondTheBoundAfterLegalOnes) {
    TensorAudit audit;
    std::vector<std::int64_t> beyond;
    std::vector<std::int64_t> nonfinite;
    const std::uint16_t midpoint = 0x3f88;  // 1.0625
    const std::uint8_t code = 0x38;         // 1
    walk_segment({&midpoint, &code, 1, 1.0, 1.0}, kSlack, audit, beyond, nonfinite);
    EXPECT_TRUE(beyond.empty());
    // Decoded as 0.998 the same element is (1.0625 - 0.998) / 0.0625 = 1.032 times the bound off.
    walk_segment({&midpoint, &code, 1, 0.998, 1.0}, kSlack, audit, beyond, nonfinite);
    EXPECT_EQ(beyond.size(), 1U);
    EXPECT_NEAR(audit.max_error_over_bound, 1.032, 1e-12);
}

TEST(WalkSegment, StillSeesSmallFaultsBehindALargeOne) {
    // The first element is wrong by far; the second is just beyond the bound.
    const Walked walked = walk({kOne, 0x3f89, kOne}, {0x58, 0x38, 0x38}, 1.0, 1.0);
    EXPECT_EQ(walked.beyond, (std::vector<std::int64_t>{0, 1}));
}

TEST(WalkSegment, TreatsNanAsBeyondTheBoundEverywhere) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    EXPECT_EQ(walk({kOne}, {0x7f}, 1.0, 1.0).beyond.size(), 1U);
    EXPECT_EQ(walk({kOne}, {0x38}, nan, 1.0).beyond.size(), 1U);
    EXPECT_EQ(walk({0}, {0x7f}, 1.0, 0.0).beyond.size(), 1U);
    EXPECT_EQ(walk({kOne}, {0x7f}, 1.0, 1.0).audit.max_error_over_bound,
              std::numeric_limits<double>::infinity());
}

TEST(WalkSegment, LeavesNonfiniteSourceOutOfTheSums) {
    const Walked walked =
        walk({kOne, kNan, 0xff80, kOne}, {0x38, 0x7f, 0x38, 0x38}, 1.0, 1.0, false);
    EXPECT_EQ(walked.nonfinite, (std::vector<std::int64_t>{1, 2}));
    EXPECT_EQ(walked.audit.elements, 2);
    EXPECT_EQ(walked.audit.sum_x2, 2.0);
    EXPECT_TRUE(walked.beyond.empty());
}

TEST(WalkSegment, AllowsAnyScaleButOnlyZerosInATileOfZeros) {
    EXPECT_TRUE(walk({0, 0x8000}, {0x00, 0x80}, 1e-12, 0.0).beyond.empty());
    EXPECT_TRUE(walk({0, 0}, {0x00, 0x00}, 1.0, 0.0).beyond.empty());
    EXPECT_EQ(walk({0, 0}, {0x00, 0x01}, 1.0, 0.0).beyond, std::vector<std::int64_t>{1});
}

TEST(WalkSegment, CountsSaturationBeyondRoundingAndFlushedElements) {
    // Scale 1: 448 itself is code 0x7e and no saturation; 450 is (BF16 0x43e1).
    const Walked walked = walk({0x43e0, 0x43e1, 0x0001, 0}, {0x7e, 0x7e, 0x00, 0x00}, 1.0, 1.0);
    EXPECT_EQ(walked.audit.saturated, 1);
    EXPECT_EQ(walked.audit.flushed, 1);
}

}  // namespace
}  // namespace refit::checks
