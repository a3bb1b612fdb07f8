// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/decode.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#ifdef REFIT_HAVE_CUDA_FP8
#include <cuda_fp8.h>
#endif

namespace refit::checks {
namespace {

struct Line {
    std::string left;
    std::string right;
};

std::vector<Line> golden(const std::string& name) {
    std::ifstream file(std::string(REFIT_SOURCE_DIR) + "/tests/golden/checks/" + name);
    std::vector<Line> lines;
    for (std::string text; std::getline(file, text);) {
        if (text.empty() || text.front() == '#') continue;
        std::istringstream words(text);
        Line line;
        words >> line.left >> line.right;
        lines.push_back(line);
    }
    return lines;
}

/// All finite E4M3FN values that are not negative, in units of 2^-9, from the format's definition
/// in integers: 0..7 subnormal, then 8..15 times 2^0..2^14 (of the last binade only seven).
std::vector<std::int64_t> magnitudes() {
    std::vector<std::int64_t> values;
    for (std::int64_t m = 0; m < 8; ++m) values.push_back(m);
    for (int e = 0; e < 15; ++e) {
        for (std::int64_t m = 8; m < 16; ++m) {
            if (e == 14 && m == 15) break;
            values.push_back(m << e);
        }
    }
    return values;
}

TEST(DecodeE4m3, EqualsTheDefinitionInIntegersForAllCodes) {
    const std::vector<std::int64_t> values = magnitudes();
    ASSERT_EQ(values.size(), 127U);
    for (unsigned code = 0; code < 127; ++code) {
        const double value = static_cast<double>(values[code]) / 512.0;
        EXPECT_EQ(decode_e4m3(static_cast<std::uint8_t>(code)), value);
        EXPECT_EQ(decode_e4m3(static_cast<std::uint8_t>(code | 0x80U)), -value);
    }
    EXPECT_TRUE(std::isnan(decode_e4m3(0x7f)));
    EXPECT_TRUE(std::isnan(decode_e4m3(0xff)));
    EXPECT_TRUE(std::signbit(decode_e4m3(0x80)));
}

TEST(DecodeE4m3, EqualsMlDtypesForAllCodes) {
    const std::vector<Line> lines = golden("e4m3fn_values.txt");
    ASSERT_EQ(lines.size(), 256U);
    for (const Line& line : lines) {
        const auto code = static_cast<std::uint8_t>(std::stoul(line.left, nullptr, 16));
        const double value = std::stod(line.right);
        if (std::isnan(value)) {
            EXPECT_TRUE(std::isnan(decode_e4m3(code))) << line.left;
        } else {
            EXPECT_EQ(decode_e4m3(code), value) << line.left;
        }
    }
}

TEST(NearestE4m3, RoundsEveryMidpointToTheEvenNeighbour) {
    const std::vector<std::int64_t> values = magnitudes();
    for (std::size_t i = 0; i + 1 < values.size(); ++i) {
        const double low = static_cast<double>(values[i]) / 512.0;
        const double high = static_cast<double>(values[i + 1]) / 512.0;
        const double middle = static_cast<double>(values[i] + values[i + 1]) / 1024.0;
        // The code of values[i] is i: its last mantissa bit is the last bit of i.
        const double even = i % 2 == 0 ? low : high;
        for (const double sign : {1.0, -1.0}) {
            EXPECT_EQ(nearest_e4m3(sign * middle), sign * even);
            EXPECT_EQ(nearest_e4m3(sign * std::nextafter(middle, 0.0)), sign * low);
            EXPECT_EQ(nearest_e4m3(sign * std::nextafter(middle, 1e9)), sign * high);
            EXPECT_EQ(nearest_e4m3(sign * low), sign * low);
        }
    }
}

TEST(NearestE4m3, SaturatesAt448AndKeepsTheSignOfZero) {
    for (const double x : {448.0, 449.0, 463.9, 464.0, 465.0, 1e30, 1e300}) {
        EXPECT_EQ(nearest_e4m3(x), 448.0);
        EXPECT_EQ(nearest_e4m3(-x), -448.0);
    }
    EXPECT_FALSE(std::signbit(nearest_e4m3(0.0)));
    EXPECT_TRUE(std::signbit(nearest_e4m3(-0.0)));
    EXPECT_TRUE(std::signbit(nearest_e4m3(-1e-300)));
    EXPECT_EQ(nearest_e4m3(-1e-300), 0.0);
}

TEST(NearestE4m3, EqualsMlDtypesAtAndAroundMidpoints) {
    const std::vector<Line> lines = golden("e4m3fn_rounding.txt");
    ASSERT_EQ(lines.size(), 3U * 252U);
    for (const Line& line : lines) {
        EXPECT_EQ(nearest_e4m3(std::stod(line.left)), std::stod(line.right)) << line.left;
    }
}

TEST(NearestE4m3, EqualsTheCudaHeaderForEveryFiniteBf16) {
#ifdef REFIT_HAVE_CUDA_FP8
    for (unsigned bits = 0; bits < 0x10000U; ++bits) {
        const double x = decode_bf16(static_cast<std::uint16_t>(bits));
        if (!std::isfinite(x)) continue;
        const auto code = static_cast<std::uint8_t>(
            __nv_cvt_float_to_fp8(static_cast<float>(x), __NV_SATFINITE, __NV_E4M3));
        ASSERT_EQ(std::bit_cast<std::uint64_t>(nearest_e4m3(x)),
                  std::bit_cast<std::uint64_t>(decode_e4m3(code)))
            << x;
    }
#else
    GTEST_SKIP() << "cuda_fp8.h was not found when this test was configured";
#endif
}

TEST(NearestBf16, KeepsEightBitsAndRoundsToTheNearer) {
    // 1 + k / 128 are the neighbours in [1, 2).
    EXPECT_EQ(nearest_bf16(1.0), 1.0);
    EXPECT_EQ(nearest_bf16(1.0 + 1.0 / 128), 1.0 + 1.0 / 128);
    EXPECT_EQ(nearest_bf16(1.0 + 0.4 / 128), 1.0);
    EXPECT_EQ(nearest_bf16(1.0 + 0.6 / 128), 1.0 + 1.0 / 128);
    EXPECT_EQ(nearest_bf16(-447.9), -448.0);
    EXPECT_EQ(nearest_bf16(0.0), 0.0);
    // 300.7 lies between 300 and 302.
    EXPECT_EQ(nearest_bf16(300.7), 300.0);
}

TEST(DecodeE8m0, IsAPowerOfTwoWithBias127) {
    EXPECT_EQ(decode_e8m0(0), 0x1p-127);
    EXPECT_EQ(decode_e8m0(127), 1.0);
    EXPECT_EQ(decode_e8m0(254), 0x1p+127);
    EXPECT_TRUE(std::isnan(decode_e8m0(255)));
}

TEST(DecodeBf16, IsTheUpperHalfOfAFloat) {
    EXPECT_EQ(decode_bf16(0x3f80), 1.0);
    EXPECT_EQ(decode_bf16(0xc060), -3.5);
    EXPECT_EQ(decode_bf16(0x0001), 0x1p-133);
    EXPECT_EQ(decode_bf16(0x7f7f), 0x1.fep+127);
    EXPECT_TRUE(std::isinf(decode_bf16(0x7f80)));
    EXPECT_TRUE(std::isnan(decode_bf16(0xffff)));
}

}  // namespace
}  // namespace refit::checks
