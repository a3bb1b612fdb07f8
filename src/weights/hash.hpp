// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The one source of chance: a counter-based hash, so that every rank draws the same without
// communication.
#pragma once

#include <cstdint>
#include <string_view>

namespace refit::weights {

/// A bijection of 64 bits in which every bit of the input decides half of the output's bits.
/// Source: the finalizer of SplitMix64 (Steele, Lea, Flood 2014, "Fast Splittable Pseudorandom
/// Number Generators").
[[nodiscard]] constexpr std::uint64_t mix(std::uint64_t x) {
    x += 0x9E3779B97F4A7C15U;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
    return x ^ (x >> 31);
}

/// Hash of two numbers; not symmetric.
[[nodiscard]] constexpr std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
    return mix(mix(a) ^ b);
}

/// Hash of a name under a seed (FNV-1a, finished by mix).
[[nodiscard]] constexpr std::uint64_t hash_name(std::uint64_t seed, std::string_view name) {
    std::uint64_t hash = 0xCBF29CE484222325U;
    for (const char c : name) {
        hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
    }
    return mix(seed, hash);
}

}  // namespace refit::weights
