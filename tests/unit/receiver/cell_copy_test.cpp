// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Single cells against loops over single elements; digests of bytes that were put together here.
#include "receiver/cell_copy.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace refit::receiver_test {
namespace {

using core::DType;
using receiver::CellCopy;
using receiver::IncomingCell;

/// A cell in the middle of a piece and of a destination.
struct OneCell {
    wire::ParameterMeta meta;
    IncomingCell cell;
    std::vector<std::byte> piece;
    std::vector<std::byte> destination;
    wire::Digest digest;
    receiver::BadScales bad;

    OneCell(std::int64_t rows, std::int64_t cols, DType from, DType to, bool from_gaps,
            bool to_gaps) {
        meta.dtype = from;
        cell.meta = &meta;
        cell.to = to;
        cell.region = {3, 5, rows, cols};
        cell.from_offset = 7;
        cell.to_offset = 5;
        cell.from_stride = cell.row_bytes() + (from_gaps ? 11 : 0);
        cell.to_stride = cols * cell.to_element() + (to_gaps ? 13 : 0);
        piece.resize(static_cast<std::size_t>(7 + rows * cell.from_stride + 9));
        destination.assign(static_cast<std::size_t>(5 + rows * cell.to_stride + 9),
                           std::byte{0xFF});
        std::mt19937 random(static_cast<unsigned>(rows * 1000 + cols));
        for (std::byte& byte : piece) byte = static_cast<std::byte>(random() & 0xFFU);
    }

    [[nodiscard]] const std::byte* from(std::int64_t row, std::int64_t col) const {
        return piece.data() + cell.from_offset + row * cell.from_stride + col * cell.from_element();
    }
    [[nodiscard]] std::size_t to(std::int64_t row, std::int64_t col) const {
        return static_cast<std::size_t>(cell.to_offset + row * cell.to_stride +
                                        col * cell.to_element());
    }

    /// Takes it over; returns how many stripes that took.
    int run(bool copies = true) {
        CellCopy copy(cell, piece.data(), destination.data(), copies);
        wire::DigestStream stream;
        std::int64_t bytes = 0;
        int stripes = 0;
        for (; !copy.done(); ++stripes) {
            copy.copy_stripe();
            bytes += copy.hash_stripe(stream);
        }
        EXPECT_EQ(bytes, cell.region.rows * cell.row_bytes());
        digest = stream.value();
        bad = copy.bad_scales();
        return stripes;
    }

    /// Of the cell's own bytes, row by row.
    [[nodiscard]] wire::Digest digest_of_rows() const {
        std::vector<std::byte> bytes;
        for (std::int64_t row = 0; row < cell.region.rows; ++row)
            bytes.insert(bytes.end(), from(row, 0), from(row, 0) + cell.row_bytes());
        return wire::digest_of(bytes);
    }
};

TEST(CellCopy, MovesTheCellAndNothingElseWhateverLiesBetweenItsRows) {
    struct Extent {
        std::int64_t rows;
        std::int64_t cols;
    };
    // Of 128 KiB a stripe: less than one, several and a rest, rows that are longer than one.
    for (const Extent& extent : {Extent{0, 4}, Extent{4, 0}, Extent{1, 1}, Extent{37, 129},
                                 Extent{1030, 257}, Extent{3, 140001}}) {
        for (const int gaps : {0, 1, 2, 3}) {
            SCOPED_TRACE(std::to_string(extent.rows) + " x " + std::to_string(extent.cols) +
                         ", gaps " + std::to_string(gaps));
            OneCell one(extent.rows, extent.cols, DType::f8_e4m3, DType::f8_e4m3, (gaps & 1) != 0,
                        (gaps & 2) != 0);
            std::vector<std::byte> expected = one.destination;
            for (std::int64_t row = 0; row < extent.rows; ++row)
                for (std::int64_t col = 0; col < extent.cols; ++col)
                    expected[one.to(row, col)] = *one.from(row, col);
            const int stripes = one.run();
            EXPECT_EQ(stripes > 1, extent.rows * extent.cols > 128 * 1024);
            EXPECT_TRUE(one.destination == expected);
            EXPECT_EQ(one.digest, one.digest_of_rows());
        }
    }
}

TEST(CellCopy, LeavesTheDestinationAloneWhereItOnlyLooks) {
    for (const DType from : {DType::f32, DType::bf16}) {
        OneCell one(50, 300, from, DType::f32, true, false);
        const std::vector<std::byte> before = one.destination;
        one.run(false);
        EXPECT_TRUE(one.destination == before);
        EXPECT_EQ(one.digest, one.digest_of_rows());
    }
}

TEST(CellCopy, WidensEveryValueOfLongRowsWithGaps) {
    OneCell one(5, 600, DType::bf16, DType::f32, true, true);
    std::vector<std::byte> expected = one.destination;
    for (std::int64_t row = 0; row < 5; ++row) {
        for (std::int64_t col = 0; col < 600; ++col) {
            // BF16 is the upper half of an F32 in little-endian memory.
            std::byte* const at = &expected[one.to(row, col)];
            std::memset(at, 0, 2);
            std::memcpy(at + 2, one.from(row, col), 2);
        }
    }
    one.run();
    EXPECT_TRUE(one.destination == expected);
    EXPECT_EQ(one.digest, one.digest_of_rows());
}

TEST(CellCopy, CountsUnusableScalesAndNamesTheFirst) {
    constexpr float kInf = std::numeric_limits<float>::infinity();
    for (const bool gaps : {true, false}) {
        OneCell one(130, 700, DType::f32, DType::f32, gaps, false);
        one.cell.is_scale = true;
        const auto set = [&](std::int64_t row, std::int64_t col, float value) {
            std::memcpy(one.piece.data() + (one.from(row, col) - one.piece.data()), &value, 4);
        };
        for (std::int64_t row = 0; row < 130; ++row)
            for (std::int64_t col = 0; col < 700; ++col) set(row, col, 1.0F);
        one.run();
        EXPECT_EQ(one.bad.count, 0);
        // In the last stripe.
        set(129, 300, kInf);
        set(129, 301, std::numeric_limits<float>::quiet_NaN());
        set(129, 302, std::numeric_limits<float>::denorm_min());
        // The first ones where a row ends and, earlier, where one begins: both behind the first
        // values that are converted together.
        for (const std::int64_t place : {68 * 700 - 1, 67 * 700}) {
            set(place / 700, place % 700, -0.0F);
            one.run();
            // In the tensor, of which the cell begins at (3, 5).
            EXPECT_EQ(one.bad.row, 3 + place / 700);
            EXPECT_EQ(one.bad.col, 5 + place % 700);
            EXPECT_TRUE(one.bad.value == 0.0F && std::signbit(one.bad.value));
        }
        EXPECT_EQ(one.bad.count, 4);
    }
}

TEST(CellCopy, TakesOneScaleARowFromAllTypesOfScales) {
    for (const DType from : {DType::f32, DType::bf16, DType::f16, DType::u8, DType::f8_e8m0}) {
        OneCell one(1000, 1, from, DType::f32, false, false);
        one.cell.is_scale = true;
        for (std::int64_t row = 0; row < 1000; ++row) {
            // 2^-1 and 2^1 in turn.
            const bool up = row % 2 != 0;
            const float value = up ? 2.0F : 0.5F;
            std::uint32_t bits;
            std::memcpy(&bits, &value, 4);
            if (from == DType::bf16) bits >>= 16;
            if (from == DType::f16) bits = up ? 0x4000U : 0x3800U;
            if (one.cell.from_element() == 1) bits = up ? 128U : 126U;
            std::memcpy(one.piece.data() + (one.from(row, 0) - one.piece.data()), &bits,
                        static_cast<std::size_t>(one.cell.from_element()));
        }
        one.run();
        EXPECT_EQ(one.bad.count, 0);
        for (std::int64_t row = 0; row < 1000; ++row) {
            float found;
            std::memcpy(&found, &one.destination[one.to(row, 0)], 4);
            ASSERT_EQ(found, row % 2 != 0 ? 2.0F : 0.5F) << core::safetensors_name(from);
        }
        EXPECT_EQ(one.digest, one.digest_of_rows());
    }
}

}  // namespace
}  // namespace refit::receiver_test
