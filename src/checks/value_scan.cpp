// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/value_scan.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "checks/decode.hpp"
#include "checks/scale_range.hpp"
#include "core/error.hpp"

namespace refit::checks {
namespace {

using core::DType;

template <typename Word>
Word load(const std::byte* from) {
    // A header of odd length leaves the data unaligned.
    Word word;
    std::memcpy(&word, from, sizeof word);
    return word;
}

double decode_f16(std::uint16_t bits) {
    const unsigned exponent = (bits >> 10) & 0x1FU;
    const unsigned mantissa = bits & 0x3FFU;
    double magnitude = 0.0;
    if (exponent == 0x1FU) {
        magnitude = mantissa == 0 ? std::numeric_limits<double>::infinity()
                                  : std::numeric_limits<double>::quiet_NaN();
    } else if (exponent == 0) {
        magnitude = std::ldexp(mantissa, -24);
    } else {
        magnitude = std::ldexp(1024U + mantissa, static_cast<int>(exponent) - 25);
    }
    return (bits & 0x8000U) != 0 ? -magnitude : magnitude;
}

double decode_e5m2(std::uint8_t code) {
    // E5M2 is F16 without its lower eight mantissa bits (OCP OFP8 rev 1.0, section 5).
    return decode_f16(static_cast<std::uint16_t>(code << 8));
}

/// FP8 of the "FNUZ" kind, finite with an unsigned zero: the pattern of -0 is the only NaN, and the
/// bias is one more than usual. Source: ONNX, technical details of its float stored in 8 bits.
double decode_fnuz(std::uint8_t code, int exponent_bits) {
    if (code == 0x80U) return std::numeric_limits<double>::quiet_NaN();
    const int mantissa_bits = 7 - exponent_bits;
    const int bias = 1 << (exponent_bits - 1);
    const int exponent = (code & 0x7F) >> mantissa_bits;
    const int mantissa = code & ((1 << mantissa_bits) - 1);
    const int significand = exponent == 0 ? mantissa : (1 << mantissa_bits) + mantissa;
    const double magnitude =
        std::ldexp(significand, (exponent == 0 ? 1 : exponent) - bias - mantissa_bits);
    return (code & 0x80U) != 0 ? -magnitude : magnitude;
}

/// Words to look at in one go: small enough to stay in the first cache, large enough that the
/// branch behind it costs nothing.
constexpr std::size_t kStretch = 4096;

/// Calls `found(i)` for every word whose bits under `mask`, those of `flip` turned around, are all
/// set. The compiler turns the
/// first loop into vector instructions, which is why it only asks whether there is one at all.
template <typename Word, typename Found>
void each_with_all_set(std::span<const std::byte> bytes, Word mask, const Found& found,
                       Word flip = 0) {
    const auto fits = [mask, flip](Word word) {
        return (static_cast<Word>(word ^ flip) & mask) == mask;
    };
    const std::size_t count = bytes.size() / sizeof(Word);
    for (std::size_t begin = 0; begin < count; begin += kStretch) {
        const std::size_t end = std::min(count, begin + kStretch);
        Word any = 0;
        for (std::size_t i = begin; i < end; ++i) {
            const Word word = load<Word>(bytes.data() + i * sizeof(Word));
            any = static_cast<Word>(any | static_cast<Word>(fits(word)));
        }
        if (any == 0) continue;
        for (std::size_t i = begin; i < end; ++i) {
            if (fits(load<Word>(bytes.data() + i * sizeof(Word)))) found(i);
        }
    }
}

}  // namespace

double value_at(DType dtype, ValueKind kind, std::span<const std::byte> bytes, std::size_t index) {
    const std::byte* at = bytes.data() + index * static_cast<std::size_t>(core::size_bytes(dtype));
    switch (dtype) {
        case DType::bf16:
            return decode_bf16(load<std::uint16_t>(at));
        case DType::f16:
            return decode_f16(load<std::uint16_t>(at));
        case DType::f32:
            return load<float>(at);
        case DType::f64:
            return load<double>(at);
        case DType::f8_e4m3:
            return decode_e4m3(load<std::uint8_t>(at));
        case DType::f8_e5m2:
            return decode_e5m2(load<std::uint8_t>(at));
        case DType::f8_e8m0:
            return decode_e8m0(load<std::uint8_t>(at));
        case DType::u8:
            return kind == ValueKind::scale ? decode_e8m0(load<std::uint8_t>(at))
                                            : load<std::uint8_t>(at);
        case DType::boolean:
            return load<std::uint8_t>(at);
        case DType::i8:
            return load<std::int8_t>(at);
        case DType::i16:
            return load<std::int16_t>(at);
        case DType::u16:
            return load<std::uint16_t>(at);
        case DType::i32:
            return load<std::int32_t>(at);
        case DType::u32:
            return load<std::uint32_t>(at);
        case DType::i64:
            return static_cast<double>(load<std::int64_t>(at));
        case DType::u64:
            return static_cast<double>(load<std::uint64_t>(at));
        case DType::f8_e4m3fnuz:
            return decode_fnuz(load<std::uint8_t>(at), 4);
        case DType::f8_e5m2fnuz:
            return decode_fnuz(load<std::uint8_t>(at), 5);
        case DType::c64:
            return load<float>(at);
        case DType::f4:
        case DType::f6_e2m3:
        case DType::f6_e3m2:
            break;
    }
    throw core::ShapeError("no value of a " + std::string(core::safetensors_name(dtype)) +
                           " tensor stands alone in its bytes");
}

void scan_values(DType dtype, ValueKind kind, std::span<const std::byte> bytes, std::int64_t first,
                 ValueCounts& counts) {
    // Types of less than a byte have neither NaN nor Inf.
    if (core::size_bytes(dtype) == 0) return;
    const auto nonfinite = [&](std::size_t i) {
        const double value = value_at(dtype, kind, bytes, i);
        // The mask of E5M2 and the floats takes NaN and Inf, that of E4M3 and E8M0 NaN alone.
        (std::isnan(value) ? counts.nan : counts.inf) += 1;
        if (counts.first_nonfinite >= 0) return;
        counts.first_nonfinite = first + static_cast<std::int64_t>(i);
        counts.first_nonfinite_value = value;
    };
    const auto complex_nonfinite = [&](std::size_t part) {
        const double value = load<float>(bytes.data() + part * sizeof(float));
        (std::isnan(value) ? counts.nan : counts.inf) += 1;
        if (counts.first_nonfinite >= 0) return;
        counts.first_nonfinite = first + static_cast<std::int64_t>(part / 2);
        counts.first_nonfinite_value = value;
    };
    switch (dtype) {
        case DType::f8_e4m3:
            each_with_all_set<std::uint8_t>(bytes, 0x7FU, nonfinite);
            break;
        case DType::f8_e5m2:
            each_with_all_set<std::uint8_t>(bytes, 0x7CU, nonfinite);
            break;
        case DType::f8_e8m0:
            each_with_all_set<std::uint8_t>(bytes, 0xFFU, nonfinite);
            break;
        case DType::u8:
            if (kind == ValueKind::scale) each_with_all_set<std::uint8_t>(bytes, 0xFFU, nonfinite);
            break;
        case DType::f8_e4m3fnuz:
        case DType::f8_e5m2fnuz:
            each_with_all_set<std::uint8_t>(bytes, 0xFFU, nonfinite, 0x7FU);
            break;
        case DType::c64:
            each_with_all_set<std::uint32_t>(bytes, 0x7F800000U, complex_nonfinite);
            break;
        case DType::bf16:
            each_with_all_set<std::uint16_t>(bytes, 0x7F80U, nonfinite);
            break;
        case DType::f16:
            each_with_all_set<std::uint16_t>(bytes, 0x7C00U, nonfinite);
            break;
        case DType::f32:
            each_with_all_set<std::uint32_t>(bytes, 0x7F800000U, nonfinite);
            break;
        case DType::f64:
            each_with_all_set<std::uint64_t>(bytes, 0x7FF0000000000000U, nonfinite);
            break;
        default:
            break;
    }
    if (kind != ValueKind::scale) return;
    // Scales are few, so that this loop may be slow.
    const std::size_t count = bytes.size() / static_cast<std::size_t>(core::size_bytes(dtype));
    for (std::size_t i = 0; i < count; ++i) {
        const double value = value_at(dtype, kind, bytes, i);
        if (is_extreme_scale(dtype, value) && counts.extreme++ == 0) {
            counts.first_extreme = first + static_cast<std::int64_t>(i);
            counts.first_extreme_value = value;
        }
        // -Inf has been counted above; a NaN compares with nothing.
        if (!(value <= 0.0) || std::isinf(value)) continue;
        (value == 0.0 ? counts.zero : counts.negative) += 1;
        if (counts.first_nonpositive >= 0) continue;
        counts.first_nonpositive = first + static_cast<std::int64_t>(i);
        counts.first_nonpositive_value = value;
    }
}

}  // namespace refit::checks
