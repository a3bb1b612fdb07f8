// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Everything that decides the bits of a scaled FP8 matrix, as data. The functions that act on it
// are in kernels/numerics/scale.hpp. Formulas and the special-value table: kernels/README.md.
#pragma once

#include <cstdint>

namespace refit::numerics {

/// How the tile's number comes from its amax. `fl32` is one rounding to F32.
/// Scale forms give s, the multiplier that dequantizes; factor forms give f, the multiplier that
/// quantizes, and then s = fl32(1 / f).
enum class ScaleFormula : std::uint8_t {
    amax_over_448,              ///< s = fl32(amax / 448), IEEE division
    amax_times_reciprocal_448,  ///< s = fl32(amax * fl32(1/448)), as PyTorch divides by a number on
                                ///< CUDA
    reciprocal_amax_times_448,  ///< f = fl32(fl32(1 / amax) * 448), as Python's 448 / tensor
    c448_over_amax,             ///< f = fl32(448 / amax), as torch.div
};

/// Where the lower bound `floor_value` acts. NaN passes it.
enum class FloorOn : std::uint8_t { nothing, amax, scale };

/// What happens to an amax that has no useful scale.
enum class SpecialAmax : std::uint8_t {
    propagate,      ///< zero, Inf and NaN go through the formula
    factor_is_one,  ///< amax 0 or Inf: f = 1 (factor forms only); NaN goes through
    amax_is_448,    ///< amax 0 or NaN: amax = 448, before the bounds
    /// Amax 0 or NaN: f = 1 (factor forms only); Inf goes through.
    factor_is_one_unless_positive,
};

/// Rounding of the number to a power of two, after the floor.
enum class PowerOfTwo : std::uint8_t {
    none,
    /// s up to the next power of two by its bits; exponent field clamped to [1, 254], Inf and NaN
    /// too.
    scale_up,
    /// e = clamp(ceil(log2(s)), -127, 127) + 127, 0 for NaN; f = 1 if e is 0, else 2^(127 - e).
    exponent_byte,
    /// The same e, byte 0 included: f = 2^(127 - e), s = 2^(e - 127).
    e8m0_ceil,
    /// s = 2^clamp(floor(log2(amax)) - 8, -127, 127), NaN for NaN: the shared scale of OCP MX for
    /// E4M3, whose largest power of two is 2^8. The formula is not used.
    e8m0_floor,
    /// s = 2^e with the smallest e in [-127, 127] for which 448 * 2^e is above amax, NaN from
    /// amax 1.75 * 2^127 on. The formula is not used.
    e8m0_above,
};

/// What NaN and Inf of the input meet.
enum class NonfiniteInput : std::uint8_t {
    propagate,  ///< NaN wins amax, and a NaN quotient has the NaN code
    /// Maxima and minima that return the other operand: amax skips NaN, and the clamp turns a NaN
    /// quotient into its lower bound, code 0xfe.
    drop_nan,
    replace,  ///< NaN becomes +0 and Inf +-448 before anything looks at them
};

/// How the scale is stored. The code is made with the F32 scale, but for round_scale_to_bf16.
enum class ScaleStorage : std::uint8_t {
    f32,
    bf16,  ///< rounded to nearest even
    e8m0,  ///< one byte e, 2^(e - 127), 255 for NaN; only with the e8m0 forms of PowerOfTwo
};

/// What is rounded to F32 before the cast.
enum class Quotient : std::uint8_t {
    divide_by_scale,         ///< x / s
    multiply_by_factor,      ///< x * f, with f of a factor form or of PowerOfTwo::exponent_byte
    multiply_by_reciprocal,  ///< x * fl32(1 / s)
};

/// What enters the amax of a tile that reaches over the edge of the matrix.
enum class Edge : std::uint8_t {
    true_extent,       ///< its own elements only; the same as padding with zeros
    pad_last_element,  ///< its own elements and W[rows - 1, cols - 1]
};

/// Tile extents, formula and special cases of a recipe. A default object is a plain 128 x 128
/// scaling.
struct TileScaling {
    std::int64_t tile_rows = 128;  ///< 0: all rows of the matrix
    std::int64_t tile_cols = 128;  ///< 0: all columns of the matrix
    ScaleFormula formula = ScaleFormula::amax_over_448;
    FloorOn floor_on = FloorOn::nothing;
    float floor_value = 0.0F;
    float amax_ceiling = 0.0F;  ///< upper bound of amax, applied after the floor; 0: none
    SpecialAmax special_amax = SpecialAmax::propagate;
    float zero_scale = 0.0F;  ///< replaces a scale of exactly 0 (scale forms); 0: keep
    PowerOfTwo power_of_two = PowerOfTwo::none;
    Quotient quotient = Quotient::divide_by_scale;
    /// The quotient uses s rounded to BF16, whatever is stored, and an s that is 0 then counts as 0
    /// (scale forms without a power of two).
    bool round_scale_to_bf16 = false;
    bool round_quotient_to_bf16 = false;  ///< before add_zero, clamp and cast: a second rounding
    bool add_zero = false;                ///< quotient + 0: turns -0 into +0
    /// Clamp to +-448 before the cast. The cast here saturates, so this decides no bit; it says
    /// what the source does, which matters under a cast that gives NaN above 464.
    bool clamp = true;
    Edge edge = Edge::true_extent;
    NonfiniteInput nonfinite_input = NonfiniteInput::propagate;
    ScaleStorage scale_storage = ScaleStorage::f32;

    bool operator==(const TileScaling&) const = default;
};

/// Whether a tile can hold NaN or Inf without its amax telling: look at the input instead.
[[nodiscard]] constexpr bool hides_nonfinite(const TileScaling& scaling) {
    return scaling.nonfinite_input != NonfiniteInput::propagate;
}

}  // namespace refit::numerics
