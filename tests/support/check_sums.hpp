// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What the device's check must share with the definitions of single elements.
#pragma once

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/cuda/element_program.hpp"

namespace refit::kernels::cuda {

/// Counts, largest ratio (where `worst_too`) and first places are equal; sums are right to the
/// rounding of eight squares in F32.
inline void expect_found(const CheckSums& found, const CheckSums& expected, bool worst_too = true) {
    constexpr double kRounding = 0x1p-20;
    EXPECT_NEAR(found.x2, expected.x2, kRounding * expected.x2);
    if (std::isnan(expected.error2)) {
        EXPECT_TRUE(std::isnan(found.error2));
    } else {
        EXPECT_NEAR(found.error2, expected.error2, kRounding * expected.error2);
        EXPECT_NEAR(found.x_error, expected.x_error,
                    kRounding * std::sqrt(expected.x2) * std::sqrt(expected.error2));
    }
    if (worst_too) {
        EXPECT_EQ(found.worst, expected.worst);
    }
    EXPECT_EQ(found.elements, expected.elements);
    EXPECT_EQ(found.saturated, expected.saturated);
    EXPECT_EQ(found.flushed, expected.flushed);
    EXPECT_EQ(found.exact, expected.exact);
    EXPECT_EQ(found.beyond, expected.beyond);
    EXPECT_EQ(found.first_beyond, expected.first_beyond);
    EXPECT_EQ(found.nonfinite, expected.nonfinite);
    EXPECT_EQ(found.first_nonfinite, expected.first_nonfinite);
}

}  // namespace refit::kernels::cuda
