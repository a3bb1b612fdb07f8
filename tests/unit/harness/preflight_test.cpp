// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/preflight.hpp"

#include <gtest/gtest.h>

#include <string>

#include "core/error.hpp"
#include "small_run.hpp"

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

struct Needs {
    std::uint64_t model_bytes = 0;  ///< BF16, from the shapes alone
    CaseNeeds needs;
};

Needs needs_of_small(const std::string& commit, bool resident, const std::string& layout = "fsdp",
                     const std::string& transport = "mpi") {
    Case c = harness_test::small_case("vllm-bf16", "bf16", 2, 1);
    c.engines = 3;
    c.commit = commit;
    c.layout = layout;
    const CaseSetup setup = set_up_case(c);
    const trainer::RefitPlan plan = trainer::make_plan(
        setup.tensors, setup.instance.wanted, setup.payload, setup.sharding, setup.trainer_faults);
    Needs found;
    for (const model::TensorSpec& tensor : setup.tensors) {
        std::uint64_t elements = 1;
        for (const std::int64_t size : tensor.shape) elements *= static_cast<std::uint64_t>(size);
        found.model_bytes += 2 * elements;
    }
    found.needs = needs_of(c, setup, plan, transport, resident);
    return found;
}

TEST(NeedsOf, CountsShardsOnceAndEveryCopyOfEveryReceiver) {
    // The vocabulary of tiny-llama needs no padding, so that a receiver holds the model's bytes.
    const Needs staged = needs_of_small("staged", true);
    EXPECT_EQ(staged.needs.trainer_shards, staged.model_bytes);
    EXPECT_EQ(staged.needs.receiver_copies, 3 * 2 * staged.model_bytes);
    const Needs in_place = needs_of_small("in_place", true);
    EXPECT_EQ(in_place.needs.receiver_copies, 3 * in_place.model_bytes);
}

TEST(NeedsOf, HoldsOneBucketATrainerWhereWeightsAreNotResident) {
    const Needs found = needs_of_small("in_place", false);
    // No tensor is larger than a bucket of 300 kB by more than its own size.
    EXPECT_GT(found.needs.trainer_shards, 0U);
    EXPECT_LT(found.needs.trainer_shards, found.model_bytes / 2);
}

TEST(NeedsOf, CountsWhatSeveralTrainersHoldAsOftenAsItIsHeld) {
    const Needs found = needs_of_small("in_place", true, "tp");
    // Norms are on both trainers, matrices are cut.
    EXPECT_GT(found.needs.trainer_shards, found.model_bytes);
    EXPECT_LT(found.needs.trainer_shards, found.model_bytes + found.model_bytes / 100);
}

TEST(NeedsOf, NeedsSlotsOfReceiversOverMpiAndSharedMemoryOverWindows) {
    const CaseNeeds mpi = needs_of_small("in_place", true, "fsdp", "mpi").needs;
    const CaseNeeds window = needs_of_small("in_place", true, "fsdp", "mpi_window").needs;
    EXPECT_EQ(mpi.transport_buffers, 4 * window.transport_buffers);
    EXPECT_EQ(mpi.shared_memory, 0U);
    EXPECT_GE(window.shared_memory, window.transport_buffers);
}

TEST(ResidentFits, ComparesThisNodesShareWithHalfOfTheMemory) {
    const CaseSetup setup = set_up_case(harness_test::small_case("vllm-bf16", "bf16", 2, 1));
    EXPECT_TRUE(resident_fits(setup, 1.0));
    const double too_much =
        static_cast<double>(available_memory_bytes()) / static_cast<double>(resident_bytes(setup));
    EXPECT_FALSE(resident_fits(setup, too_much));
}

TEST(BytesText, IsDecimal) {
    EXPECT_EQ(bytes_text(9'100'000'000), "9.10 GB");
    EXPECT_EQ(bytes_text(1'500'000), "1.5 MB");
    EXPECT_EQ(bytes_text(400), "0.4 kB");
}

}  // namespace
}  // namespace refit::harness
