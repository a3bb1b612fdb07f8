// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The codes that all elements of a tile should have, by significand: what the check compares with
// where everything is as expected, so that only the rest is decoded one by one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "checks/element_block.hpp"

namespace refit::checks {

/// The nearest E4M3FN codes of one tile. A BF16 value has 128 significands; values with the same
/// one have the same rounded significand as a code, whatever their exponent, while the code is
/// normal. Over one binade the code rises by 8 and never twice within 8 neighbouring significands,
/// so a first code and a threshold for each group of 8 say all.
struct alignas(32) NearestCodes {
    /// Code of the group's first significand minus 8 * exponent + group / 2, modulo 256, with the
    /// exponent as BF16 stores it.
    std::array<std::uint8_t, 16> base{};
    std::array<std::uint8_t, 16> last_of_base{};  ///< last significand with that code
    /// Magnitudes (BF16 without sign) from here on have a normal code; 0x8000: no table, look at
    /// each element.
    std::uint16_t smallest = 0x8000;
    bool any_exact = false;    ///< whether an element with a normal code can be exact
    double worst_ratio = 0.0;  ///< largest error over bound that a nearest normal code can have
    double own_scale = 0.0;
    double loaded_scale = 0.0;
};

/// Elements that share both scales below which a table does not pay.
inline constexpr std::int64_t kNearestCodesElements = 2048;

/// nearest_e4m3 (decode.hpp) of the F32 quotient by the own scale; errors are those of the loaded
/// scale. Without a table where the two scales differ by more than a few roundings of F32, or
/// are not within [2^-40, 2^40].
[[nodiscard]] NearestCodes nearest_codes(double own_scale, double loaded_scale);

/// nearest_codes() of a matrix, whose tiles have few scales: as many as amax, 128 significands
/// times some exponents.
class NearestCodesCache {
 public:
    /// Valid until the next call.
    [[nodiscard]] const NearestCodes& of(double own_scale, double loaded_scale);

 private:
    static constexpr std::size_t kPlaces = 256;
    std::vector<NearestCodes> known_ = std::vector<NearestCodes>(kPlaces);
};

/// Neighbouring rows of neighbouring elements, all of a finite source, that share both scales.
struct ElementRows {
    const std::uint16_t* source = nullptr;  ///< [rows, count] BF16
    const std::uint8_t* codes = nullptr;    ///< [rows, count] E4M3FN, as loaded
    std::int64_t rows = 0;
    std::int64_t count = 0;
    std::int64_t source_stride = 0;
    std::int64_t code_stride = 0;
    double saturation = 0.0;  ///< magnitudes above it saturate with the loaded scale
    double threshold = 0.0;   ///< of error over bound
};

/// Most elements of one call: more additions to one F32 would lose more of the sums than 1e-6.
inline constexpr std::int64_t kMostNearestElements = 1024;

/// sum_block over rows of which nearly all elements have the nearest, normal code; magnitudes are
/// at most 448 own scales. For these expected_error2 is error2 (the scales differ by rounding
/// only), and `above` says that worst_ratio is above the threshold. False, with `sums` unspecified,
/// where the rows, the table or the processor do not suit: a count that is not a multiple of 32,
/// NaN codes, codes of the other sign.
[[nodiscard]] bool sum_nearest_rows(const ElementRows& rows, const NearestCodes& nearest,
                                    BlockSums& sums);

}  // namespace refit::checks
