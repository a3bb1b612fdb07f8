// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/preflight.hpp"

#include <gtest/gtest.h>

#include <string>

#include "core/error.hpp"

namespace refit::harness {
namespace {

constexpr std::uint64_t kPetabyte = 1'000'000'000'000'000;

std::string refusal(const CaseNeeds& needs, double share = 1.0) {
    try {
        check_needs(needs, share);
    } catch (const core::ResourceError& error) {
        return error.what();
    }
    return {};
}

TEST(CheckNeeds, PassesWhatTheMachineHas) {
    CaseNeeds needs;
    needs.trainer_shards = 1000;
    needs.shared_memory = 0;
    EXPECT_EQ(refusal(needs), "");
    EXPECT_GT(available_memory_bytes(), 1'000'000U);
}

TEST(CheckNeeds, SaysNeedHaveEachPartAndRemedy) {
    CaseNeeds needs;
    needs.trainer_shards = kPetabyte;
    needs.receiver_copies = 2 * kPetabyte;
    needs.transport_buffers = 3'000'000;
    needs.audit = 4000;
    const std::string text = refusal(needs);
    for (const char* words : {"trainers' weights 1000000.00 GB", "receivers' copies 2000000.00 GB",
                              "buffers 3.0 MB", "audit 4.0 kB", "available", "model.layers"}) {
        EXPECT_NE(text.find(words), std::string::npos) << text;
    }
}

TEST(CheckNeeds, SaysWhatSharedMemoryLacks) {
    CaseNeeds needs;
    needs.shared_memory = kPetabyte;
    const std::string text = refusal(needs);
    EXPECT_NE(text.find("/dev/shm"), std::string::npos) << text;
    EXPECT_NE(text.find("--shm-size"), std::string::npos) << text;
}

TEST(CheckNeeds, CountsOnlyThisNodesShare) {
    CaseNeeds needs;
    needs.trainer_shards = kPetabyte;
    EXPECT_EQ(refusal(needs, 1e-12), "");
}

TEST(CaseNeeds, SumsItsPartsWithSharedMemoryCountedOnce) {
    EXPECT_EQ((CaseNeeds{1, 20, 300, 4000, 20}.total()), 4321U);
}

TEST(BytesText, IsDecimal) {
    EXPECT_EQ(bytes_text(9'100'000'000), "9.10 GB");
    EXPECT_EQ(bytes_text(1'500'000), "1.5 MB");
    EXPECT_EQ(bytes_text(400), "0.4 kB");
}

}  // namespace
}  // namespace refit::harness
