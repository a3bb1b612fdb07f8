// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/cuda_ipc/cuda_driver.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

#include "core/error.hpp"
#include "transport/hex.hpp"

#if __has_include(<cuda.h>)
#include <cuda.h>
#define REFIT_HAS_CUDA_H 1
#endif

namespace refit::transport {
namespace {

std::string why_not(const std::string& library) {
    try {
        const CudaDriver driver(library);
        return "";
    } catch (const core::NotViable& error) {
        return error.what();
    }
}

TEST(CudaDriver, SaysWhichLibraryIsMissing) {
    EXPECT_NE(why_not("libno-such-driver.so.1").find("libno-such-driver.so.1"), std::string::npos);
}

TEST(CudaDriver, NamesTheFunctionThatAnotherLibraryLacks) {
    EXPECT_NE(why_not("libm.so.6").find("cuInit"), std::string::npos);
}

TEST(CudaDriver, IsNotViableWhereTheDriverListsNoDevice) {
    setenv("REFIT_FAKE_DEVICES", "0", 1);
    EXPECT_EQ(why_not(REFIT_FAKE_DEVICE), "no CUDA device: the driver lists none");
    unsetenv("REFIT_FAKE_DEVICES");
    EXPECT_EQ(why_not(REFIT_FAKE_DEVICE), "");
}

TEST(CudaDriver, GivesErrorsWithTheCallAndTheDriversText) {
    const CudaDriver driver(REFIT_FAKE_DEVICE);
    EXPECT_EQ(driver.device_count(), 2);
    EXPECT_EQ(driver.version(), 13000);
    try {
        driver.check(driver.calls().free(4096), "cuMemFree");
        FAIL() << "freed what was never allocated";
    } catch (const core::ResourceError& error) {
        EXPECT_STREQ(error.what(), "cuMemFree failed: invalid argument (CUDA error 1)");
    }
}

TEST(CudaDriver, HasTheDeclarationsOfTheToolkit) {
#if defined(REFIT_HAS_CUDA_H)
    static_assert(sizeof(CUdeviceptr) == sizeof(CudaPointer));
    static_assert(sizeof(CUipcMemHandle) == sizeof(CudaIpcHandle));
    static_assert(sizeof(CUdevice) == sizeof(int) && sizeof(CUresult) == sizeof(int));
    EXPECT_EQ(CUDA_ERROR_NOT_READY, 600);
    EXPECT_EQ(CU_STREAM_NON_BLOCKING, 1);
    EXPECT_EQ(CU_EVENT_DISABLE_TIMING, 2);
    EXPECT_EQ(CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS, 1);
#else
    GTEST_SKIP() << "cuda.h is not installed on this machine";
#endif
}

TEST(CudaDevice, CopiesInTheOrderOfItsStreamAndNotBefore) {
    setenv("REFIT_CUDA_LIBRARY", REFIT_FAKE_DEVICE, 1);
    CudaDevice device(0);
    const CudaPointer memory = device.allocate(100);
    const auto from = device.allocate_pinned(100);
    const auto to = device.allocate_pinned(100);
    std::memset(from.get(), 0x7f, 100);
    CudaMark mark(device);
    EXPECT_TRUE(mark.reached()) << "nothing is under way before the first record()";
    device.upload(memory, from.get(), 100);
    device.download(to.get(), memory, 100);
    mark.record();
    EXPECT_FALSE(mark.reached());
    EXPECT_EQ(to.get()[99], std::byte{0});
    int turns = 0;
    while (!mark.reached() && turns < 100) ++turns;
    EXPECT_EQ(to.get()[99], std::byte{0x7f});
    device.free(memory);
}

TEST(DeviceOfRank, CountsTheRanksOfTheSameHostBeforeIt) {
    const std::vector<std::string> hosts = {"a", "b", "a", "a", "b"};
    EXPECT_EQ(device_of_rank(0, hosts, 8), 0);
    EXPECT_EQ(device_of_rank(1, hosts, 8), 0);
    EXPECT_EQ(device_of_rank(3, hosts, 8), 2);
    EXPECT_EQ(device_of_rank(3, hosts, 2), 0);
    EXPECT_EQ(device_of_rank(4, hosts, 8), 1);
}

TEST(Hex, CarriesEveryByteAndRefusesOtherText) {
    unsigned char bytes[256];
    for (int i = 0; i < 256; ++i) bytes[i] = static_cast<unsigned char>(i);
    const std::string text = to_hex(bytes, sizeof bytes);
    EXPECT_EQ(text.substr(0, 8), "00010203");
    EXPECT_EQ(text.substr(508), "feff");
    unsigned char back[256] = {};
    from_hex(text, back, sizeof back);
    EXPECT_EQ(std::memcmp(bytes, back, sizeof bytes), 0);
    EXPECT_THROW(from_hex("0g", back, 1), core::ResourceError);
    EXPECT_THROW(from_hex("000", back, 1), core::ResourceError);
    EXPECT_THROW(from_hex("-1", back, 1), core::ResourceError);
}

}  // namespace
}  // namespace refit::transport
