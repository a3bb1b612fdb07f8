// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The scales of a checkpoint: which weight each belongs to, and what is wrong with their values.
#include <fmt/core.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "checks/scale_range.hpp"
#include "harness/checkpoint_survey.hpp"
#include "harness/value_finding.hpp"

namespace refit::harness {
namespace {

using core::DType;
using core::Finding;
using core::Severity;

constexpr const char* kAnew =
    "quantize it anew: a scale is the largest magnitude under it over 448";
constexpr const char* kFloor =
    "quantize it anew with a floor under the scales; where weights that small are meant, give the "
    "unquantized directory with --reference";
constexpr const char* kLargest = "< 3.39617752e+38 (BF16) when dequantized";

/// One matrix of a weight with its codes.
struct CodesOfMatrix {
    std::span<const std::byte> codes;
    core::Shape shape;  ///< [rows, cols]
};

CodesOfMatrix matrix_of(const weights::CheckpointDirectory::Location& weight, std::int64_t number) {
    CodesOfMatrix matrix{weight.file->bytes(*weight.tensor), weight.tensor->shape};
    if (matrix.shape.size() == 3) matrix.shape.erase(matrix.shape.begin());
    const auto bytes = static_cast<std::size_t>(core::element_count(matrix.shape));
    matrix.codes = matrix.codes.subspan(static_cast<std::size_t>(number) * bytes, bytes);
    return matrix;
}

/// The ranges of all matrices as one, numbers counted through.
checks::ScaleRange range_of(const weights::CheckpointDirectory::Location& weight,
                            const CheckpointSurvey::Scales& scales) {
    checks::ScaleRange sum;
    for (std::int64_t i = 0; i < scales.matrices; ++i) {
        const CodesOfMatrix matrix = matrix_of(weight, i);
        const std::span<const double> values = scales.of_matrix(i);
        const auto before = i * static_cast<std::int64_t>(values.size());
        const checks::ScaleRange one = checks::check_scale_range(
            matrix.codes, matrix.shape, scales.dtype, values, scales.layout);
        if (sum.overflowing == 0 && one.overflowing > 0) {
            sum.first_overflowing = before + one.first_overflowing;
            sum.largest_code = one.largest_code;
        }
        if (sum.subnormal == 0 && one.subnormal > 0) {
            sum.first_subnormal = before + one.first_subnormal;
        }
        sum.overflowing += one.overflowing;
        sum.subnormal += one.subnormal;
    }
    return sum;
}

/// A scale of activations or of the cache, or one that no layout places over its weight.
Finding alone_out_of_range(const weights::StoredTensor& stored, const std::string& of,
                           const checks::ValueCounts& counts) {
    const bool small = counts.first_extreme_value < checks::kSmallestNormal;
    const std::vector<std::int64_t> index = index_in(stored.shape, counts.first_extreme);
    return value_finding(stored.name, index, shown(counts.first_extreme_value),
                         small ? CheckpointSurvey::kSmallestScale : kLargest,
                         std::to_string(counts.extreme) + of +
                             "are beyond what can be meant, the first at " +
                             core::to_string(index) + ": " +
                             (small ? "its reciprocal overflows" : "448 times it is Inf in BF16"),
                         kAnew);
}

}  // namespace

std::optional<CheckpointSurvey::Scales> CheckpointSurvey::scales_of(
    const std::string& weight) const {
    const auto codes = files_.find(weight);
    const auto inverse = files_.find(weight + "_scale_inv");
    const auto plain = files_.find(weight + "_scale");
    if (codes.tensor == nullptr || codes.tensor->dtype != DType::f8_e4m3) return std::nullopt;
    if ((inverse.tensor == nullptr) == (plain.tensor == nullptr)) return std::nullopt;
    const auto at = inverse.tensor != nullptr ? inverse : plain;
    core::Shape matrix = codes.tensor->shape;
    core::Shape one = at.tensor->shape;
    std::int64_t matrices = 1;
    if (matrix.size() == 3) {
        matrices = matrix[0];
        if (one.empty() || one[0] != matrices) return std::nullopt;
        matrix.erase(matrix.begin());
        one.erase(one.begin());
    }
    auto layout = checks::scale_layout(matrix, at.tensor->dtype, one, blocks_);
    if (!layout || core::size_bytes(at.tensor->dtype) == 0) return std::nullopt;
    Scales scales{at.tensor->name,   at.tensor->dtype, at.tensor->shape, matrices, {},
                  std::move(*layout)};
    const std::span<const std::byte> bytes = at.file->bytes(*at.tensor);
    const auto count = static_cast<std::size_t>(core::element_count(at.tensor->shape));
    scales.values.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
        scales.values.push_back(
            checks::value_at(at.tensor->dtype, checks::ValueKind::scale, bytes, i));
    }
    return scales;
}

std::span<const double> CheckpointSurvey::Scales::of_matrix(std::int64_t matrix) const {
    const std::size_t count =
        matrices == 0 ? 0 : values.size() / static_cast<std::size_t>(matrices);
    return std::span(values).subspan(static_cast<std::size_t>(matrix) * count, count);
}

std::string CheckpointSurvey::weight_of(const std::string& scale) const {
    std::string weight = checks::weight_of_scale(scale);
    // A stack of experts has no ".weight" in its name.
    for (const std::string suffix : {"_scale_inv", "_scale"}) {
        if (!weight.empty()) break;
        if (scale.ends_with(suffix)) weight = scale.substr(0, scale.size() - suffix.size());
    }
    const auto at = files_.find(weight);
    return at.tensor != nullptr && at.tensor->dtype == DType::f8_e4m3 ? weight : std::string();
}

/// Scales so large that weights become Inf, or so small that they come out as good as zero. Of the
/// scale of a weight the codes decide; of others (activations, the cache) any value may come.
void CheckpointSurvey::judge_range(const std::string& name, const checks::ValueCounts& counts,
                                   core::Findings& findings) const {
    const weights::StoredTensor& stored = *files_.find(name).tensor;
    const std::string of = " of " + std::to_string(core::element_count(stored.shape)) + " scales ";
    const auto scales = scales_of(weight_of(name));
    if (!scales || scales->name != name) {
        findings.push_back(alone_out_of_range(stored, of, counts));
        return;
    }
    const checks::ScaleRange range = range_of(files_.find(weight_of(name)), *scales);
    const auto value_of = [&](std::int64_t number) {
        return scales->values[static_cast<std::size_t>(number)];
    };
    if (range.overflowing > 0) {
        const std::vector<std::int64_t> index = index_in(stored.shape, range.first_overflowing);
        const double value = value_of(range.first_overflowing);
        findings.push_back(value_finding(
            name, index, shown(value), kLargest,
            std::to_string(range.overflowing) + of + "make weights Inf, the first at " +
                core::to_string(index) +
                fmt::format(" ({:.9g} times the code {:g})", value, range.largest_code),
            kAnew));
    }
    if (range.subnormal > 0) {
        const std::vector<std::int64_t> index = index_in(stored.shape, range.first_subnormal);
        findings.push_back(
            value_finding(name, index, shown(value_of(range.first_subnormal)), kSmallestScale,
                          std::to_string(range.subnormal) + of +
                              "are subnormal over codes that are not zero, the first at " +
                              core::to_string(index) + ": its weights come out as good as zero",
                          kFloor));
    }
}

void CheckpointSurvey::judge_scale(const std::string& name, const checks::ValueCounts& counts,
                                   core::Findings& findings) const {
    const weights::StoredTensor& stored = *files_.find(name).tensor;
    const std::vector<std::int64_t> index = index_in(stored.shape, counts.first_nonpositive);
    Finding finding =
        value_finding(name, index, shown(counts.first_nonpositive_value), "> 0",
                      std::to_string(counts.nonpositive()) + " of " +
                          std::to_string(core::element_count(stored.shape)) +
                          " scales are zero or negative, the first at " + core::to_string(index),
                      "quantize it anew; a block of zeros needs a scale above zero too");
    const std::string weight = weight_of(name);
    const auto scales = weight.empty() ? std::nullopt : scales_of(weight);
    if (counts.negative == 0 && scales && scales->name == name) {
        const auto codes = files_.find(weight);
        bool harmless = true;
        for (std::int64_t i = 0; harmless && i < scales->matrices; ++i) {
            const CodesOfMatrix matrix = matrix_of(codes, i);
            harmless = checks::zero_scales_hold_zeros(matrix.codes, matrix.shape,
                                                      scales->of_matrix(i), scales->layout);
        }
        if (harmless) {
            // Zero times zero is what was meant, but an engine that divides by its scales when it
            // requantizes gets NaN.
            finding.severity = Severity::warning;
            finding.engine_behaviour.clear();
        }
    }
    findings.push_back(std::move(finding));
}

}  // namespace refit::harness
