// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "core/nearest_name.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace refit::core {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(NearestNames, AreOrderedByEditDistance) {
    // Distances to "kitten" from the textbook: sitting 3, mitten 1, kit 3.
    const std::vector<std::string> known = {"sitting", "kit", "mitten"};
    EXPECT_THAT(nearest_names("kitten", known), ElementsAre("mitten", "sitting", "kit"));
}

TEST(NearestNames, AreThreeOfMany) {
    const std::vector<std::string> known = {"aaaaaaaa", "b", "nemo-rl-linear", "c", "d",
                                            "e",        "f", "nemo-rl-pow2",   "g", "hhhh"};
    const std::vector<std::string> nearest = nearest_names("nemo-linear", known);
    ASSERT_EQ(nearest.size(), 3U);
    EXPECT_EQ(nearest[0], "nemo-rl-linear");
    EXPECT_EQ(nearest[1], "nemo-rl-pow2");
}

TEST(NearestNames, AreEmptyWithoutAnyKnownOne) {
    EXPECT_TRUE(nearest_names("x", {}).empty());
    EXPECT_EQ(nearest_names("", std::vector<std::string>{"ab", "a"}).front(), "a");
}

TEST(UnknownNameMessage, SaysKindNameAndNearest) {
    const std::vector<std::string> known = {"mpi", "loopback"};
    const std::string text = unknown_name_message("transport", "mpy", known);
    EXPECT_THAT(text, HasSubstr("unknown transport 'mpy'"));
    EXPECT_THAT(text, HasSubstr("nearest: mpi, loopback"));
}

}  // namespace
}  // namespace refit::core
