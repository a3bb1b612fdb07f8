// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The host side of NVIDIA's cuda_fp8.h as a second opinion on the cast.
#include <gtest/gtest.h>

#include <bit>
#include <cstdint>

#include "kernels/numerics/float8.hpp"

#if __has_include(<cuda_fp8.h>)
#include <cuda_fp8.h>
#endif

namespace {

TEST(E4m3, AgreesWithTheCudaHeaderOnSampledFloats) {
#if __has_include(<cuda_fp8.h>)
    std::uint64_t compared = 0;
    for (std::uint64_t bits = 0; bits < (1ULL << 32); bits += 347) {
        const float value = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
        std::uint8_t theirs = __nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3);
        if ((theirs & 0x7fU) == 0x7fU) {
            theirs = 0x7f;  // the sign of a NaN is not kept here
        }
        ASSERT_EQ(refit::numerics::f32_to_e4m3(value), theirs) << std::hex << bits;
        ++compared;
    }
    EXPECT_GT(compared, 12'000'000U);
#else
    GTEST_SKIP() << "cuda_fp8.h is not installed on this machine";
#endif
}

}  // namespace
