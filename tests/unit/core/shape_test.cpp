// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "core/shape.hpp"

#include <gtest/gtest.h>

namespace refit::core {
namespace {

TEST(Shape, IsSeenAsAMatrixOfFirstDimensionTimesTheRest) {
    EXPECT_EQ(matrix_rows({6, 4, 5}), 6);
    EXPECT_EQ(matrix_cols({6, 4, 5}), 20);
    EXPECT_EQ(matrix_rows({7}), 7);
    EXPECT_EQ(matrix_cols({7}), 1);
    EXPECT_EQ(matrix_rows({}), 1);
    EXPECT_EQ(matrix_cols({}), 1);
}

TEST(Shape, CountsItsElements) {
    EXPECT_EQ(element_count({}), 1);
    EXPECT_EQ(element_count({3, 0, 5}), 0);
    EXPECT_EQ(element_count({151936, 8192}), std::int64_t{1244659712});
    EXPECT_EQ(element_count({1 << 20, 1 << 20}), std::int64_t{1} << 40);
}

TEST(Shape, ReadsAsAList) {
    EXPECT_EQ(to_string(Shape{576, 7168}), "[576, 7168]");
    EXPECT_EQ(to_string(Shape{}), "[]");
    EXPECT_EQ(to_string(Shape{1}), "[1]");
}

TEST(CeilDiv, RoundsUp) {
    EXPECT_EQ(ceil_div(0, 128), 0);
    EXPECT_EQ(ceil_div(1, 128), 1);
    EXPECT_EQ(ceil_div(128, 128), 1);
    EXPECT_EQ(ceil_div(129, 128), 2);
    static_assert(ceil_div(257, 128) == 3);
}

TEST(RowRange, IsEmptyWhenItEndsWhereItBegins) {
    EXPECT_TRUE((RowRange{4, 4}.empty()));
    EXPECT_FALSE((RowRange{4, 5}.empty()));
    EXPECT_EQ((RowRange{4, 9}.count()), 5);
}

}  // namespace
}  // namespace refit::core
