// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/element_block.hpp"

#include <cstring>

#include "checks/decode.hpp"
#include "checks/element_block_fma.hpp"

// Clones of one function for several processors need a linker that resolves them at start.
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define REFIT_CLONES [[gnu::target_clones("avx2", "default")]]
#else
#define REFIT_CLONES
#endif

namespace refit::checks {
namespace {

// Vectors of GCC and Clang: on a processor with narrower registers they are taken in parts.
using Doubles = double __attribute__((vector_size(32)));
using Floats = float __attribute__((vector_size(16)));
using Integers = std::int64_t __attribute__((vector_size(32)));
using Words = std::uint32_t __attribute__((vector_size(16)));
using Halves = std::uint16_t __attribute__((vector_size(8)));

struct Lanes {
    Doubles x2{};
    Doubles error2{};
    Doubles x_error{};
    Doubles expected2{};
    Integers saturated{};  ///< comparisons give -1: the counts are negative
    Integers flushed{};
    Integers exact{};
    Integers below{-1, -1, -1, -1};  ///< all errors so far are within the threshold
};

struct Constants {
    double loaded_scale;
    double own_scale;
    double divisor;
    double smallest_bound;
    double saturation;
    double threshold;
    bool round;
};

[[gnu::always_inline]] inline void add_four(const std::uint16_t* source, const std::uint8_t* codes,
                                            const double* values, const Constants& constants,
                                            Lanes& lanes) {
    Halves halves;
    std::memcpy(&halves, source, sizeof(halves));
    const Words wide = __builtin_convertvector(halves, Words) << 16;
    Floats floats;
    std::memcpy(&floats, &wide, sizeof(floats));
    const Doubles x = __builtin_convertvector(floats, Doubles);
    const Doubles zero{};
    const Doubles magnitude = x < zero ? -x : x;
    const Doubles code_values{values[codes[0]], values[codes[1]], values[codes[2]],
                              values[codes[3]]};
    const Doubles error = code_values * constants.loaded_scale - x;
    const Doubles distance = error < zero ? -error : error;
    const Doubles relative = magnitude * (1.0 / 17.0);
    const Doubles smallest = zero + constants.smallest_bound;
    const Doubles bound = relative < smallest ? smallest : relative;
    lanes.below &= distance <= bound * constants.threshold;
    lanes.x2 += x * x;
    lanes.error2 += error * error;
    lanes.x_error += x * error;
    lanes.exact += error == zero;
    lanes.flushed += (code_values == zero) & (magnitude > zero);
    const Doubles code_magnitude = code_values < zero ? -code_values : code_values;
    lanes.saturated += (code_magnitude == kE4m3Max) & (magnitude > constants.saturation);

    // nearest_bf16 and nearest_e4m3 of decode.hpp, on four numbers; the sign is put on last there
    // and here.
    Doubles quotient = magnitude / constants.divisor;
    if (constants.round) {
        const Doubles product = quotient * 35184372088833.0;
        quotient = product - (product - quotient);
    }
    const Doubles most = zero + kE4m3Max;
    const Doubles clamped = quotient > most ? most : quotient;
    Integers bits;
    std::memcpy(&bits, &clamped, sizeof(bits));
    bits &= 0x7ff0000000000000;
    Doubles binade;
    std::memcpy(&binade, &bits, sizeof(binade));
    const Doubles least = zero + 0x1p-6;
    binade = binade < least ? least : binade;
    const Doubles magic = binade * 0x1.8p+49;
    const Doubles expected = ((clamped + magic) - magic) * constants.own_scale - magnitude;
    lanes.expected2 += expected * expected;
}

}  // namespace

REFIT_CLONES BlockSums sum_block_exactly(const ElementBlock& block) {
    const double* values = e4m3_values().data();
    const double divisor = block.divisor > 0.0 ? block.divisor : block.own_scale;
    const Constants constants{block.loaded_scale,          block.own_scale,  divisor,
                              block.own_scale / 1024.0,    block.saturation, block.threshold,
                              block.round_quotient_to_bf16};
    Lanes lanes;
    std::int64_t i = 0;
    for (; i + 4 <= block.count; i += 4) {
        add_four(block.source + i, block.codes + i, values, constants, lanes);
    }
    std::int64_t padding = 0;
    if (i < block.count) {
        // Zeros with the code of zero add nothing but to the exact ones.
        std::uint16_t source[4] = {};
        std::uint8_t codes[4] = {};
        for (std::int64_t k = 0; i + k < block.count; ++k) {
            source[k] = block.source[i + k];
            codes[k] = block.codes[i + k];
        }
        padding = i + 4 - block.count;
        // NaN * 0 and the like: a scale that is not finite makes padding inexact.
        if (!(0.0 * block.loaded_scale == 0.0)) padding = 0;
        add_four(source, codes, values, constants, lanes);
    }
    BlockSums sums;
    for (int k = 0; k < 4; ++k) {
        sums.x2 += lanes.x2[k];
        sums.error2 += lanes.error2[k];
        sums.x_error += lanes.x_error[k];
        sums.expected_error2 += lanes.expected2[k];
        sums.saturated -= lanes.saturated[k];
        sums.flushed -= lanes.flushed[k];
        sums.exact -= lanes.exact[k];
        sums.above = sums.above || lanes.below[k] == 0;
    }
    sums.exact -= padding;
    return sums;
}

BlockSums sum_block(const ElementBlock& block) {
    BlockSums sums;
    return sum_block_fma(block, sums) ? sums : sum_block_exactly(block);
}

}  // namespace refit::checks
