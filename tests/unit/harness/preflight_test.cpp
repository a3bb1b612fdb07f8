// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/preflight.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
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
    EXPECT_EQ((CaseNeeds{1, 20, 300, 4000, 20, 0, 77}.total()), 4321U);
    EXPECT_EQ((CaseNeeds{1, 20, 300, 4000, 20, 50'000, 77}.total()), 54'321U);
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

/// A model in FP8 with one trainer's largest matrix, in bytes of a slot of backend cuda.
CaseNeeds needs_with_backend(const std::string& backend, const std::string& transport,
                             int trainers = 2, bool on_device = false,
                             const std::string& model = "tiny-llama") {
    Case c = harness_test::small_case("vllm-fp8", "fp8_blockwise", trainers, 1);
    c.model_name = model;
    c.engines = 3;
    c.backend = backend;
    const CaseSetup setup = set_up_case(c);
    const trainer::RefitPlan plan = trainer::make_plan(
        setup.tensors, setup.instance.wanted, setup.payload, setup.sharding, setup.trainer_faults);
    return needs_of(c, setup, plan, transport, true, on_device);
}

TEST(NeedsOf, OfARefitOnTheDeviceCountsWhatIsHeldThereAndNoStaging) {
    // The second derives matrices of latent attention, which are held beside the copies: of three
    // receivers, each with 8 heads of 128 + 128 rows and 128 columns in BF16.
    const std::map<std::string, std::uint64_t> kDerived = {{"tiny-llama", 0},
                                                           {"tiny-mla", 3 * (8 * 256 * 128 * 2)}};
    for (const char* model : {"tiny-llama", "tiny-mla"}) {
        SCOPED_TRACE(model);
        const CaseNeeds staged = needs_with_backend("cuda", "cuda_ipc", 2, false, model);
        const CaseNeeds ipc = needs_with_backend("cuda", "cuda_ipc", 2, true, model);
        const CaseNeeds nccl = needs_with_backend("cuda", "nccl", 2, true, model);
        EXPECT_GT(staged.staging, 0U);
        EXPECT_EQ(ipc.staging, 0U);
        EXPECT_EQ(ipc.transport_buffers, 0U);
        EXPECT_EQ(ipc.receiver_copies, 0U);
        EXPECT_LE(ipc.trainer_shards, staged.trainer_shards);
        // Weights of the trainers, both copies of three receivers, and the slots of the trainers.
        const std::uint64_t slots = staged.transport_buffers / 4;
        const std::uint64_t held = staged.trainer_shards + staged.receiver_copies + slots;
        EXPECT_GE(ipc.device_memory, held);
        EXPECT_LE(ipc.device_memory, held + held / 10);
        // Over NCCL every receiver has slots for all trainers too.
        EXPECT_EQ(nccl.device_memory, ipc.device_memory + 3 * slots);
        EXPECT_LT(ipc.device_memory_of_rank, ipc.device_memory);
        // The audit reads a copy of each receiver's parameters on the host, and of what is derived.
        const std::uint64_t derived = kDerived.at(model);
        EXPECT_EQ(ipc.audit, staged.audit + (staged.receiver_copies + derived) / 2);
    }
}

TEST(NeedsOf, CountsTheSlotsThatBackendCudaStagesThrough) {
    const CaseNeeds cpu = needs_with_backend("auto", "mpi");
    const CaseNeeds one = needs_with_backend("cuda", "mpi", 1);
    const CaseNeeds two = needs_with_backend("cuda", "mpi");
    const CaseNeeds threads = needs_with_backend("cuda", "loopback");
    EXPECT_EQ(cpu.staging, 0U);
    EXPECT_EQ(cpu.device_memory, 0U);
    EXPECT_EQ(two.total(), cpu.total() + two.staging);
    EXPECT_EQ(two.staging, 2 * one.staging);
    EXPECT_EQ(threads.staging, one.staging);  // they are threads of one process
    // Two slots of the largest matrix that is quantized, 3 bytes an element, and a little for its
    // tiles; on the device also the scan of the embedding, which is larger.
    std::uint64_t largest = 0;
    const CaseSetup setup =
        set_up_case(harness_test::small_case("vllm-fp8", "fp8_blockwise", 1, 1));
    for (const model::TensorSpec& tensor : setup.tensors) {
        if (tensor.role != model::Role::down_proj && tensor.role != model::Role::gate_proj)
            continue;
        largest = std::max(largest, static_cast<std::uint64_t>(core::element_count(tensor.shape)));
    }
    ASSERT_GT(largest, 100'000U);
    EXPECT_GE(one.staging, 2 * 3 * largest);
    EXPECT_LE(one.staging, 2 * 3 * largest + largest / 100);
    EXPECT_GE(one.device_memory, one.staging);
}

TEST(NeedsOf, CountsTheSlotsOfDeviceTransportsOnHostAndDevice) {
    const CaseNeeds mpi = needs_with_backend("auto", "mpi");
    const CaseNeeds nccl = needs_with_backend("auto", "nccl");
    const CaseNeeds ipc = needs_with_backend("auto", "cuda_ipc");
    // Three receivers: four slots of NCCL for one of a trainer, on both sides.
    EXPECT_EQ(nccl.transport_buffers, mpi.transport_buffers);
    EXPECT_EQ(nccl.device_memory, nccl.transport_buffers);
    EXPECT_EQ(ipc.transport_buffers, mpi.transport_buffers);
    EXPECT_EQ(4 * ipc.device_memory, nccl.device_memory);
    EXPECT_EQ(4 * nccl.device_memory_of_rank, nccl.device_memory);
    EXPECT_LE(2 * ipc.device_memory_of_rank, ipc.device_memory + ipc.device_memory / 10);
    EXPECT_GE(2 * ipc.device_memory_of_rank, ipc.device_memory);
}

TEST(CheckDeviceNeeds, ComparesThisNodesShareWithWhatItsDevicesHaveFree) {
    const auto refused = [](std::uint64_t need, double share,
                            const kernels::cuda::DeviceMemory& memory) {
        CaseNeeds needs;
        needs.device_memory = need;
        try {
            check_device_needs(needs, share, memory);
        } catch (const core::ResourceError& error) {
            return std::string(error.what());
        }
        return std::string();
    };
    constexpr std::uint64_t kGb = 1'000'000'000;
    EXPECT_EQ(refused(40 * kGb, 1.0, {40 * kGb, 80 * kGb, 0, 1}), "");
    const std::string text = refused(41 * kGb, 1.0, {40 * kGb, 80 * kGb, 0, 1});
    for (const char* words : {"41.00 GB", "(it has 1)", "40.00 GB of 80.00 GB", "backend=auto"})
        EXPECT_NE(text.find(words), std::string::npos) << text;
    EXPECT_EQ(refused(41 * kGb, 1.0, {40 * kGb, 80 * kGb, kGb, 1}), "");
    EXPECT_EQ(refused(41 * kGb, 1.0, {40 * kGb, 80 * kGb, 0, 2}), "");
    EXPECT_EQ(refused(41 * kGb, 0.5, {40 * kGb, 80 * kGb, 0, 1}), "");
    // What one rank needs is on one device, however many there are.
    CaseNeeds one;
    one.device_memory = one.device_memory_of_rank = 41 * kGb;
    EXPECT_THROW(check_device_needs(one, 1.0, {40 * kGb, 80 * kGb, 0, 8}), core::ResourceError);
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
