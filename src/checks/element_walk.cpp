// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/element_walk.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "checks/decode.hpp"

namespace refit::checks {

namespace {

constexpr std::int64_t kLanes = 64;

/// The loop over one segment. Without kLookAtSource the caller has seen that all of it is finite.
template <bool kLookAtSource, bool kRoundQuotient>
void walk_nonzero_tile(const Segment& segment, double slack, TensorAudit& audit,
                       std::vector<std::int64_t>& beyond, std::vector<std::int64_t>& nonfinite) {
    const std::array<double, 256>& values = e4m3_values();
    const double own_scale = segment.own_scale;
    const double smallest_bound = own_scale / 1024.0;
    const double saturation = kE4m3Max * segment.loaded_scale * (1.0 + slack);
    const double allowed = 1.0 + slack;
    double worst = audit.max_error_over_bound;
    // Elements below this ratio need no further look: they are legal, and not the worst so far.
    double threshold = std::min(worst, allowed);
    double sum_x2 = 0.0;
    double sum_error2 = 0.0;
    double sum_x_error = 0.0;
    double sum_expected2 = 0.0;
    std::int64_t saturated = 0;
    std::int64_t flushed = 0;
    std::int64_t exact = 0;
    for (std::int64_t i = 0; i < segment.count; ++i) {
        if constexpr (kLookAtSource) {
            if (nonfinite_bf16(segment.source[i])) {
                nonfinite.push_back(i);
                continue;
            }
        }
        const double x = decode_bf16(segment.source[i]);
        const unsigned magnitude_code = segment.codes[i] & 0x7fU;
        const double magnitude = std::abs(x);
        const double decoded = values[segment.codes[i]] * segment.loaded_scale;
        const double error = decoded - x;
        const double bound = std::max(magnitude * (1.0 / 17.0), smallest_bound);
        sum_x2 += x * x;
        sum_error2 += error * error;
        sum_x_error += x * error;
        double quotient = x / own_scale;
        if constexpr (kRoundQuotient) quotient = nearest_bf16(quotient);
        const double expected = nearest_e4m3(quotient) * own_scale - x;
        sum_expected2 += expected * expected;
        saturated +=
            static_cast<std::int64_t>((magnitude_code == 0x7eU) & (magnitude > saturation));
        flushed += static_cast<std::int64_t>((magnitude_code == 0) & (magnitude > 0.0));
        exact += static_cast<std::int64_t>(error == 0.0);
        // Written so that a NaN takes the branch.
        if (!(std::abs(error) <= bound * threshold)) {
            const double ratio = error_over_bound(x, decoded, own_scale);
            if (!(ratio <= allowed)) beyond.push_back(i);
            worst = std::max(worst, ratio);
            threshold = std::min(worst, allowed);
        }
    }
    audit.elements += segment.count - static_cast<std::int64_t>(nonfinite.size());
    audit.sum_x2 += sum_x2;
    audit.sum_error2 += sum_error2;
    audit.sum_x_error += sum_x_error;
    audit.sum_expected_error2 += sum_expected2;
    audit.saturated += saturated;
    audit.flushed += flushed;
    audit.exact += exact;
    audit.max_error_over_bound = worst;
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

void walk_segment(const Segment& segment, double slack, TensorAudit& audit,
                  std::vector<std::int64_t>& beyond, std::vector<std::int64_t>& nonfinite) {
    beyond.clear();
    nonfinite.clear();
    if (segment.own_scale == 0.0) {
        walk_zero_tile(segment, audit, beyond, nonfinite);
    } else if (segment.source_finite) {
        segment.round_quotient_to_bf16
            ? walk_nonzero_tile<false, true>(segment, slack, audit, beyond, nonfinite)
            : walk_nonzero_tile<false, false>(segment, slack, audit, beyond, nonfinite);
    } else {
        segment.round_quotient_to_bf16
            ? walk_nonzero_tile<true, true>(segment, slack, audit, beyond, nonfinite)
            : walk_nonzero_tile<true, false>(segment, slack, audit, beyond, nonfinite);
    }
    audit.mismatched += static_cast<std::int64_t>(beyond.size());
}

}  // namespace refit::checks
