// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What a layer computes with the loaded weights: y = x * W^T under dynamic quantization of the
// activations, beside the same product of the source.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "checks/audit.hpp"
#include "checks/element_walk.hpp"
#include "core/shape.hpp"

namespace refit::checks {

/// Tokens of the sample: the rows of x.
inline constexpr std::int64_t kOutputTokens = 16;
/// Rows of a tensor (elements of y per token) that are computed at most, unless that would leave a
/// whole tile of 128 rows out.
inline constexpr std::int64_t kOutputRows = 512;

/// Element (token, channel) of the activations that go into a tensor, a BF16 value. Nearly normal
/// with deviation 1 (the sum of twelve uniform numbers, less 6), 20 times that in about one channel
/// out of 256: activations of language models have a few channels of large magnitude, in every
/// token the same (Dettmers et al. 2022, "LLM.int8()"). `key` is that of activation_key. Exact
/// arithmetic but for the last rounding: the same bits on every machine.
[[nodiscard]] double activation(std::uint64_t key, std::int64_t token, std::int64_t channel);
[[nodiscard]] std::uint64_t activation_key(std::uint64_t seed, const std::string& tensor);

/// Rounds `count` activations of one group, `stride` apart, to E4M3 with the group's own scale
/// amax / 448, which is a power of two (rounded up) where `power_of_two` says so; the result is
/// decoded. A group of zeros stays zero.
/// Source: the dynamic activation quantization of the engines' FP8 kernels: per token and group of
/// 128 columns with block scales, per token with channel and tensor scales, per token and group of
/// 32 with an E8M0 scale in OCP Microscaling Formats 1.0.
void quantize_activations(const double* values, double* quantized, std::int64_t count,
                          std::int64_t stride, bool power_of_two);

/// Rows from one computed row of a tensor to the next: 1 up to kOutputRows rows, at most 128.
[[nodiscard]] std::int64_t output_row_step(std::int64_t rows);

/// The outputs that the columns and rows of one part contribute on the rank that holds it: its
/// activations are quantized from its own columns, as every rank of an engine does, and y is the
/// rank's partial product, before any sum over ranks.
class LayerOutput {
 public:
    /// part : global region of the tensor seen as a matrix; rows : of the whole tensor.
    LayerOutput(const std::string& tensor, std::int64_t rows, const core::Region& part,
                const SchemeFacts& facts);

    /// Whether this row of the tensor is one of the sample.
    [[nodiscard]] bool takes(std::int64_t row) const { return row % step_ == first_; }
    /// Adds neighbouring elements of the current row; `col` is global. Elements whose source is not
    /// finite count as zero.
    void add(const Segment& segment, std::int64_t col);
    /// Adds the current row's outputs to `sums` and begins the next row.
    void finish_row(OutputSums& sums);

 private:
    using Tokens = std::array<double, kOutputTokens>;
    /// [columns, tokens] of the part.
    std::vector<double> plain_;
    std::vector<double> quantized_;
    std::int64_t first_col_ = 0;
    std::int64_t step_ = 1;
    std::int64_t first_ = 0;
    Tokens truth_{};
    Tokens loaded_{};
    Tokens expected_{};
};

/// Signal-to-noise ratio of y in dB, and what an independent quantization of the same weights and
/// activations gives. NaN where nothing was computed.
[[nodiscard]] double output_snr_db(const OutputSums& sums);
[[nodiscard]] double expected_output_snr_db(const OutputSums& sums);

/// How far the two may lie apart, in dB: 0.05 as for the weights alone (sqnr), and 10.4 / sqrt(N)
/// for N outputs, because legal recipes choose other codes where a quotient lies exactly between
/// two: that depends on the last bit of its F32 arithmetic. Weights are BF16, so that this concerns
/// up to 1/48 of a tensor's elements (amax = 1.3125 * 2^n: every third quotient has 8 bits, and one
/// out of 16 of those is a tie). The other code has the opposite error, which changes the vector of
/// errors by r = sqrt(4 / 48) < 0.3 of itself, and the power of the outputs' error by
/// 2 r g / sqrt(N), g standard normal: 10 / ln(10) * 2 * 0.3 * 4 / sqrt(N) dB at four deviations. A
/// scale that is stored in BF16 moves them less: by up to 2^-8 of a weight where rounding to E4M3
/// moves it by 2.65 %, r = 0.05.
[[nodiscard]] double output_tolerance_db(std::int64_t outputs);

/// A finding where the measured ratio is not the expected one: too good fails too.
void append_output_finding(const TensorAudit& tensor, core::Findings& findings);

}  // namespace refit::checks
