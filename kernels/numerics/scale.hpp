// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The arithmetic of TileScaling: from amax to scale, from element to code. Only operations that
// IEEE-754 pins down, so that every compiler and device gives the same bits.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/numerics/bfloat16.hpp"
#include "kernels/numerics/float8.hpp"
#include "kernels/numerics/host_device.hpp"
#include "kernels/numerics/tile_scaling.hpp"

namespace refit::numerics {

/// |x| of a BF16 pattern as F32 bits; ordered as the magnitudes are, Inf and NaN last.
[[nodiscard]] REFIT_HD constexpr std::uint32_t abs_bits(std::uint16_t bf16_bits) {
    return static_cast<std::uint32_t>(bf16_bits & 0x7fffU) << 16;
}

[[nodiscard]] REFIT_HD constexpr bool is_nan_bits(std::uint32_t magnitude_bits) {
    return magnitude_bits > 0x7f800000U;
}

/// A BF16 pattern with NaN as +0 and Inf as +-448; finite values as they are.
[[nodiscard]] REFIT_HD constexpr std::uint16_t without_nonfinite(std::uint16_t bf16_bits) {
    if ((bf16_bits & 0x7f80U) != 0x7f80U) {
        return bf16_bits;
    }
    if ((bf16_bits & 0x7fU) != 0U) {
        return 0;
    }
    return static_cast<std::uint16_t>((bf16_bits & 0x8000U) | 0x43e0U);  // 448
}

/// A BF16 pattern after the recipe's replacement of NaN and Inf.
[[nodiscard]] REFIT_HD constexpr std::uint16_t replaced(const TileScaling& scaling,
                                                        std::uint16_t bf16_bits) {
    return scaling.nonfinite_input == NonfiniteInput::replace ? without_nonfinite(bf16_bits)
                                                              : bf16_bits;
}

/// What a magnitude (BF16 widened to F32 bits, sign clear) adds to the amax of its tile.
[[nodiscard]] REFIT_HD constexpr std::uint32_t amax_part(const TileScaling& scaling,
                                                         std::uint32_t magnitude_bits) {
    if (magnitude_bits < 0x7f800000U || scaling.nonfinite_input == NonfiniteInput::propagate) {
        return magnitude_bits;
    }
    if (is_nan_bits(magnitude_bits)) {
        return 0U;
    }
    return scaling.nonfinite_input == NonfiniteInput::replace ? 0x43e00000U : magnitude_bits;
}

/// What a tile needs: the stored scale and the operand of the quotient.
struct TileFactor {
    float scale_inv = 0.0F;  ///< stored; the multiplier that dequantizes. NaN is always 0x7fc00000.
    float operand = 0.0F;    ///< s, f or fl32(1/s), as TileScaling::quotient says
};

namespace detail {

/// Payloads of NaN differ between processors; the stored one must not.
[[nodiscard]] REFIT_HD constexpr float canonical_nan(float value) {
    const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(value) & 0x7fffffffU;
    return is_nan_bits(magnitude) ? std::bit_cast<float>(0x7fc00000U) : value;
}

/// Exponent byte of the smallest power of two >= scale, 0 for scale <= 2^-127 and for NaN, at most
/// 254.
[[nodiscard]] REFIT_HD constexpr std::uint32_t ceil_exponent_byte(float scale) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(scale);
    if (is_nan_bits(bits)) {
        return 0;
    }
    const std::uint32_t exponent = bits >> 23;
    const std::uint32_t mantissa = bits & 0x7fffffU;
    if (exponent == 0) {
        return mantissa > 0x400000U ? 1U : 0U;  // 2^-127 is the subnormal 0x400000
    }
    const std::uint32_t rounded = exponent + (mantissa != 0 ? 1U : 0U);
    return rounded < 254U ? rounded : 254U;
}

/// 2^(127 - byte) for byte in [0, 254]; 2^-127 is subnormal.
[[nodiscard]] REFIT_HD constexpr float factor_from_byte(std::uint32_t byte) {
    return std::bit_cast<float>(byte == 254U ? 0x00400000U : (254U - byte) << 23);
}

/// clamp(floor(log2(amax)) - 8, -127, 127) + 127 for an amax that is no NaN; Inf gives 254. A
/// subnormal amax is below 2^-126: its byte is 0.
[[nodiscard]] REFIT_HD constexpr std::uint32_t floor_exponent_byte(std::uint32_t amax_bits) {
    const std::uint32_t exponent = amax_bits >> 23;
    if (exponent == 255U) {
        return 254U;
    }
    return exponent > 8U ? exponent - 8U : 0U;
}

/// 127 + the smallest e in [-127, 127] for which 448 * 2^e > amax; 255 from 1.75 * 2^127 on. 448 is
/// 1.75 * 2^8.
[[nodiscard]] REFIT_HD constexpr std::uint32_t above_exponent_byte(std::uint32_t amax_bits) {
    const std::uint32_t carried = (amax_bits + 0x200000U) >> 23;  // one more from 1.75 on
    if (carried >= 255U) {
        return 255U;
    }
    return carried > 8U ? carried - 8U : 0U;
}

/// A scale as BF16 holds it; NaN stays NaN.
[[nodiscard]] REFIT_HD constexpr float as_bf16(float value) {
    return bf16_to_f32(f32_to_bf16(value));
}

}  // namespace detail

/// Scale and operand of a tile from its amax (F32 bits, sign clear; NaN and Inf allowed).
[[nodiscard]] REFIT_HD constexpr TileFactor tile_factor(const TileScaling& scaling,
                                                        std::uint32_t amax_bits) {
    const bool special = (scaling.special_amax == SpecialAmax::factor_is_one &&
                          (amax_bits == 0U || amax_bits == 0x7f800000U)) ||
                         (scaling.special_amax == SpecialAmax::factor_is_one_unless_positive &&
                          (amax_bits == 0U || is_nan_bits(amax_bits)));
    float amax = std::bit_cast<float>(amax_bits);
    if (scaling.special_amax == SpecialAmax::amax_is_448 &&
        (amax_bits == 0U || is_nan_bits(amax_bits))) {
        amax = kE4m3Max;
    }
    // The comparisons are written so that NaN passes, as PyTorch's clamp lets it.
    if (scaling.floor_on == FloorOn::amax && amax < scaling.floor_value) {
        amax = scaling.floor_value;
    }
    if (scaling.amax_ceiling > 0.0F && amax > scaling.amax_ceiling) {
        amax = scaling.amax_ceiling;
    }

    float scale = 0.0F;
    float factor = 0.0F;
    bool has_factor = false;
    switch (scaling.formula) {
        case ScaleFormula::amax_over_448:
            scale = amax / kE4m3Max;
            break;
        case ScaleFormula::amax_times_reciprocal_448:
            scale = amax * (1.0F / kE4m3Max);
            break;
        case ScaleFormula::reciprocal_amax_times_448:
            factor = special ? 1.0F : (1.0F / amax) * kE4m3Max;
            has_factor = true;
            break;
        case ScaleFormula::c448_over_amax:
            factor = special ? 1.0F : kE4m3Max / amax;
            has_factor = true;
            break;
    }
    if (!has_factor) {
        if (scaling.floor_on == FloorOn::scale && scale < scaling.floor_value) {
            scale = scaling.floor_value;
        }
        const float used = scaling.round_scale_to_bf16 ? detail::as_bf16(scale) : scale;
        if (scaling.zero_scale > 0.0F && used == 0.0F) {
            scale = scaling.zero_scale;
        }
        if (scaling.power_of_two == PowerOfTwo::scale_up) {
            const std::uint32_t bits = std::bit_cast<std::uint32_t>(scale);
            std::uint32_t exponent = (bits >> 23) + ((bits & 0x7fffffU) != 0 ? 1U : 0U);
            exponent = exponent < 1U ? 1U : exponent;
            exponent = exponent > 254U ? 254U : exponent;
            scale = std::bit_cast<float>(exponent << 23);
        } else if (scaling.power_of_two == PowerOfTwo::exponent_byte) {
            const std::uint32_t byte = detail::ceil_exponent_byte(scale);
            factor = byte == 0U ? 1.0F : detail::factor_from_byte(byte);
            has_factor = true;
        } else if (scaling.power_of_two == PowerOfTwo::e8m0_ceil) {
            factor = detail::factor_from_byte(detail::ceil_exponent_byte(scale));
            has_factor = true;
        } else if (scaling.power_of_two == PowerOfTwo::e8m0_floor) {
            const std::uint32_t bits = std::bit_cast<std::uint32_t>(amax);
            scale = e8m0_to_f32(is_nan_bits(bits)
                                    ? std::uint8_t{255}
                                    : static_cast<std::uint8_t>(detail::floor_exponent_byte(bits)));
        } else if (scaling.power_of_two == PowerOfTwo::e8m0_above) {
            scale = e8m0_to_f32(static_cast<std::uint8_t>(
                detail::above_exponent_byte(std::bit_cast<std::uint32_t>(amax))));
        }
    }
    if (has_factor) {
        scale = 1.0F / factor;
    }
    TileFactor result;
    result.scale_inv = detail::canonical_nan(scale);
    if (scaling.scale_storage == ScaleStorage::bf16) {
        result.scale_inv = detail::as_bf16(result.scale_inv);
    }
    switch (scaling.quotient) {
        case Quotient::divide_by_scale:
            result.operand = scaling.round_scale_to_bf16 ? detail::as_bf16(scale) : scale;
            break;
        case Quotient::multiply_by_factor:
            result.operand = factor;
            break;
        case Quotient::multiply_by_reciprocal:
            result.operand = 1.0F / scale;
            break;
    }
    result.operand = detail::canonical_nan(result.operand);
    return result;
}

/// The number that is cast: x over or times the operand, with the recipe's further roundings.
[[nodiscard]] REFIT_HD constexpr float quotient(const TileScaling& scaling, float x,
                                                float operand) {
    float value = scaling.quotient == Quotient::divide_by_scale ? x / operand : x * operand;
    if (scaling.round_quotient_to_bf16) {
        value = bf16_to_f32(f32_to_bf16(value));
    }
    if (scaling.add_zero) {
        value = value + 0.0F;
    }
    if (scaling.clamp) {
        value = value > kE4m3Max ? kE4m3Max : value;
        value = value < -kE4m3Max ? -kE4m3Max : value;
    }
    return value;
}

/// E4M3FN code of one element of a tile.
[[nodiscard]] REFIT_HD constexpr std::uint8_t encode_element(const TileScaling& scaling,
                                                             std::uint16_t bf16_bits,
                                                             float operand) {
    const float value = quotient(scaling, bf16_to_f32(replaced(scaling, bf16_bits)), operand);
    if (scaling.nonfinite_input == NonfiniteInput::drop_nan &&
        is_nan_bits(std::bit_cast<std::uint32_t>(value) & 0x7fffffffU)) {
        return 0xfe;
    }
    return f32_to_e4m3(value);
}

}  // namespace refit::numerics
