// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/layer_output.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "checks/decode.hpp"
#include "checks/source_tiles.hpp"
#include "weights/hash.hpp"

namespace refit::checks {

namespace {

constexpr double kOutlierTimes = 20.0;
constexpr std::uint64_t kOutlierChannels = 256;  // one out of these
constexpr std::int64_t kTileRows = 128;
constexpr std::int64_t kChunk = 128;

/// sums[token] += weight * activation over `count` columns. The tokens are the lanes, so that no
/// sum changes its order when the loop is turned into vector instructions.
void accumulate(const double* weights, const double* activations, std::int64_t count,
                std::array<double, kOutputTokens>& sums) {
    std::array<double, kOutputTokens> local = sums;
    for (std::int64_t i = 0; i < count; ++i) {
        const double weight = weights[i];
        const double* column = activations + i * kOutputTokens;
        for (std::size_t t = 0; t < local.size(); ++t) local[t] += weight * column[t];
    }
    sums = local;
}

}  // namespace

std::uint64_t activation_key(std::uint64_t seed, const std::string& tensor) {
    return weights::hash_name(seed, tensor);
}

double activation(std::uint64_t key, std::int64_t token, std::int64_t channel) {
    const std::uint64_t column = weights::mix(key, static_cast<std::uint64_t>(channel));
    std::int64_t sum = 0;
    for (std::uint64_t draw = 0; draw < 3; ++draw) {
        std::uint64_t bits = weights::mix(column, 3 * static_cast<std::uint64_t>(token) + draw);
        for (int part = 0; part < 4; ++part, bits >>= 16) {
            sum += static_cast<std::int64_t>(bits & 0xffffU);
        }
    }
    // Twelve numbers of mean 65535 / 2; 65536 of them are the unit.
    const double normal = static_cast<double>(2 * sum - 12 * 65535) / 131072.0;
    return nearest_bf16(column % kOutlierChannels == 0 ? kOutlierTimes * normal : normal);
}

void quantize_activations(const double* values, double* quantized, std::int64_t count,
                          std::int64_t stride, bool power_of_two) {
    double amax = 0.0;
    for (std::int64_t i = 0; i < count; ++i) amax = std::max(amax, std::abs(values[i * stride]));
    SchemeFacts plain;
    plain.power_of_two_scales = power_of_two;
    const double scale = own_scale(amax, plain);
    for (std::int64_t i = 0; i < count; ++i) {
        quantized[i * stride] =
            scale == 0.0 ? 0.0 : nearest_e4m3(values[i * stride] / scale) * scale;
    }
}

std::int64_t output_row_step(std::int64_t rows) {
    return std::clamp<std::int64_t>(rows / kOutputRows, 1, kTileRows);
}

LayerOutput::LayerOutput(const std::string& tensor, std::int64_t rows, const core::Region& part,
                         const SchemeFacts& facts)
    : first_col_(part.col), step_(output_row_step(rows)) {
    const std::uint64_t key = activation_key(facts.activation_seed, tensor);
    first_ = static_cast<std::int64_t>(key % static_cast<std::uint64_t>(step_));
    plain_.resize(static_cast<std::size_t>(part.cols * kOutputTokens));
    quantized_.resize(plain_.size());
    for (std::int64_t c = 0; c < part.cols; ++c) {
        for (std::int64_t t = 0; t < kOutputTokens; ++t) {
            plain_[static_cast<std::size_t>(c * kOutputTokens + t)] =
                activation(key, t, part.col + c);
        }
    }
    // Weights scaled along rows in groups (OCP MX) come with activations scaled the same way.
    const bool microscaling = facts.tile_rows == 1 && facts.tile_cols > 0;
    const std::int64_t group = facts.tile_cols > 0 ? facts.tile_cols : part.cols;
    for (std::int64_t c = 0; c < part.cols; c += group) {
        const std::int64_t count = std::min(group, part.cols - c);
        for (std::int64_t t = 0; t < kOutputTokens; ++t) {
            const std::int64_t at = c * kOutputTokens + t;
            quantize_activations(plain_.data() + at, quantized_.data() + at, count, kOutputTokens,
                                 microscaling);
        }
    }
}

void LayerOutput::add(const Segment& segment, std::int64_t col) {
    const std::array<double, 256>& values = e4m3_values();
    std::array<double, kChunk> truth;
    std::array<double, kChunk> loaded;
    std::array<double, kChunk> expected;
    for (std::int64_t begin = 0; begin < segment.count; begin += kChunk) {
        const std::int64_t count = std::min(kChunk, segment.count - begin);
        for (std::int64_t i = 0; i < count; ++i) {
            const auto slot = static_cast<std::size_t>(i);
            truth[slot] = loaded[slot] = expected[slot] = 0.0;
            const std::uint16_t bits = segment.source[begin + i];
            if (nonfinite_bf16(bits)) continue;
            const double x = decode_bf16(bits);
            truth[slot] = x;
            loaded[slot] = values[segment.codes[begin + i]] * segment.loaded_scale;
            if (segment.own_scale == 0.0) continue;
            double quotient = x / (segment.divisor > 0.0 ? segment.divisor : segment.own_scale);
            if (segment.round_quotient_to_bf16) quotient = nearest_bf16(quotient);
            expected[slot] = nearest_e4m3(quotient) * segment.own_scale;
        }
        const auto at = static_cast<std::size_t>((col + begin - first_col_) * kOutputTokens);
        accumulate(truth.data(), plain_.data() + at, count, truth_);
        accumulate(loaded.data(), quantized_.data() + at, count, loaded_);
        accumulate(expected.data(), quantized_.data() + at, count, expected_);
    }
}

void LayerOutput::finish_row(OutputSums& sums) {
    for (std::size_t t = 0; t < truth_.size(); ++t) {
        const double error = loaded_[t] - truth_[t];
        const double expected_error = expected_[t] - truth_[t];
        sums.y2 += truth_[t] * truth_[t];
        sums.error2 += error * error;
        sums.expected_error2 += expected_error * expected_error;
    }
    sums.outputs += kOutputTokens;
    truth_.fill(0.0);
    loaded_.fill(0.0);
    expected_.fill(0.0);
}

double output_snr_db(const OutputSums& sums) {
    return sums.outputs == 0 ? std::numeric_limits<double>::quiet_NaN()
                             : sqnr_db(sums.y2, sums.error2);
}

double expected_output_snr_db(const OutputSums& sums) {
    return sums.outputs == 0 ? std::numeric_limits<double>::quiet_NaN()
                             : sqnr_db(sums.y2, sums.expected_error2);
}

double output_tolerance_db(std::int64_t outputs) {
    return 0.05 + 10.4 / std::sqrt(static_cast<double>(std::max<std::int64_t>(1, outputs)));
}

void append_output_finding(const TensorAudit& tensor, core::Findings& findings) {
    const OutputSums& sums = tensor.output;
    if (sums.outputs == 0) return;
    // The scale is an F32 number: a few roundings of 2^-24 move every output.
    constexpr double kScaleRounding = 1.0 / (1 << 22);
    const double apart = std::abs(std::sqrt(sums.error2) - std::sqrt(sums.expected_error2));
    if (apart <= kScaleRounding * std::sqrt(sums.y2)) return;
    const double measured = output_snr_db(sums);
    const double expected = expected_output_snr_db(sums);
    const double tolerance = output_tolerance_db(sums.outputs);
    // Written so that a NaN is a finding.
    if (std::abs(measured - expected) <= tolerance) return;
    core::Finding finding;
    finding.check = "layer_output";
    finding.tensor = tensor.tensor;
    finding.measured = fmt::format("{:.3f} dB", measured);
    finding.limit = fmt::format("{:.3f} dB within {:.3f} dB", expected, tolerance);
    finding.remedy =
        "compare the scale that each tile was quantized with and the one that the engine applies "
        "to it, and whether the rows and columns are those of this tensor";
    finding.message = fmt::format(
        "{}: y = x * W^T with the loaded weights is not as near to the source's as quantized "
        "weights and activations bring it ({} outputs of {} tokens): found {}, expected {}; {}.",
        tensor.tensor, sums.outputs, kOutputTokens, finding.measured, finding.limit,
        finding.remedy);
    findings.push_back(std::move(finding));
}

}  // namespace refit::checks
