// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What one thread does when it looks at a flat range once: 16 bytes at a time, four of them under
// way together, and single values where the range does not begin or end at a multiple of 16 bytes.
#pragma once

#include <cstdint>

#include "kernels/cuda/tile_program.hpp"

namespace refit::kernels::cuda {

/// Calls word(chunk, index) for 16 bytes whose first value is `index`, and one(index) for the
/// values that lie in no such word; over all threads each value comes once.
/// values : [count], aligned as its type; thread : 0 .. threads - 1.
template <class Value, class Word, class One>
REFIT_HD inline void scan_range(const Value* values, std::int64_t count, std::int64_t thread,
                                std::int64_t threads, const Word& word, const One& one) {
    constexpr std::int64_t kPerWord = 16 / static_cast<std::int64_t>(sizeof(Value));
    const auto misaligned =
        static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(values) % 16 / sizeof(Value));
    std::int64_t head = misaligned == 0 ? 0 : kPerWord - misaligned;
    head = head < count ? head : count;
    const std::int64_t words = (count - head) / kPerWord;
    for (std::int64_t i = thread; i < head; i += threads) one(i);
    std::int64_t i = thread;
    for (; i + 3 * threads < words; i += 4 * threads) {
        Chunk chunks[4];
        REFIT_UNROLL
        for (int k = 0; k < 4; ++k)
            chunks[k] = wide_chunk(values + head + (i + k * threads) * kPerWord);
        REFIT_UNROLL
        for (int k = 0; k < 4; ++k) word(chunks[k], head + (i + k * threads) * kPerWord);
    }
    for (; i < words; i += threads)
        word(wide_chunk(values + head + i * kPerWord), head + i * kPerWord);
    for (std::int64_t j = head + words * kPerWord + thread; j < count; j += threads) one(j);
}

/// Codes of 16 that are NaN.
[[nodiscard]] REFIT_HD inline unsigned nan_codes_of(const Chunk& codes) {
    unsigned count = 0;
    REFIT_UNROLL
    for (int i = 0; i < 4; ++i) {
        // 0x7f and one carry into the sign's place; nothing smaller does.
        const std::uint32_t marks = ((codes.words[i] & 0x7f7f7f7fU) + 0x01010101U) & 0x80808080U;
#if defined(__CUDA_ARCH__)
        count += static_cast<unsigned>(__popc(marks));
#else
        count += static_cast<unsigned>(__builtin_popcount(marks));
#endif
    }
    return count;
}

/// Whether one of 8 BF16 values is NaN or Inf.
[[nodiscard]] REFIT_HD inline bool has_nonfinite(const Chunk& values) {
    std::uint32_t marks = 0;
    REFIT_UNROLL
    for (int i = 0; i < 4; ++i) {
        marks |= ((values.words[i] & 0x7fff7fffU) + 0x00800080U) & 0x80008000U;
    }
    return marks != 0U;
}

/// Byte `i` of 16.
[[nodiscard]] REFIT_HD constexpr std::uint8_t chunk_byte(const Chunk& chunk, int i) {
    return static_cast<std::uint8_t>(chunk.words[i / 4] >> (8 * (i % 4)));
}

/// What a thread finds of NaN codes, of the largest magnitude, of bytes that differ.
[[nodiscard]] REFIT_HD inline unsigned scan_nan_codes(const std::uint8_t* codes, std::int64_t count,
                                                      std::int64_t thread, std::int64_t threads) {
    unsigned found = 0;
    scan_range(
        codes, count, thread, threads,
        [&](const Chunk& chunk, std::int64_t) { found += nan_codes_of(chunk); },
        [&](std::int64_t i) { found += numerics::e4m3_is_nan(codes[i]) ? 1U : 0U; });
    return found;
}

[[nodiscard]] REFIT_HD inline std::uint32_t scan_max_abs(const std::uint16_t* values,
                                                         std::int64_t count, std::int64_t thread,
                                                         std::int64_t threads) {
    std::uint32_t found = 0;
    scan_range(
        values, count, thread, threads,
        [&](const Chunk& chunk, std::int64_t) { found = larger(found, largest_magnitude(chunk)); },
        [&](std::int64_t i) { found = larger(found, numerics::abs_bits(values[i])); });
    return found;
}

/// differs(index) for every byte that differs.
template <class Differs>
REFIT_HD inline void scan_differences(const std::uint8_t* left, const std::uint8_t* right,
                                      std::int64_t count, std::int64_t thread, std::int64_t threads,
                                      const Differs& differs) {
    const bool alike =
        (reinterpret_cast<std::uintptr_t>(left) ^ reinterpret_cast<std::uintptr_t>(right)) % 16 ==
        0;
    const auto one = [&](std::int64_t i) {
        if (left[i] != right[i]) differs(i);
    };
    if (!alike) {
        for (std::int64_t i = thread; i < count; i += threads) one(i);
        return;
    }
    scan_range(
        left, count, thread, threads,
        [&](const Chunk& chunk, std::int64_t index) {
            const Chunk other = wide_chunk(right + index);
            std::uint32_t bits = 0;
            for (int i = 0; i < 4; ++i) bits |= chunk.words[i] ^ other.words[i];
            if (bits == 0U) return;
            for (int i = 0; i < 16; ++i) one(index + i);
        },
        one);
}

/// found(index) for every value that is NaN or Inf.
template <class Found>
REFIT_HD inline void scan_nonfinite(const std::uint16_t* values, std::int64_t count,
                                    std::int64_t thread, std::int64_t threads, const Found& found) {
    const auto one = [&](std::int64_t i) {
        if (numerics::abs_bits(values[i]) >= 0x7f800000U) found(i);
    };
    scan_range(
        values, count, thread, threads,
        [&](const Chunk& chunk, std::int64_t index) {
            if (!has_nonfinite(chunk)) return;
            for (int i = 0; i < kChunk; ++i) one(index + i);
        },
        one);
}

/// Writes NaN as +0 and Inf as +-448 into `count` BF16 values that begin at any address. Each value
/// is read and written by one thread, so that nothing is read that another one has written.
REFIT_HD inline void replace_nonfinite(std::uint8_t* values, std::int64_t count,
                                       std::int64_t thread, std::int64_t threads) {
    const auto one = [=](std::int64_t i) {
        const auto bits = static_cast<std::uint16_t>(values[2 * i] | values[2 * i + 1] << 8);
        const std::uint16_t finite = numerics::without_nonfinite(bits);
        if (finite == bits) return;
        values[2 * i] = static_cast<std::uint8_t>(finite);
        values[2 * i + 1] = static_cast<std::uint8_t>(finite >> 8);
    };
    const auto misaligned =
        static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(values) % sizeof(Chunk));
    std::int64_t head = count;
    if (misaligned % 2 == 0) {
        head = misaligned == 0 ? 0 : (static_cast<std::int64_t>(sizeof(Chunk)) - misaligned) / 2;
        head = head < count ? head : count;
    }
    const std::int64_t chunks = (count - head) / kChunk;
    for (std::int64_t i = thread; i < head; i += threads) one(i);
    for (std::int64_t i = thread; i < chunks; i += threads) {
        const std::int64_t first = head + i * kChunk;
        // Not through the read-only cache: this memory is written by the same launch.
        if (!has_nonfinite(*reinterpret_cast<const Chunk*>(values + 2 * first))) continue;
        for (int k = 0; k < kChunk; ++k) one(first + k);
    }
    for (std::int64_t i = head + chunks * kChunk + thread; i < count; i += threads) one(i);
}

}  // namespace refit::kernels::cuda
