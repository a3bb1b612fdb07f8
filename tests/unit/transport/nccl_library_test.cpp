// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/nccl/nccl_library.hpp"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "core/error.hpp"
#include "transport/cuda_ipc/cuda_driver.hpp"
#include "transport/nccl/nccl_group.hpp"

#if __has_include(<nccl.h>) && __has_include(<cuda_runtime.h>)
#include <nccl.h>
#define REFIT_HAS_NCCL_H 1
#endif

namespace refit::transport {
namespace {

std::string why_not(const std::string& library) {
    try {
        const NcclLibrary nccl({library});
        return "";
    } catch (const core::NotViable& error) {
        return error.what();
    }
}

TEST(NcclLibrary, SaysWhatCannotBeLoadedAndHowToNameAnother) {
    const std::string text = why_not("libno-such-nccl.so");
    EXPECT_NE(text.find("libno-such-nccl.so"), std::string::npos) << text;
    EXPECT_NE(text.find("REFIT_NCCL_LIBRARY"), std::string::npos) << text;
    EXPECT_NE(why_not("libm.so.6").find("ncclGetVersion"), std::string::npos);
}

TEST(NcclLibrary, TakesTheFirstCandidateThatLoads) {
    const NcclLibrary nccl({"libno-such-nccl.so", REFIT_FAKE_DEVICE});
    EXPECT_EQ(nccl.path(), REFIT_FAKE_DEVICE);
    EXPECT_EQ(nccl.version(), 22809);
    EXPECT_TRUE(nccl.can_register());
}

TEST(NcclLibrary, RefusesAVersionWithoutCommunicatorsThatDoNotBlock) {
    setenv("REFIT_FAKE_NCCL", "version_old", 1);
    const std::string text = why_not(REFIT_FAKE_DEVICE);
    unsetenv("REFIT_FAKE_NCCL");
    EXPECT_NE(text.find("2.8.4"), std::string::npos) << text;
    EXPECT_NE(text.find("2.14.0 or later"), std::string::npos) << text;
}

TEST(NcclLibrary, ReadsBothFormsOfTheVersionCode) {
    EXPECT_EQ(nccl_version_text(2804), "2.8.4");
    EXPECT_EQ(nccl_version_text(22809), "2.28.9");
    EXPECT_EQ(nccl_version_text(23007), "2.30.7");
}

TEST(NcclLibrary, KnowsBothTextsAboutSharedDevicesAndWhatHelps) {
    EXPECT_TRUE(says_duplicate_gpu("x Duplicate GPU detected : rank 1 and rank 0 both on"));
    EXPECT_TRUE(says_duplicate_gpu("Multiple Ranks are using the same GPU 0"));
    EXPECT_FALSE(says_duplicate_gpu("unhandled cuda error"));
    EXPECT_NE(duplicate_gpu_remedy(23007).find("set NCCL_MULTI_RANK_GPU_ENABLE=1"),
              std::string::npos);
    EXPECT_NE(duplicate_gpu_remedy(22809).find("2.30 or later"), std::string::npos);
    EXPECT_NE(duplicate_gpu_remedy(22809).find("2.28.9"), std::string::npos);
}

TEST(NcclLibrary, HasTheDeclarationsOfTheInstalledHeader) {
#if defined(REFIT_HAS_NCCL_H)
    static_assert(sizeof(ncclUniqueId) == sizeof(NcclUniqueId));
    static_assert(offsetof(ncclConfig_t, magic) == offsetof(NcclConfig, magic));
    static_assert(offsetof(ncclConfig_t, version) == offsetof(NcclConfig, version));
    static_assert(offsetof(ncclConfig_t, blocking) == offsetof(NcclConfig, blocking));
    const ncclConfig_t theirs = NCCL_CONFIG_INITIALIZER;
    EXPECT_EQ(theirs.magic, NcclConfig{}.magic);
    EXPECT_GE(theirs.version, NcclConfig{}.version);
    EXPECT_GE(theirs.size, sizeof(NcclConfig));
    EXPECT_EQ(ncclSuccess, kNcclSuccess);
    EXPECT_EQ(ncclInProgress, kNcclInProgress);
    EXPECT_EQ(static_cast<int>(ncclUint8), kNcclUint8);
    // The same types in the same order, as the library's own prototypes have them.
    static_assert(std::is_same_v<decltype(&ncclCommAbort), ncclResult_t (*)(ncclComm_t)>);
    static_assert(std::is_same_v<decltype(&ncclBroadcast),
                                 ncclResult_t (*)(const void*, void*, std::size_t, ncclDataType_t,
                                                  int, ncclComm_t, cudaStream_t)>);
    static_assert(
        std::is_same_v<decltype(&ncclCommInitRankConfig),
                       ncclResult_t (*)(ncclComm_t*, int, ncclUniqueId, int, ncclConfig_t*)>);
    static_assert(std::is_same_v<decltype(&ncclCommRegister),
                                 ncclResult_t (*)(const ncclComm_t, void*, std::size_t, void**)>);
#else
    GTEST_SKIP() << "nccl.h is not installed on this machine";
#endif
}

/// Two members of one communicator in one thread: joining and broadcasting never block, so one
/// after the other does.
class NcclGroups : public ::testing::Test {
 protected:
    static void SetUpTestSuite() {
        setenv("REFIT_CUDA_LIBRARY", REFIT_FAKE_DEVICE, 1);
        setenv("REFIT_NCCL_LIBRARY", REFIT_FAKE_DEVICE, 1);
    }
    void TearDown() override { unsetenv("REFIT_FAKE_NCCL"); }

    static int count(const char* what) {
        void* library = dlopen(REFIT_FAKE_DEVICE, RTLD_NOW);
        auto* const ask = reinterpret_cast<int (*)(const char*)>(dlsym(library, "fake_count"));
        return ask(what);
    }
    static NcclUniqueId new_id() {
        NcclUniqueId id{};
        EXPECT_EQ(NcclLibrary::instance().calls().get_unique_id(&id), kNcclSuccess);
        return id;
    }
    /// Ends a wait that nobody else ends, after many turns.
    static Endpoint impatient(int& turns) {
        return Endpoint{0, 1, 1, [&turns] {
                            if (++turns > 200) throw std::runtime_error("no end");
                        }};
    }
    int turns = 0;
};

TEST_F(NcclGroups, MoveTheBytesOfMemberZero) {
    const NcclUniqueId id = new_id();
    CudaDevice device(0);
    CudaDevice other(1);
    {
        NcclGroup first(0, 2, id);
        NcclGroup second(1, 2, id);
        first.finish_init(impatient(turns));
        second.finish_init(impatient(turns));
        std::vector<unsigned char> from(200'001);
        std::vector<unsigned char> to(from.size());
        for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<unsigned char>(i * 7);
        CudaMark sent(device);
        CudaMark got(other);
        first.broadcast(from.data(), from.size(), device.stream(), impatient(turns));
        sent.record();
        second.broadcast(to.data(), to.size(), other.stream(), impatient(turns));
        got.record();
        int asked = 0;
        for (bool done = false; !done && asked < 1000; ++asked) {
            // Both are asked in every turn: each moves its own side on.
            const bool left = sent.reached();
            done = got.reached() && left;
        }
        EXPECT_TRUE(from == to) << "after " << asked << " turns";
        first.poll();
        second.poll();
        // In order, each would wait in its destructor for the other, as ranks do.
        first.give_up();
        second.give_up();
    }
}

TEST_F(NcclGroups, EndInOrderWhereNothingWentWrong) {
    const int destroyed = count("destroy");
    const int aborted = count("abort");
    {
        NcclGroup group(0, 1, new_id());
        group.finish_init(impatient(turns));
    }
    EXPECT_EQ(count("destroy"), destroyed + 1);
    EXPECT_EQ(count("abort"), aborted);
}

TEST_F(NcclGroups, AbortWhenAMemberNeverJoins) {
    const int aborted = count("abort");
    {
        NcclGroup alone(0, 2, new_id());
        EXPECT_THROW(alone.finish_init(impatient(turns)), std::runtime_error);
    }
    EXPECT_EQ(count("abort"), aborted + 1);
}

TEST_F(NcclGroups, GiveNcclsTextWhenADeviceIsShared) {
    setenv("REFIT_FAKE_NCCL", "duplicate_new", 1);
    NcclGroup group(0, 1, new_id());
    try {
        group.finish_init(impatient(turns));
        FAIL() << "joined";
    } catch (const core::ResourceError& error) {
        EXPECT_TRUE(says_duplicate_gpu(error.what())) << error.what();
    }
}

TEST_F(NcclGroups, TellAnErrorThatComesAfterTheCallAndAbort) {
    const int aborted = count("abort");
    CudaDevice device(0);
    {
        NcclGroup group(0, 1, new_id());
        group.finish_init(impatient(turns));
        setenv("REFIT_FAKE_NCCL", "remote_error", 1);
        unsigned char byte = 0;
        try {
            group.broadcast(&byte, 1, device.stream(), impatient(turns));
            FAIL() << "did not notice";
        } catch (const core::ResourceError& error) {
            EXPECT_NE(std::string(error.what()).find("the peer closed the connection"),
                      std::string::npos)
                << error.what();
        }
    }
    EXPECT_EQ(count("abort"), aborted + 1);
}

TEST_F(NcclGroups, GoOnWithoutRegistrationWhereNcclDeclines) {
    NcclGroup group(0, 1, new_id());
    group.finish_init(impatient(turns));
    unsigned char memory[16] = {};
    void* handle = group.register_memory(memory, sizeof memory);
    EXPECT_NE(handle, nullptr);
    group.deregister(handle);
    setenv("REFIT_FAKE_NCCL", "no_register", 1);
    EXPECT_EQ(group.register_memory(memory, sizeof memory), nullptr);
    group.deregister(nullptr);
}

}  // namespace
}  // namespace refit::transport
