// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/layer_output.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "checks/decode.hpp"

namespace refit::checks {
namespace {

const std::string kTensor = "model.layers.0.mlp.down_proj.weight";
constexpr std::int64_t kRows = 3;
constexpr std::int64_t kCols = 300;

std::vector<std::vector<std::string>> golden(const std::string& kind) {
    std::ifstream file(std::string(REFIT_SOURCE_DIR) + "/tests/golden/checks/layer_output.txt");
    std::vector<std::vector<std::string>> lines;
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        std::vector<std::string> row;
        for (std::string word; words >> word;) row.push_back(word);
        if (!row.empty() && row.front() == kind) lines.push_back(row);
    }
    EXPECT_FALSE(lines.empty()) << kind;
    return lines;
}

double real(const std::string& text) {
    return std::strtod(text.c_str(), nullptr);
}

/// BF16 bits of a value that BF16 holds exactly.
std::uint16_t bits_of(double value) {
    const auto narrow = static_cast<float>(value);
    return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(narrow) >> 16);
}

double weight(std::int64_t row, std::int64_t col) {
    return static_cast<double>((131 * row + 71 * col) % 251 - 125) / 1024.0;
}

TEST(Activations, AreThoseThatNumpyMakesOutOfTheSameHash) {
    for (const auto& row : golden("activation")) {
        const std::uint64_t key = activation_key(std::stoull(row[1]), row[2]);
        EXPECT_EQ(activation(key, std::stoll(row[3]), std::stoll(row[4])), real(row[5])) << row[4];
    }
}

TEST(Activations, AreNearlyNormalWithOneLoudChannelOutOfAbout256) {
    const std::uint64_t key = activation_key(3, "w");
    double sum = 0.0;
    double sum2 = 0.0;
    std::int64_t quiet = 0;
    std::int64_t loud = 0;
    for (std::int64_t channel = 0; channel < 65536; ++channel) {
        double power = 0.0;
        for (std::int64_t token = 0; token < kOutputTokens; ++token) {
            const double x = activation(key, token, channel);
            EXPECT_EQ(decode_bf16(bits_of(x)), x);
            power += x * x;
        }
        if (power > 16.0 * 25.0) {
            ++loud;
            continue;
        }
        quiet += kOutputTokens;
        sum2 += power;
        for (std::int64_t token = 0; token < kOutputTokens; ++token) {
            sum += activation(key, token, channel);
        }
    }
    // 65536 / 256 = 256 channels, deviation 16; four deviations.
    EXPECT_GT(loud, 192);
    EXPECT_LT(loud, 320);
    const auto count = static_cast<double>(quiet);
    EXPECT_NEAR(sum / count, 0.0, 4.0 / std::sqrt(count));
    EXPECT_NEAR(sum2 / count, 1.0, 4.0 * std::sqrt(2.0 / count));
}

TEST(Activations, AGroupOfZerosStaysZeroAndTheLargestKeepsItsValue) {
    const std::vector<double> zeros(4, 0.0);
    std::vector<double> out(4, 1.0);
    quantize_activations(zeros.data(), out.data(), 4, 1, false);
    EXPECT_EQ(out, zeros);
    // Scale 3.5 / 448 = 2^-7: 1.0625 = 136 * 2^-7 lies between 128 and 144 and goes to the even
    // one; every other element stays between the two that follow with a stride of 2.
    const std::vector<double> values = {-3.5, 9.0, 1.0625, 9.0};
    std::vector<double> quantized = values;
    quantize_activations(values.data(), quantized.data(), 2, 2, false);
    EXPECT_EQ(quantized, (std::vector<double>{-3.5, 9.0, 1.0, 9.0}));
    // 1 / 448 rounded up to a power of two is 2^-8.
    const std::vector<double> one = {1.0, 1.0 / 512.0 * 1.0625};
    std::vector<double> power = one;
    quantize_activations(one.data(), power.data(), 2, 1, true);
    EXPECT_EQ(power[0], 1.0);
    EXPECT_EQ(power[1], 1.0 / 512.0);
}

TEST(LayerOutputRows, AreEveryOneOfASmallTensorAndLeaveNoTileOfALargeOneOut) {
    EXPECT_EQ(output_row_step(1), 1);
    EXPECT_EQ(output_row_step(1023), 1);
    EXPECT_EQ(output_row_step(1024), 2);
    EXPECT_EQ(output_row_step(4096), 8);
    EXPECT_EQ(output_row_step(1 << 20), 128);
    for (const std::int64_t rows : {300, 4096, 100000}) {
        const LayerOutput output("w", rows, {0, 0, rows, 1}, SchemeFacts{});
        for (std::int64_t tile = 0; tile + 128 <= rows; tile += 128) {
            std::int64_t taken = 0;
            for (std::int64_t row = tile; row < tile + 128; ++row) taken += output.takes(row);
            EXPECT_GE(taken, 1) << rows << " " << tile;
        }
    }
}

/// Sums of the part with the golden codes and scale 2^-10, tiles of all rows and 128 columns.
OutputSums sums_of_part(std::int64_t tile_rows, std::int64_t group, std::int64_t first,
                        std::int64_t count) {
    SchemeFacts facts;
    facts.tile_rows = tile_rows;
    facts.tile_cols = group;
    facts.activation_seed = 7;
    LayerOutput output(kTensor, kRows, {0, first, kRows, count}, facts);
    const auto codes = golden("codes");
    OutputSums sums;
    for (std::int64_t r = 0; r < kRows; ++r) {
        EXPECT_TRUE(output.takes(r));
        for (std::int64_t c = first; c < first + count;) {
            const std::int64_t tile = c / 128 * 128;
            const std::int64_t stop = std::min({tile + 128, first + count, kCols});
            double amax = 0.0;
            for (std::int64_t row = 0; row < kRows; ++row) {
                for (std::int64_t col = tile; col < std::min(tile + 128, kCols); ++col) {
                    amax = std::max(amax, std::abs(weight(row, col)));
                }
            }
            std::vector<std::uint16_t> source;
            std::vector<std::uint8_t> loaded;
            for (std::int64_t col = c; col < stop; ++col) {
                source.push_back(bits_of(weight(r, col)));
                const std::string& hex = codes[static_cast<std::size_t>(r)][2];
                loaded.push_back(static_cast<std::uint8_t>(
                    std::stoul(hex.substr(static_cast<std::size_t>(2 * col), 2), nullptr, 16)));
            }
            Segment segment;
            segment.source = source.data();
            segment.codes = loaded.data();
            segment.count = stop - c;
            segment.loaded_scale = 1.0 / 1024.0;
            segment.own_scale = amax / 448.0;
            output.add(segment, c);
            c = stop;
        }
        output.finish_row(sums);
    }
    return sums;
}

TEST(LayerOutput, HasTheSumsThatNumpyAndMlDtypesGive) {
    for (const auto& row : golden("case")) {
        const std::int64_t group = std::stoll(row[1]);
        const std::int64_t tile_rows = row[2] == "1" ? 1 : group;
        const OutputSums sums =
            sums_of_part(tile_rows, group, std::stoll(row[3]), std::stoll(row[4]));
        EXPECT_EQ(sums.outputs, kRows * kOutputTokens);
        EXPECT_NEAR(sums.y2 / real(row[5]), 1.0, 1e-12) << row[1];
        EXPECT_NEAR(sums.error2 / real(row[6]), 1.0, 1e-12) << row[1];
        EXPECT_NEAR(sums.expected_error2 / real(row[7]), 1.0, 1e-12) << row[1];
    }
}

/// Sums of a Gaussian weight whose codes were rounded in blocks of 128 columns.
struct Noise {
    OutputSums sums;
    double weight_error = 0.0;      ///< relative, squared
    double activation_error = 0.0;  ///< the same
};

Noise gaussian_noise(std::int64_t rows, std::int64_t cols) {
    SchemeFacts facts;
    facts.tile_rows = facts.tile_cols = 128;
    std::mt19937 random(5);
    std::normal_distribution<double> normal(0.0, 0.02);
    LayerOutput output("gaussian", rows, {0, 0, rows, cols}, facts);
    Noise noise;
    double weight2 = 0.0;
    const double scale = 0.02 * 4.5 / 448.0;
    for (std::int64_t r = 0; r < rows; ++r) {
        std::vector<std::uint16_t> source;
        std::vector<std::uint8_t> codes;
        for (std::int64_t c = 0; c < cols; ++c) {
            source.push_back(bits_of(normal(random)));
            const double w = decode_bf16(source.back());
            const double rounded = nearest_e4m3(w / scale);
            unsigned code = 0;
            while (decode_e4m3(static_cast<std::uint8_t>(code)) != rounded) ++code;
            codes.push_back(static_cast<std::uint8_t>(code));
            weight2 += w * w;
            noise.weight_error += (rounded * scale - w) * (rounded * scale - w);
        }
        Segment segment;
        segment.source = source.data();
        segment.codes = codes.data();
        segment.count = cols;
        segment.loaded_scale = segment.own_scale = scale;
        output.add(segment, 0);
        output.finish_row(noise.sums);
    }
    noise.weight_error /= weight2;
    double activation2 = 0.0;
    const std::uint64_t key = activation_key(0, "gaussian");
    for (std::int64_t t = 0; t < kOutputTokens; ++t) {
        for (std::int64_t c = 0; c < cols; c += 128) {
            std::vector<double> x;
            for (std::int64_t i = 0; i < 128; ++i) x.push_back(activation(key, t, c + i));
            std::vector<double> q(x.size());
            quantize_activations(x.data(), q.data(), 128, 1, false);
            for (std::size_t i = 0; i < x.size(); ++i) {
                activation2 += x[i] * x[i];
                noise.activation_error += (q[i] - x[i]) * (q[i] - x[i]);
            }
        }
    }
    noise.activation_error /= activation2;
    return noise;
}

TEST(LayerOutput, OfGaussianWeightsHasTheNoiseOfWeightsAndActivationsAdded) {
    const Noise noise = gaussian_noise(256, 512);
    const double predicted = -10.0 * std::log10(noise.weight_error + noise.activation_error);
    // The two errors are independent of each other. Loud channels leave few activations that count,
    // so that their sum scatters: 0.5 dB is four deviations of 16 tokens with 2 loud channels.
    EXPECT_NEAR(output_snr_db(noise.sums), predicted, 0.5);
    // The codes were made with the same scale, so that nothing is left between the two.
    EXPECT_EQ(output_snr_db(noise.sums), expected_output_snr_db(noise.sums));
}

TEST(LayerOutput, ElementsWithoutAFiniteSourceCountAsZero) {
    const std::vector<std::uint16_t> source = {0x3f80, 0x7fc0, 0xff80};
    const std::vector<std::uint8_t> codes = {0x38, 0x7f, 0x7e};
    LayerOutput output("w", 1, {0, 0, 1, 3}, SchemeFacts{});
    Segment segment;
    segment.source = source.data();
    segment.codes = codes.data();
    segment.count = 3;
    segment.loaded_scale = segment.own_scale = 1.0;
    segment.source_finite = false;
    output.add(segment, 0);
    OutputSums sums;
    output.finish_row(sums);
    double x2 = 0.0;
    for (std::int64_t t = 0; t < kOutputTokens; ++t) {
        const double x = activation(activation_key(0, "w"), t, 0);
        x2 += x * x;
    }
    EXPECT_DOUBLE_EQ(sums.y2, x2);
    EXPECT_TRUE(std::isfinite(sums.error2));
}

TEST(OutputFinding, IsGivenForTooMuchAndForTooLittleError) {
    TensorAudit tensor;
    tensor.tensor = "w";
    tensor.quantized = true;
    core::Findings findings;
    append_output_finding(tensor, findings);
    EXPECT_TRUE(findings.empty()) << "nothing was computed";
    tensor.output = {10000, 1000.0, 1.0, 1.0};
    append_output_finding(tensor, findings);
    EXPECT_TRUE(findings.empty());
    // 0.05 + 10.4 / 100 = 0.154 dB.
    EXPECT_DOUBLE_EQ(output_tolerance_db(10000), 0.154);
    for (const double decibels : {0.153, -0.153}) {
        tensor.output.error2 = std::pow(10.0, decibels / 10.0);
        append_output_finding(tensor, findings);
    }
    EXPECT_TRUE(findings.empty());
    for (const double decibels : {0.155, -0.155}) {
        tensor.output.error2 = std::pow(10.0, decibels / 10.0);
        append_output_finding(tensor, findings);
    }
    EXPECT_EQ(findings.size(), 2U);
    tensor.output.error2 = std::numeric_limits<double>::quiet_NaN();
    append_output_finding(tensor, findings);
    tensor.output.error2 = 0.0;
    append_output_finding(tensor, findings);
    ASSERT_EQ(findings.size(), 4U);
    EXPECT_EQ(findings[0].check, "layer_output");
    EXPECT_EQ(findings[2].measured, "nan dB");
    EXPECT_EQ(findings[3].measured, "inf dB");
}

TEST(OutputFinding, IsNotGivenWhereNeitherHasAnError) {
    TensorAudit tensor;
    tensor.output = {16, 0.0, 0.0, 0.0};
    core::Findings findings;
    append_output_finding(tensor, findings);
    EXPECT_TRUE(findings.empty());
    tensor.output.error2 = 1e-30;
    append_output_finding(tensor, findings);
    EXPECT_EQ(findings.size(), 1U);
}

}  // namespace
}  // namespace refit::checks
