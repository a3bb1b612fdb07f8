// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Small tiles whose scale is a power of two (MX): what a tile's amax says about all its codes.
#pragma once

#include <cstdint>

#include "kernels/numerics/tile_scaling.hpp"

namespace refit::kernels::cpu {

/// For a tile of one amax. A magnitude m (15-bit BF16 pattern) in [smallest, amax] has the code
/// min(nearest_even(m / 16) - subtract, 126): dividing by a power of two changes the exponent only,
/// and 4 of the 7 bits of the significand are rounded away.
struct PowerEntry {
    float scale_inv = 0.0F;
    std::int16_t subtract = 0;
    std::int16_t smallest = 0x7fff;  ///< 0x7fff: no magnitude is covered
};

/// One entry for each of the 32,768 magnitudes that an amax can be (its F32 bits >> 16); null where
/// the scaling is not of this kind (its tiles are not 32 wide, its scale is no power of two, or it
/// treats elements before or after the quotient). Made from numerics::tile_factor, once a thread
/// for each scaling in a row; valid until the thread asks for another scaling.
[[nodiscard]] const PowerEntry* power_entries(const numerics::TileScaling& scaling);

}  // namespace refit::kernels::cpu
