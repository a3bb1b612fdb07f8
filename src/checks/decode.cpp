// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/decode.hpp"

#include <limits>

namespace refit::checks {

namespace {

double decode(unsigned code) {
    const unsigned exponent = (code >> 3) & 0xfU;  // bias 7
    const unsigned mantissa = code & 0x7U;
    if (exponent == 0xfU && mantissa == 0x7U) return std::numeric_limits<double>::quiet_NaN();
    // A subnormal is mantissa / 8 * 2^-6, a normal number (8 + mantissa) / 8 * 2^(exponent - 7).
    const double magnitude = exponent == 0
                                 ? std::ldexp(mantissa, -9)
                                 : std::ldexp(8U + mantissa, static_cast<int>(exponent) - 10);
    return (code & 0x80U) != 0 ? -magnitude : magnitude;
}

std::array<double, 256> all_values() {
    std::array<double, 256> values{};
    for (unsigned code = 0; code < 256; ++code) values[code] = decode(code);
    return values;
}

}  // namespace

const std::array<double, 256>& e4m3_values() {
    static const std::array<double, 256> kValues = all_values();
    return kValues;
}

double decode_e4m3(std::uint8_t code) {
    return e4m3_values()[code];
}

double decode_e8m0(std::uint8_t byte) {
    if (byte == 0xffU) return std::numeric_limits<double>::quiet_NaN();
    return std::ldexp(1.0, static_cast<int>(byte) - 127);
}

}  // namespace refit::checks
