// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// XXH3, 128 bits, seed 0 and default secret, cut into parts that many threads can do at once: the
// digest of the wire, computed where the bytes are.
//
// Within a block of 1,024 bytes the eight accumulators only add, and no accumulator sees another:
// sums of blocks are made in parallel, eight threads a block. Between two blocks each accumulator
// is scrambled by itself: eight threads walk the chain of sums, and one brings the eight together.
// Source: the xxHash specification, doc/xxhash_spec.md of the release 0.8.2 (XXH3-128).
#pragma once

#include <cstdint>

#include "kernels/numerics/host_device.hpp"

namespace refit::numerics {

/// As XXH128_hash_t has it.
struct Xxh128 {
    std::uint64_t low = 0;
    std::uint64_t high = 0;
};

inline constexpr std::int64_t kXxh3Lanes = 8;
inline constexpr std::int64_t kXxh3StripeBytes = 64;
inline constexpr std::int64_t kXxh3BlockStripes = 16;
inline constexpr std::int64_t kXxh3BlockBytes = kXxh3StripeBytes * kXxh3BlockStripes;
/// Streams of at most this many bytes have formulas of their own, without blocks.
inline constexpr std::int64_t kXxh3ShortBytes = 240;
inline constexpr std::int64_t kXxh3SecretBytes = 192;

/// The default secret as little-endian words; kernels get it as memory of the device.
inline constexpr std::uint64_t kXxh3Secret[kXxh3SecretBytes / 8] = {
    0xbe4ba423396cfeb8ULL, 0x1cad21f72c81017cULL, 0xdb979083e96dd4deULL, 0x1f67b3b7a4a44072ULL,
    0x78e5c0cc4ee679cbULL, 0x2172ffcc7dd05a82ULL, 0x8e2443f7744608b8ULL, 0x4c263a81e69035e0ULL,
    0xcb00c391bb52283cULL, 0xa32e531b8b65d088ULL, 0x4ef90da297486471ULL, 0xd8acdea946ef1938ULL,
    0x3f349ce33f76faa8ULL, 0x1d4f0bc7c7bbdcf9ULL, 0x3159b4cd4be0518aULL, 0x647378d9c97e9fc8ULL,
    0xc3ebd33483acc5eaULL, 0xeb6313faffa081c5ULL, 0x49daf0b751dd0d17ULL, 0x9e68d429265516d3ULL,
    0xfca1477d58be162bULL, 0xce31d07ad1b8f88fULL, 0x280416958f3acb45ULL, 0x7e404bbbcafbd7afULL,
};

namespace xxh3 {

inline constexpr std::uint32_t kPrime32_1 = 0x9e3779b1U;
inline constexpr std::uint32_t kPrime32_2 = 0x85ebca77U;
inline constexpr std::uint32_t kPrime32_3 = 0xc2b2ae3dU;
inline constexpr std::uint64_t kPrime64_1 = 0x9e3779b185ebca87ULL;
inline constexpr std::uint64_t kPrime64_2 = 0xc2b2ae3d27d4eb4fULL;
inline constexpr std::uint64_t kPrime64_3 = 0x165667b19e3779f9ULL;
inline constexpr std::uint64_t kPrime64_4 = 0x85ebca77c2b2ae63ULL;
inline constexpr std::uint64_t kPrime64_5 = 0x27d4eb2f165667c5ULL;
inline constexpr std::uint64_t kPrimeMix1 = 0x165667919e3779f9ULL;
inline constexpr std::uint64_t kPrimeMix2 = 0x9fb21c651e98df25ULL;

[[nodiscard]] REFIT_HD constexpr std::uint64_t low32(std::uint64_t x) {
    return x & 0xffffffffULL;
}
[[nodiscard]] REFIT_HD constexpr std::uint32_t swap32(std::uint32_t x) {
    return x << 24 | (x << 8 & 0x00ff0000U) | (x >> 8 & 0x0000ff00U) | x >> 24;
}
[[nodiscard]] REFIT_HD constexpr std::uint64_t swap64(std::uint64_t x) {
    return std::uint64_t{swap32(static_cast<std::uint32_t>(x))} << 32 |
           swap32(static_cast<std::uint32_t>(x >> 32));
}

/// All 128 bits of a product, from four products of 32 bits.
[[nodiscard]] REFIT_HD constexpr Xxh128 product(std::uint64_t a, std::uint64_t b) {
    const std::uint64_t low = low32(a) * low32(b);
    const std::uint64_t middle_a = (a >> 32) * low32(b);
    const std::uint64_t middle_b = low32(a) * (b >> 32);
    const std::uint64_t high = (a >> 32) * (b >> 32);
    const std::uint64_t cross = (low >> 32) + low32(middle_a) + middle_b;
    return {cross << 32 | low32(low), (middle_a >> 32) + (cross >> 32) + high};
}
[[nodiscard]] REFIT_HD constexpr std::uint64_t folded(std::uint64_t a, std::uint64_t b) {
    const Xxh128 whole = product(a, b);
    return whole.low ^ whole.high;
}

[[nodiscard]] REFIT_HD constexpr std::uint64_t avalanche(std::uint64_t x) {
    x ^= x >> 37;
    x *= kPrimeMix1;
    return x ^ x >> 32;
}
/// The one of XXH64, for the shortest streams.
[[nodiscard]] REFIT_HD constexpr std::uint64_t avalanche64(std::uint64_t x) {
    x ^= x >> 33;
    x *= kPrime64_2;
    x ^= x >> 29;
    x *= kPrime64_3;
    return x ^ x >> 32;
}

/// Eight bytes of the secret at any offset.
[[nodiscard]] REFIT_HD constexpr std::uint64_t key(const std::uint64_t* secret,
                                                   std::int64_t offset) {
    const std::int64_t word = offset / 8;
    const auto shift = static_cast<int>(8 * (offset % 8));
    return shift == 0 ? secret[word] : secret[word] >> shift | secret[word + 1] << (64 - shift);
}

/// `Stream` gives byte(offset) and word(offset), the latter little-endian, of any offset.
template <class Stream>
[[nodiscard]] REFIT_HD constexpr std::uint32_t half_word(const Stream& stream, std::int64_t at) {
    std::uint32_t value = 0;
    for (int i = 3; i >= 0; --i) value = value << 8 | stream.byte(at + i);
    return value;
}

template <class Stream>
[[nodiscard]] REFIT_HD constexpr std::uint64_t mixed16(const Stream& stream, std::int64_t at,
                                                       const std::uint64_t* secret,
                                                       std::int64_t key_at) {
    return folded(stream.word(at) ^ key(secret, key_at),
                  stream.word(at + 8) ^ key(secret, key_at + 8));
}

template <class Stream>
REFIT_HD constexpr void mix32(Xxh128& sum, const Stream& stream, std::int64_t first,
                              std::int64_t second, const std::uint64_t* secret,
                              std::int64_t key_at) {
    sum.low += mixed16(stream, first, secret, key_at);
    sum.low ^= stream.word(second) + stream.word(second + 8);
    sum.high += mixed16(stream, second, secret, key_at + 16);
    sum.high ^= stream.word(first) + stream.word(first + 8);
}

[[nodiscard]] REFIT_HD constexpr Xxh128 finished(const Xxh128& sum, std::uint64_t length) {
    return {avalanche(sum.low + sum.high),
            0 - avalanche(sum.low * kPrime64_1 + sum.high * kPrime64_4 + length * kPrime64_2)};
}

template <class Stream>
[[nodiscard]] REFIT_HD constexpr Xxh128 up_to_3(const Stream& stream, std::int64_t length,
                                                const std::uint64_t* secret) {
    if (length == 0) {
        return {avalanche64(key(secret, 64) ^ key(secret, 72)),
                avalanche64(key(secret, 80) ^ key(secret, 88))};
    }
    const std::uint32_t first = stream.byte(0);
    const std::uint32_t middle = stream.byte(length / 2);
    const std::uint32_t last = stream.byte(length - 1);
    const std::uint32_t low =
        first << 16 | middle << 24 | last | static_cast<std::uint32_t>(length) << 8;
    const std::uint32_t swapped = swap32(low);
    const std::uint32_t high = swapped << 13 | swapped >> 19;
    const std::uint64_t key_low = key(secret, 0);
    const std::uint64_t key_high = key(secret, 8);
    return {avalanche64(low ^ (low32(key_low) ^ key_low >> 32)),
            avalanche64(high ^ (low32(key_high) ^ key_high >> 32))};
}

template <class Stream>
[[nodiscard]] REFIT_HD constexpr Xxh128 from_4_to_8(const Stream& stream, std::int64_t length,
                                                    const std::uint64_t* secret) {
    const std::uint64_t both = half_word(stream, 0) | std::uint64_t{half_word(stream, length - 4)}
                                                          << 32;
    const std::uint64_t keyed = both ^ key(secret, 16) ^ key(secret, 24);
    Xxh128 sum = product(keyed, kPrime64_1 + (static_cast<std::uint64_t>(length) << 2));
    sum.high += sum.low << 1;
    sum.low ^= sum.high >> 3;
    sum.low ^= sum.low >> 35;
    sum.low *= kPrimeMix2;
    sum.low ^= sum.low >> 28;
    return {sum.low, avalanche(sum.high)};
}

template <class Stream>
[[nodiscard]] REFIT_HD constexpr Xxh128 from_9_to_16(const Stream& stream, std::int64_t length,
                                                     const std::uint64_t* secret) {
    const std::uint64_t first = stream.word(0);
    const std::uint64_t last = stream.word(length - 8);
    Xxh128 sum = product(first ^ last ^ key(secret, 32) ^ key(secret, 40), kPrime64_1);
    sum.low += static_cast<std::uint64_t>(length - 1) << 54;
    const std::uint64_t keyed = last ^ key(secret, 48) ^ key(secret, 56);
    sum.high += keyed + low32(keyed) * (kPrime32_2 - 1);
    sum.low ^= swap64(sum.high);
    Xxh128 result = product(sum.low, kPrime64_2);
    result.high += sum.high * kPrime64_2;
    return {avalanche(result.low), avalanche(result.high)};
}

template <class Stream>
[[nodiscard]] REFIT_HD constexpr Xxh128 from_17_to_240(const Stream& stream, std::int64_t length,
                                                       const std::uint64_t* secret) {
    Xxh128 sum{static_cast<std::uint64_t>(length) * kPrime64_1, 0};
    if (length <= 128) {
        for (std::int64_t i = (length - 1) / 32; i >= 0; --i)
            mix32(sum, stream, 16 * i, length - 16 * (i + 1), secret, 32 * i);
        return finished(sum, static_cast<std::uint64_t>(length));
    }
    for (std::int64_t i = 0; i < 4; ++i) mix32(sum, stream, 32 * i, 32 * i + 16, secret, 32 * i);
    sum = {avalanche(sum.low), avalanche(sum.high)};
    for (std::int64_t i = 4; i < length / 32; ++i)
        mix32(sum, stream, 32 * i, 32 * i + 16, secret, 3 + 32 * (i - 4));
    mix32(sum, stream, length - 16, length - 32, secret, 103);
    return finished(sum, static_cast<std::uint64_t>(length));
}

}  // namespace xxh3

/// Digest of a stream of at most kXxh3ShortBytes bytes.
template <class Stream>
[[nodiscard]] REFIT_HD constexpr Xxh128 xxh3_short(const Stream& stream, std::int64_t length,
                                                   const std::uint64_t* secret) {
    if (length <= 3) return xxh3::up_to_3(stream, length, secret);
    if (length <= 8) return xxh3::from_4_to_8(stream, length, secret);
    if (length <= 16) return xxh3::from_9_to_16(stream, length, secret);
    return xxh3::from_17_to_240(stream, length, secret);
}

/// Blocks of a longer stream whose sums are made apart: all but the last, which may be short.
[[nodiscard]] REFIT_HD constexpr std::int64_t xxh3_blocks(std::int64_t length) {
    return length <= kXxh3ShortBytes ? 0 : (length - 1) / kXxh3BlockBytes;
}

/// What a stripe adds to accumulator `lane`: its own word times its key, and its neighbour's word.
[[nodiscard]] REFIT_HD constexpr std::uint64_t xxh3_stripe(std::uint64_t own,
                                                           std::uint64_t neighbour,
                                                           std::uint64_t stripe_key) {
    const std::uint64_t keyed = own ^ stripe_key;
    return neighbour + xxh3::low32(keyed) * (keyed >> 32);
}

/// Accumulator `lane` before the first block.
[[nodiscard]] REFIT_HD constexpr std::uint64_t xxh3_start(std::int64_t lane) {
    switch (lane) {
        case 0:
            return xxh3::kPrime32_3;
        case 1:
            return xxh3::kPrime64_1;
        case 2:
            return xxh3::kPrime64_2;
        case 3:
            return xxh3::kPrime64_3;
        case 4:
            return xxh3::kPrime64_4;
        case 5:
            return xxh3::kPrime32_2;
        case 6:
            return xxh3::kPrime64_5;
        default:
            return xxh3::kPrime32_1;
    }
}

/// Accumulator `lane` behind a block.
[[nodiscard]] REFIT_HD constexpr std::uint64_t xxh3_scrambled(std::uint64_t sum, std::int64_t lane,
                                                              const std::uint64_t* secret) {
    return (sum ^ sum >> 47 ^ secret[kXxh3SecretBytes / 8 - kXxh3Lanes + lane]) * xxh3::kPrime32_1;
}

/// Accumulator `lane` behind the last block: its whole stripes, then the last 64 bytes of the
/// stream, which may overlap them. `sum` is that behind xxh3_blocks(length) blocks.
template <class Stream>
[[nodiscard]] REFIT_HD constexpr std::uint64_t xxh3_tail(std::uint64_t sum, const Stream& stream,
                                                         std::int64_t length, std::int64_t lane,
                                                         const std::uint64_t* secret) {
    const std::int64_t begin = xxh3_blocks(length) * kXxh3BlockBytes;
    const std::int64_t stripes = (length - 1 - begin) / kXxh3StripeBytes;
    for (std::int64_t s = 0; s < stripes; ++s) {
        const std::int64_t at = begin + s * kXxh3StripeBytes;
        sum += xxh3_stripe(stream.word(at + 8 * lane), stream.word(at + 8 * (lane ^ 1)),
                           secret[s + lane]);
    }
    const std::int64_t last = length - kXxh3StripeBytes;
    return sum + xxh3_stripe(stream.word(last + 8 * lane), stream.word(last + 8 * (lane ^ 1)),
                             xxh3::key(secret, kXxh3SecretBytes - kXxh3StripeBytes - 7 + 8 * lane));
}

/// The digest from all eight accumulators.
[[nodiscard]] REFIT_HD constexpr Xxh128 xxh3_merged(const std::uint64_t* sums, std::int64_t length,
                                                    const std::uint64_t* secret) {
    const auto bytes = static_cast<std::uint64_t>(length);
    std::uint64_t low = bytes * xxh3::kPrime64_1;
    std::uint64_t high = ~(bytes * xxh3::kPrime64_2);
    for (std::int64_t i = 0; i < kXxh3Lanes; i += 2) {
        low += xxh3::folded(sums[i] ^ xxh3::key(secret, 11 + 8 * i),
                            sums[i + 1] ^ xxh3::key(secret, 19 + 8 * i));
        high += xxh3::folded(sums[i] ^ xxh3::key(secret, 117 + 8 * i),
                             sums[i + 1] ^ xxh3::key(secret, 125 + 8 * i));
    }
    return {xxh3::avalanche(low), xxh3::avalanche(high)};
}

}  // namespace refit::numerics
