// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/nearest_codes.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>

namespace refit::checks {
namespace {

constexpr double kLeastScale = 0x1p-40;
constexpr double kMostScale = 0x1p40;
/// Four roundings of F32.
constexpr double kScaleDifference = 0x1p-22;

/// 1 / (1 + significand / 128): a product costs a fifth of a quotient.
constexpr std::array<double, 128> kReciprocals = [] {
    std::array<double, 128> values{};
    for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = 1.0 / (1.0 + static_cast<double>(i) / 128.0);
    }
    return values;
}();

/// (exponent - 1023 + 7) * 8 + three bits, of a normal E4M3FN value.
int code_of(double value) {
    return static_cast<int>(std::bit_cast<std::uint64_t>(value) >> 49U) - (1023 - 7) * 8;
}

}  // namespace

NearestCodes nearest_codes(double own_scale, double loaded_scale) {
    NearestCodes codes;
    codes.own_scale = own_scale;
    codes.loaded_scale = loaded_scale;
    const auto in_range = [](double scale) { return scale >= kLeastScale && scale <= kMostScale; };
    if (!in_range(own_scale) || !in_range(loaded_scale) ||
        static_cast<double>(static_cast<float>(loaded_scale)) != loaded_scale ||
        std::abs(own_scale - loaded_scale) > own_scale * kScaleDifference) {
        return codes;
    }
    // A binade of sources whose quotients lie within [16, 128): normal codes, none saturated.
    const int exponent = std::ilogb(own_scale) + 5;
    const double first_x = std::ldexp(1.0, exponent);
    std::array<int, 128> code{};
    double worst = 0.0;
    for (int significand = 0; significand < 128; ++significand) {
        const double x = first_x * (1.0 + significand / 128.0);
        // Recipes round their quotient to F32, some of them onto a tie.
        const double quotient = static_cast<float>(x / own_scale);
        const double magic =
            std::bit_cast<double>(std::bit_cast<std::uint64_t>(quotient) & 0x7ff0000000000000U) *
            0x1.8p+49;
        const double nearest = (quotient + magic) - magic;
        code[static_cast<std::size_t>(significand)] = code_of(nearest);
        const double error = std::abs(nearest * loaded_scale - x);
        worst = std::max(worst, error * kReciprocals[static_cast<std::size_t>(significand)]);
        codes.any_exact = codes.any_exact || error == 0.0;
    }
    codes.worst_ratio = 17.0 * worst / first_x;
    const int stored_exponent = exponent + 127;
    for (int group = 0; group < 16; ++group) {
        const auto first = static_cast<std::size_t>(group) * 8;
        std::size_t last = first;
        while (last + 1 < first + 8 && code[last + 1] == code[first]) ++last;
        if (code[first + 7] > code[first] + 1) return codes;
        const auto index = static_cast<std::size_t>(group);
        codes.base[index] =
            static_cast<std::uint8_t>(code[first] - 8 * stored_exponent - group / 2);
        codes.last_of_base[index] = static_cast<std::uint8_t>(last);
    }
    // Codes fall by 8 from binade to binade, and 8 is the first normal one. The last binade with
    // normal codes begins with significands that have none.
    const int binades = (code[127] - 8) / 8;
    const auto first =
        std::find_if(code.begin(), code.end(), [&](int value) { return value >= 8 + 8 * binades; });
    const int smallest = (stored_exponent - binades) * 128 + static_cast<int>(first - code.begin());
    codes.smallest = static_cast<std::uint16_t>(std::max(smallest, 128));
    return codes;
}

const NearestCodes& NearestCodesCache::of(double own_scale, double loaded_scale) {
    // Fibonacci hashing spreads what differs in the middle of the significand.
    const auto bits = std::bit_cast<std::uint64_t>(own_scale);
    NearestCodes& known = known_[(bits * 0x9e3779b97f4a7c15U) >> 56U];
    if (known.own_scale != own_scale || known.loaded_scale != loaded_scale)
        known = nearest_codes(own_scale, loaded_scale);
    return known;
}

}  // namespace refit::checks
