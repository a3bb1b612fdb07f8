// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "wire/checksum.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace refit::wire {
namespace {

std::string hex_of(std::string_view text) {
    return to_string(digest_of(std::as_bytes(std::span(text.data(), text.size()))));
}

TEST(Digest, EqualsThePublishedValuesOfXxh3With128Bits) {
    EXPECT_EQ(hex_of(""), "99aa06d3014798d86001c324468d497f");
    EXPECT_EQ(to_string(digest_of({})), "99aa06d3014798d86001c324468d497f");
    EXPECT_EQ(hex_of("a"), "a96faf705af16834e6c632b61e964e1f");
    EXPECT_EQ(hex_of("abc"), "06b05ab6733a618578af5f94892f3950");
}

TEST(Digest, PrintsLeadingZeros) {
    EXPECT_EQ(to_string(Digest{1, 2}), "00000000000000020000000000000001");
}

TEST(DigestStream, GivesTheSameInPartsAsInOne) {
    std::vector<std::byte> bytes(5000);
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * i * 7 + i);
    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{240},
                                   std::size_t{241}, std::size_t{1024}, bytes.size()}) {
        for (const std::size_t part : {1, 7, 64, 255, 4096}) {
            DigestStream stream;
            for (std::size_t at = 0; at < size; at += part) {
                stream.update(bytes.data() + at, std::min(part, size - at));
            }
            EXPECT_EQ(stream.value(), digest_of(std::span(bytes).first(size)))
                << size << " in parts of " << part;
        }
    }
}

TEST(DigestStream, BeginsAnewAfterReset) {
    DigestStream stream;
    stream.update("xyz", 3);
    stream.reset();
    EXPECT_EQ(to_string(stream.value()), "99aa06d3014798d86001c324468d497f");
    stream.update("abc", 3);
    EXPECT_EQ(to_string(stream.value()), "06b05ab6733a618578af5f94892f3950");
}

TEST(DigestStream, MayBeMoved) {
    DigestStream first;
    first.update("ab", 2);
    DigestStream second = std::move(first);
    second.update("c", 1);
    EXPECT_EQ(to_string(second.value()), "06b05ab6733a618578af5f94892f3950");
}

TEST(Digest, ChangesWithEveryBit) {
    std::vector<std::byte> bytes(97, std::byte{0x40});
    const Digest before = digest_of(bytes);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        for (int bit = 0; bit < 8; ++bit) {
            bytes[i] ^= static_cast<std::byte>(1 << bit);
            EXPECT_NE(digest_of(bytes), before) << i << "." << bit;
            bytes[i] ^= static_cast<std::byte>(1 << bit);
        }
    }
}

}  // namespace
}  // namespace refit::wire
