// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "core/aligned_buffer.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "core/error.hpp"

namespace refit::core {
namespace {

std::uintptr_t address(const AlignedBuffer& buffer) {
    return reinterpret_cast<std::uintptr_t>(buffer.data());
}

TEST(AlignedBuffer, StartsAtAMultipleOf64BytesAndHasTheSizeAskedFor) {
    for (const std::size_t bytes : {1, 63, 64, 65, 4095, (4 << 20) - 1}) {
        AlignedBuffer buffer(bytes);
        EXPECT_EQ(buffer.size(), bytes);
        EXPECT_EQ(buffer.span().size(), bytes);
        EXPECT_EQ(address(buffer) % 64, 0U) << bytes;
        std::memset(buffer.data(), 0x5a, bytes);
        EXPECT_EQ(buffer.span().back(), std::byte{0x5a});
    }
}

TEST(AlignedBuffer, StartsAtAHugePageFrom4MiBOn) {
    AlignedBuffer buffer((std::size_t{4} << 20) + 1);
    EXPECT_EQ(address(buffer) % (std::size_t{2} << 20), 0U);
    buffer.span().back() = std::byte{1};
    EXPECT_EQ(buffer.size(), (std::size_t{4} << 20) + 1);
}

TEST(AlignedBuffer, MayBeEmpty) {
    const AlignedBuffer none;
    EXPECT_EQ(none.size(), 0U);
    const AlignedBuffer zero(0);
    EXPECT_EQ(zero.size(), 0U);
    EXPECT_TRUE(zero.span().empty());
}

TEST(AlignedBuffer, KeepsItsMemoryWhenMoved) {
    AlignedBuffer from(128);
    const std::byte* memory = from.data();
    const AlignedBuffer to = std::move(from);
    EXPECT_EQ(to.data(), memory);
    EXPECT_EQ(to.size(), 128U);
}

TEST(AlignedBuffer, SaysHowMuchWasAskedForWhenThereIsNotEnough) {
    for (const std::size_t bytes :
         {std::size_t{1} << 60, std::numeric_limits<std::size_t>::max() - 5}) {
        try {
            const AlignedBuffer buffer(bytes);
            FAIL() << bytes << " bytes were handed out";
        } catch (const ResourceError& error) {
            EXPECT_NE(std::string(error.what()).find(std::to_string(bytes)), std::string::npos)
                << error.what();
            EXPECT_EQ(error.code(), ExitCode::environment);
        }
    }
}

}  // namespace
}  // namespace refit::core
