// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The check of derived weights. It shares no arithmetic with DerivedWeights: elements are addressed
// one by one, products are formed in double, and roundings are done on numbers, not on bits.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "receiver/derived_weights.hpp"

namespace refit::receiver {
namespace {

double e4m3(std::byte code) {
    const int bits = std::to_integer<int>(code);
    const int exponent = bits / 8 % 16;
    const int mantissa = bits % 8;
    if (exponent == 15 && mantissa == 7) return std::numeric_limits<double>::quiet_NaN();
    const double magnitude =
        exponent == 0 ? mantissa / 512.0 : (1.0 + mantissa / 8.0) * std::exp2(exponent - 7);
    return bits >= 128 ? -magnitude : magnitude;
}

/// A BF16 pattern as a number.
double bf16(std::uint16_t bits) {
    const int exponent = bits / 128 % 256;
    const int mantissa = bits % 128;
    double magnitude = 0.0;
    if (exponent == 255) {
        magnitude = mantissa == 0 ? std::numeric_limits<double>::infinity()
                                  : std::numeric_limits<double>::quiet_NaN();
    } else if (exponent == 0) {
        magnitude = mantissa * std::exp2(-133);
    } else {
        magnitude = (128 + mantissa) * std::exp2(exponent - 134);
    }
    return bits >= 0x8000 ? -magnitude : magnitude;
}

/// `x` rounded to a number of BF16, to nearest and ties to even.
double round_to_bf16(double x) {
    if (!std::isfinite(x) || x == 0.0) return x;
    int exponent = 0;
    (void)std::frexp(x, &exponent);
    // Eight significant bits, fewer below the smallest normal number.
    const int unit = std::max(exponent - 8, -133);
    const double rounded = std::ldexp(std::nearbyint(std::ldexp(x, -unit)), unit);
    const double largest = std::ldexp(255.0, 120);
    return std::fabs(rounded) > largest ? std::copysign(std::numeric_limits<double>::infinity(), x)
                                        : rounded;
}

/// The value of one element of a loaded kv_b_proj, as the engine dequantizes it: to F32, then BF16.
class Recomputed {
 public:
    Recomputed(const ContractInstance& instance, const LoadedParameters& loaded,
               const LatentProjection& latent)
        : weight_(instance.destinations.at(latent.destination)),
          bytes_(loaded.bytes(latent.destination)) {
        if (weight_.scale < 0) return;
        const auto scale = static_cast<std::size_t>(weight_.scale);
        scale_cols_ = instance.destinations.at(scale).cols();
        scales_ = loaded.bytes(scale);
    }

    [[nodiscard]] double at(std::int64_t row, std::int64_t col) const {
        const std::int64_t index = row * weight_.cols() + col;
        if (weight_.scale < 0) {
            std::uint16_t bits = 0;
            std::memcpy(&bits, bytes_.data() + index * 2, sizeof bits);
            return bf16(bits);
        }
        std::int64_t slot = 0;
        if (weight_.granularity == Granularity::channel) slot = row;
        if (weight_.granularity == Granularity::block) {
            slot = row / weight_.block_rows * scale_cols_ + col / weight_.block_cols;
        }
        float scale = 0.0F;
        std::memcpy(&scale, scales_.data() + slot * 4, sizeof scale);
        // The product of a 4-bit and a 24-bit significand is exact in double.
        const double product = e4m3(bytes_[static_cast<std::size_t>(index)]) * double{scale};
        return round_to_bf16(static_cast<double>(static_cast<float>(product)));
    }

 private:
    const DestinationParameter& weight_;
    std::span<const std::byte> bytes_;
    std::span<const std::byte> scales_;
    std::int64_t scale_cols_ = 1;
};

bool same(double a, double b) {
    return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

}  // namespace

core::Findings check_derived(const ContractInstance& instance, const LoadedParameters& loaded,
                             const DerivedWeights& derived, std::uint64_t version, int tp_rank) {
    core::Findings findings;
    for (std::size_t i = 0; i < derived.parameters().size(); ++i) {
        const DerivedParameter& parameter = derived.parameters()[i];
        const LatentProjection& latent = parameter.source;
        const Recomputed source(instance, loaded, latent);
        const std::span<const std::uint16_t> values = derived.values(i);
        const std::int64_t per_head = latent.nope_dim + latent.v_dim;
        const bool is_uv = parameter.kind == DerivedKind::w_uv;
        const std::string& projection = instance.destinations.at(latent.destination).name;
        std::int64_t different = 0;
        core::Finding finding;
        std::string first;
        for (std::int64_t head = 0; head < latent.heads; ++head) {
            for (std::int64_t a = 0; a < parameter.shape[1]; ++a) {
                for (std::int64_t b = 0; b < parameter.shape[2]; ++b) {
                    const std::int64_t row = head * per_head + (is_uv ? latent.nope_dim + b : a);
                    const double expected = source.at(row, is_uv ? a : b);
                    const double found = bf16(values[static_cast<std::size_t>(
                        (head * parameter.shape[1] + a) * parameter.shape[2] + b)]);
                    if (same(expected, found) || different++ > 0) continue;
                    // Ranks hold the heads in order.
                    finding.index = {tp_rank * latent.heads * per_head + row, is_uv ? a : b};
                    first = core::to_string(core::Shape{head, a, b});
                    finding.measured = std::to_string(found);
                    finding.limit = std::to_string(expected);
                }
            }
        }
        if (different == 0) continue;
        const std::string told = std::to_string(different) + " of " +
                                 std::to_string(values.size()) + " elements of the derived " +
                                 parameter.name + " are not those of version " +
                                 std::to_string(version) + ", the first, at " + first + ", is " +
                                 finding.measured + " instead of " + finding.limit;
        if (!findings.empty() && findings.back().tensor == projection) {
            findings.back().message += "; " + told;
            continue;
        }
        finding.check = "version";
        finding.severity = core::Severity::error;
        finding.tensor = projection;
        finding.engine_behaviour = "silently_wrong";
        finding.remedy = "compute the derived weights again at every commit";
        finding.message = projection + ": " + told + "; " + finding.remedy;
        findings.push_back(std::move(finding));
    }
    return findings;
}

}  // namespace refit::receiver
