// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/reference_check.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "checks/decode.hpp"
#include "checks/value_scan.hpp"

namespace refit::checks {
namespace {

using core::DType;

/// Rows that are read together; a block of scales is as high.
constexpr std::int64_t kBandRows = 128;
/// Elements whose squares are summed in F32 before they join the sums in double.
constexpr std::int64_t kRun = 1024;
constexpr std::size_t kLanes = 16;
/// Below it a scale has too few bits for the rules of rounding to hold.
constexpr float kSmallestExactScale = 1e-35F;

/// E4M3 to F32 by moving the bits to where F32 has them: exponent and mantissa stand 20 bits
/// higher, and the biases differ by 120. Subnormal codes become subnormal F32 numbers before the
/// multiplication, which makes them exact. Both NaN codes give 480.
float decoded(std::uint8_t code) {
    const std::uint32_t magnitude = static_cast<std::uint32_t>(code & 0x7FU) << 20;
    const std::uint32_t sign = static_cast<std::uint32_t>(code & 0x80U) << 24;
    return std::bit_cast<float>(magnitude | sign) * 0x1p120F;
}

/// The largest power of two at or below |value|, but at least 2^-6: eight times the spacing of the
/// codes there.
float binade(float value) {
    constexpr std::uint32_t kExponent = 0x7F800000U;
    constexpr std::uint32_t kLeast = 0x3C800000U;  // 2^-6
    return std::bit_cast<float>(std::max(std::bit_cast<std::uint32_t>(value) & kExponent, kLeast));
}

struct Bounds {
    float scale = 0.0F;
    float absolute = 0.0F;  ///< s' / 1024
    bool exact = true;      ///< the scale is large enough to ask for the nearest code
};

constexpr float kRelative = 1.0F / 17.0F + 1.0F / 128.0F;

bool is_beyond(float source, float error, const Bounds& bounds) {
    return error > std::fabs(source) * kRelative + bounds.absolute;
}

bool is_unlike(float code_value, float error, const Bounds& bounds) {
    // Half the spacing, and room for the roundings of scale, reciprocal and product.
    return error > bounds.scale * binade(code_value) * (0.0625F * (1.0F + 0x1p-14F));
}

bool is_nan_code(std::uint8_t code) {
    return (code & 0x7FU) == 0x7FU;
}

/// Adds up to kRun neighbours that share a scale.
void walk(const std::uint8_t* codes, const float* source, std::int64_t count, std::int64_t first,
          const Bounds& bounds, RoundTrip& sums) {
    std::array<float, kLanes> x2{};
    std::array<float, kLanes> error2{};
    std::array<std::uint32_t, kLanes> suspicious{};
    const auto lanes = static_cast<std::int64_t>(kLanes);
    const auto one = [&](std::int64_t i, std::size_t lane) {
        const float code_value = decoded(codes[i]);
        const float x = source[i];
        const float error = std::fabs(code_value * bounds.scale - x);
        const bool counts = error <= std::numeric_limits<float>::max();  // false for NaN
        const bool odd = !(error <= std::fabs(x) * kRelative + bounds.absolute) ||
                         is_unlike(code_value, error, bounds) || is_nan_code(codes[i]);
        suspicious[lane] |= odd ? 1U : 0U;
        x2[lane] += counts ? x * x : 0.0F;
        error2[lane] += counts ? error * error : 0.0F;
    };
    std::int64_t i = 0;
    for (; i + lanes <= count; i += lanes) {
        for (std::size_t lane = 0; lane < kLanes; ++lane) {
            one(i + static_cast<std::int64_t>(lane), lane);
        }
    }
    for (; i < count; ++i) one(i, 0);
    sums.elements += count;
    std::uint32_t any = 0;
    double sum_x2 = 0.0;
    double sum_error2 = 0.0;
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
        sum_x2 += static_cast<double>(x2[lane]);
        sum_error2 += static_cast<double>(error2[lane]);
        any |= suspicious[lane];
    }
    if (any == 0) {
        sums.sum_x2 += sum_x2;
        sums.sum_error2 += sum_error2;
        return;
    }
    // Something is odd here: look at each element, in double.
    for (std::int64_t k = 0; k < count; ++k) {
        const double x = static_cast<double>(source[k]);
        if (is_nan_code(codes[k]) || !std::isfinite(x)) {
            --sums.elements;
            continue;
        }
        const float code_value = decoded(codes[k]);
        const double loaded = static_cast<double>(code_value) * static_cast<double>(bounds.scale);
        const double error = std::fabs(loaded - x);
        sums.sum_x2 += x * x;
        sums.sum_error2 += error * error;
        const auto single = static_cast<float>(error);
        const bool beyond = is_beyond(source[k], single, bounds);
        const bool unlike = bounds.exact && is_unlike(code_value, single, bounds);
        if (!beyond && !unlike) continue;
        const bool clipped = std::fabs(code_value) == static_cast<float>(kE4m3Max) &&
                             std::signbit(loaded) == std::signbit(x) &&
                             std::fabs(x) > std::fabs(loaded) &&
                             std::fabs(x) <= 1.3 * std::fabs(loaded);
        if (beyond) {
            ++sums.beyond;
            if (clipped) ++sums.clipped;
        }
        // A clipped value has no nearer code.
        if (unlike && !clipped) ++sums.unlike;
        std::int64_t& first_of = beyond ? sums.first_beyond : sums.first_unlike;
        if (first_of >= 0 || (beyond && clipped)) continue;
        first_of = first + k;
        if (beyond || sums.first_beyond < 0) {
            sums.source = x;
            sums.loaded = loaded;
        }
    }
}

void to_f32(DType dtype, const std::byte* from, std::int64_t count, float* to) {
    if (dtype == DType::f32) {
        std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float));
        return;
    }
    if (dtype == DType::bf16) {
        for (std::int64_t i = 0; i < count; ++i) {
            std::uint16_t bits = 0;
            std::memcpy(&bits, from + 2 * i, sizeof bits);
            to[i] = std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
        }
        return;
    }
    const std::span<const std::byte> bytes(
        from, static_cast<std::size_t>(count * core::size_bytes(dtype)));
    for (std::int64_t i = 0; i < count; ++i) {
        to[i] = static_cast<float>(
            value_at(dtype, ValueKind::plain, bytes, static_cast<std::size_t>(i)));
    }
}

/// Largest magnitude as bits, so that the compiler can vectorize; NaN is larger than everything.
std::int32_t largest(const float* values, std::int64_t count) {
    std::int32_t result = 0;
    for (std::int64_t i = 0; i < count; ++i) {
        result = std::max(result, static_cast<std::int32_t>(
                                      std::bit_cast<std::uint32_t>(values[i]) & 0x7FFFFFFFU));
    }
    return result;
}

/// One matrix, band by band.
class Comparison {
 public:
    Comparison(const StoredMatrix& codes, std::span<const double> scales, const ScaleLayout& layout,
               const StoredMatrix& source)
        : codes_(codes),
          scales_(scales),
          layout_(layout),
          source_(source),
          amax_(scales.size(), 0),
          values_(static_cast<std::size_t>(std::min(kBandRows, codes.rows) * codes.cols)) {}

    RoundTrip run(const std::function<void(std::int64_t, std::int64_t)>& done) {
        const bool tall = layout_.tile_rows > kBandRows;
        for (std::int64_t row = 0; tall && row < codes_.rows; row += kBandRows) {
            read(row);
            find_amax(row);
            done(row, end_of(row));
        }
        for (std::int64_t row = 0; row < codes_.rows; row += kBandRows) {
            read(row);
            if (!tall) find_amax(row);
            walk_band(row);
            done(row, end_of(row));
        }
        return sums_;
    }

 private:
    [[nodiscard]] std::int64_t end_of(std::int64_t row) const {
        return std::min(codes_.rows, row + kBandRows);
    }
    [[nodiscard]] std::size_t scale_of(std::int64_t row, std::int64_t col) const {
        return static_cast<std::size_t>(row / layout_.tile_rows * layout_.grid_cols +
                                        col / layout_.tile_cols);
    }

    void read(std::int64_t row) {
        const std::int64_t at = row * codes_.cols * core::size_bytes(source_.dtype);
        to_f32(source_.dtype, source_.bytes.data() + at, (end_of(row) - row) * codes_.cols,
               values_.data());
    }

    void find_amax(std::int64_t band) {
        for (std::int64_t row = band; row < end_of(band); ++row) {
            const float* values = values_.data() + (row - band) * codes_.cols;
            for (std::int64_t col = 0; col < codes_.cols; col += layout_.tile_cols) {
                const std::int64_t count = std::min(layout_.tile_cols, codes_.cols - col);
                std::int32_t& amax = amax_[scale_of(row, col)];
                amax = std::max(amax, largest(values + col, count));
            }
        }
    }

    void walk_band(std::int64_t band) {
        const auto* codes = reinterpret_cast<const std::uint8_t*>(codes_.bytes.data());
        for (std::int64_t row = band; row < end_of(band); ++row) {
            const float* values = values_.data() + (row - band) * codes_.cols;
            for (std::int64_t col = 0; col < codes_.cols; col += layout_.tile_cols) {
                const double scale = scales_[scale_of(row, col)];
                const std::int64_t end = std::min(col + layout_.tile_cols, codes_.cols);
                if (!std::isfinite(scale) || scale < 0.0) continue;
                const Bounds bounds = bounds_of(scale, amax_[scale_of(row, col)]);
                for (std::int64_t begin = col; begin < end; begin += kRun) {
                    walk(codes + row * codes_.cols + begin, values + begin,
                         std::min(kRun, end - begin), row * codes_.cols + begin, bounds, sums_);
                }
            }
        }
    }

    static Bounds bounds_of(double scale, std::int32_t amax_bits) {
        // The largest floor among the field's recipes is an amax of 1e-4.
        constexpr double kLargestFloor = 1e-4;
        // A little more than twice, for a scale that was rounded to BF16.
        constexpr double kTwice = 2.0 * (1.0 + 1.0 / 128.0);
        const double amax =
            static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(amax_bits)));
        double largest_scale = kTwice * std::max(amax, kLargestFloor) / kE4m3Max;
        if (!std::isfinite(largest_scale)) largest_scale = scale;
        Bounds bounds;
        bounds.scale = static_cast<float>(scale);
        bounds.absolute =
            static_cast<float>(std::min(scale, largest_scale) / 1024.0 * (1.0 + 1.0 / 128.0));
        bounds.exact = bounds.scale > kSmallestExactScale;
        return bounds;
    }

    const StoredMatrix& codes_;
    std::span<const double> scales_;
    const ScaleLayout& layout_;
    const StoredMatrix& source_;
    std::vector<std::int32_t> amax_;  ///< by scale, as bits
    std::vector<float> values_;       ///< of one band
    RoundTrip sums_;
};

/// `value` rounded to nearest even at the precision of `dtype`.
double rounded_to(DType dtype, double value) {
    int bits = 24;
    int least = -126;
    double largest_value = static_cast<double>(std::numeric_limits<float>::max());
    if (dtype == DType::f64) return value;
    if (dtype == DType::bf16) {
        bits = 8;
        largest_value = 0x1.fep127;
    } else if (dtype == DType::f16) {
        bits = 11;
        least = -14;
        largest_value = 65504.0;
    }
    if (value == 0.0 || !std::isfinite(value)) return value;
    const double quantum = std::ldexp(1.0, std::max(std::ilogb(value), least) - bits + 1);
    const double result = std::nearbyint(value / quantum) * quantum;
    if (std::fabs(result) > largest_value) {
        return std::copysign(std::numeric_limits<double>::infinity(), value);
    }
    return result;
}

bool is_floating(DType dtype) {
    return dtype == DType::bf16 || dtype == DType::f16 || dtype == DType::f32 ||
           dtype == DType::f64;
}

bool equal_values(DType dtype, double value, DType source_dtype, double source) {
    if (std::isnan(value) && std::isnan(source)) return true;
    if (value == source) return true;
    if (!is_floating(dtype) || !is_floating(source_dtype)) return false;
    return rounded_to(dtype, source) == value || rounded_to(source_dtype, value) == source;
}

}  // namespace

RoundTrip compare_codes(const StoredMatrix& codes, std::span<const double> scales,
                        const ScaleLayout& layout, const StoredMatrix& source,
                        const std::function<void(std::int64_t, std::int64_t)>& done) {
    return Comparison(codes, scales, layout, source).run(done);
}

void compare_raw(DType dtype, std::span<const std::byte> bytes, DType source_dtype,
                 std::span<const std::byte> source, std::int64_t first, RawDifference& difference) {
    const bool same = dtype == source_dtype;
    if (same && (bytes.empty() || std::memcmp(bytes.data(), source.data(), bytes.size()) == 0)) {
        return;
    }
    const auto width = static_cast<std::size_t>(core::size_bytes(dtype));
    const std::size_t count = bytes.size() / width;
    for (std::size_t i = 0; i < count; ++i) {
        if (same && std::memcmp(bytes.data() + i * width, source.data() + i * width, width) == 0) {
            continue;
        }
        const double value = value_at(dtype, ValueKind::plain, bytes, i);
        const double wanted = value_at(source_dtype, ValueKind::plain, source, i);
        if (!same && equal_values(dtype, value, source_dtype, wanted)) continue;
        ++difference.differing;
        if (difference.first >= 0) continue;
        difference.first = first + static_cast<std::int64_t>(i);
        difference.loaded = value;
        difference.source = wanted;
    }
}

}  // namespace refit::checks
