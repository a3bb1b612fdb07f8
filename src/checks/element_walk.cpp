// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/element_walk.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "checks/decode.hpp"
#include "checks/element_block.hpp"

namespace refit::checks {

namespace {

constexpr std::int64_t kLanes = 64;

/// A block is looked at again, element by element, only if one of its errors is the worst so far.
constexpr std::int64_t kBlock = 128;
constexpr double kSumError = 1e-6;  ///< see sum_block

/// Legal, and the worst so far? Raises `worst` and adds to `beyond`.
void look_at_errors(const Segment& segment, std::int64_t begin, std::int64_t end, double allowed,
                    double& worst, std::vector<std::int64_t>& beyond) {
    const std::array<double, 256>& values = e4m3_values();
    for (std::int64_t i = begin; i < end; ++i) {
        const double x = decode_bf16(segment.source[i]);
        const double decoded = values[segment.codes[i]] * segment.loaded_scale;
        const double ratio = error_over_bound(x, decoded, segment.own_scale);
        if (!(ratio <= allowed)) beyond.push_back(i);
        worst = std::max(worst, ratio);
    }
}

/// Elements below this ratio need no further look: they are legal, and not the worst by more than
/// the error of the sums.
double threshold_of(double worst, double allowed) {
    return std::min(worst * (1.0 + kSumError), allowed * (1.0 - kSumError));
}

void add_sums(const BlockSums& sums, TensorAudit& audit) {
    audit.sum_x2 += sums.x2;
    audit.sum_error2 += sums.error2;
    audit.sum_x_error += sums.x_error;
    audit.sum_expected_error2 += sums.expected_error2;
    audit.saturated += sums.saturated;
    audit.flushed += sums.flushed;
    audit.exact += sums.exact;
}

/// Elements [begin, end) of a segment, all with a finite source.
void walk_finite(const Segment& segment, std::int64_t begin, std::int64_t end, double slack,
                 TensorAudit& audit, std::vector<std::int64_t>& beyond) {
    const double allowed = 1.0 + slack;
    for (std::int64_t i = begin; i < end;) {
        Segment part = segment;
        part.source += i;
        part.codes += i;
        part.count = std::min(kBlock, end - i);
        // A long stretch is as good as several rows.
        const std::int64_t rows = std::min(kMostNearestElements, end - i) / kBlock;
        if (rows > 0 && walk_rows(part, {rows, kBlock, kBlock}, slack, audit)) {
            i += rows * kBlock;
            continue;
        }
        double worst = audit.max_error_over_bound;
        for (const std::int64_t stop = i + std::max<std::int64_t>(rows * kBlock, part.count);
             i < stop; i += kBlock) {
            ElementBlock block;
            block.source = segment.source + i;
            block.codes = segment.codes + i;
            block.count = std::min(kBlock, end - i);
            block.loaded_scale = segment.loaded_scale;
            block.own_scale = segment.own_scale;
            block.divisor = segment.divisor;
            block.round_quotient_to_bf16 = segment.round_quotient_to_bf16;
            block.saturation = kE4m3Max * segment.loaded_scale * allowed;
            block.threshold = threshold_of(worst, allowed);
            const BlockSums sums = sum_block(block);
            if (sums.above) look_at_errors(segment, i, i + block.count, allowed, worst, beyond);
            add_sums(sums, audit);
            audit.elements += block.count;
        }
        audit.max_error_over_bound = worst;
        i = std::min(i, end);
    }
}

/// The stretches between non-finite source elements, which are named and left out.
void walk_nonzero_tile(const Segment& segment, double slack, TensorAudit& audit,
                       std::vector<std::int64_t>& beyond, std::vector<std::int64_t>& nonfinite) {
    std::int64_t begin = 0;
    for (std::int64_t i = 0; !segment.source_finite && i < segment.count; ++i) {
        if (nonfinite_bf16(segment.source[i])) {
            nonfinite.push_back(i);
            walk_finite(segment, begin, i, slack, audit, beyond);
            begin = i + 1;
        }
    }
    walk_finite(segment, begin, segment.count, slack, audit, beyond);
}

/// A tile of zeros: any scale is legal, but only zeros may come out.
void walk_zero_tile(const Segment& segment, TensorAudit& audit, std::vector<std::int64_t>& beyond,
                    std::vector<std::int64_t>& nonfinite) {
    const std::array<double, 256>& values = e4m3_values();
    for (std::int64_t i = 0; i < segment.count; ++i) {
        if (nonfinite_bf16(segment.source[i])) {
            nonfinite.push_back(i);
            continue;
        }
        const double decoded = values[segment.codes[i]] * segment.loaded_scale;
        audit.elements += 1;
        audit.sum_error2 += decoded * decoded;
        if (decoded == 0.0) {
            audit.exact += 1;
        } else {
            beyond.push_back(i);
            audit.max_error_over_bound = std::numeric_limits<double>::infinity();
        }
    }
}

}  // namespace

std::uint16_t largest_magnitude(const std::uint16_t* values, std::int64_t count) {
    // Signed 16-bit lanes with a fixed trip count: what the compiler turns into vector maxima.
    std::array<std::int16_t, kLanes> lanes{};
    std::int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
        for (std::int64_t j = 0; j < kLanes; ++j) {
            const auto magnitude = static_cast<std::int16_t>(values[i + j] & 0x7fffU);
            auto& lane = lanes[static_cast<std::size_t>(j)];
            lane = magnitude > lane ? magnitude : lane;
        }
    }
    auto largest = static_cast<std::uint16_t>(*std::max_element(lanes.begin(), lanes.end()));
    for (; i < count; ++i) {
        largest = std::max(largest, static_cast<std::uint16_t>(values[i] & 0x7fffU));
    }
    return largest;
}

double error_over_bound(double source, double decoded, double own_scale) {
    const double error = std::abs(decoded - source);
    const double bound = std::max(std::abs(source) * (1.0 / 17.0), own_scale / 1024.0);
    if (error == 0.0) return 0.0;
    const double ratio = error / bound;
    return std::isnan(ratio) ? std::numeric_limits<double>::infinity() : ratio;
}

bool walk_rows(const Segment& segment, const SegmentRows& rows, double slack, TensorAudit& audit) {
    if (segment.nearest == nullptr || segment.own_scale == 0.0 || !segment.source_finite ||
        segment.round_quotient_to_bf16 || segment.loaded_scale != segment.nearest->loaded_scale ||
        segment.own_scale != segment.nearest->own_scale) {
        return false;
    }
    const double allowed = 1.0 + slack;
    ElementRows elements;
    elements.source = segment.source;
    elements.codes = segment.codes;
    elements.rows = rows.rows;
    elements.count = segment.count;
    elements.source_stride = rows.source_stride;
    elements.code_stride = rows.code_stride;
    elements.saturation = kE4m3Max * segment.loaded_scale * allowed;
    elements.threshold = threshold_of(audit.max_error_over_bound, allowed);
    BlockSums sums;
    // Errors near the bound are for walk_segment, which knows which elements they are of.
    if (!sum_nearest_rows(elements, *segment.nearest, sums) || sums.above) return false;
    add_sums(sums, audit);
    audit.elements += rows.rows * segment.count;
    return true;
}

void walk_segment(const Segment& segment, double slack, TensorAudit& audit,
                  std::vector<std::int64_t>& beyond, std::vector<std::int64_t>& nonfinite) {
    beyond.clear();
    nonfinite.clear();
    if (segment.own_scale == 0.0) {
        walk_zero_tile(segment, audit, beyond, nonfinite);
    } else {
        walk_nonzero_tile(segment, slack, audit, beyond, nonfinite);
    }
    audit.mismatched += static_cast<std::int64_t>(beyond.size());
}

}  // namespace refit::checks
