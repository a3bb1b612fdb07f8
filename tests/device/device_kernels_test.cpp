// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The kernels that no Backend call reaches: dequantize and compare.
#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "kernels/cuda/cuda_backend.hpp"
#include "kernels/cuda/cuda_call.hpp"
#include "kernels/cuda/device_kernels.hpp"
#include "kernels/cuda/device_matrix.hpp"
#include "quant/recipe.hpp"

namespace refit::kernels::cuda {
namespace {

class DeviceKernels : public ::testing::Test {
 protected:
    void SetUp() override {
        if (!cuda_row().viable) GTEST_SKIP() << cuda_row().reason;
    }

    template <class Element>
    static Element* upload(DeviceBuffer& buffer, const std::vector<Element>& values) {
        void* memory = buffer.reserve(values.size() * sizeof(Element));
        check_cuda(cudaMemcpy(memory, values.data(), values.size() * sizeof(Element),
                              cudaMemcpyHostToDevice),
                   "cudaMemcpy");
        // The kernels' streams are not ordered with the copy, which may still be under way.
        check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
        return static_cast<Element*>(memory);
    }
    template <class Element>
    static std::vector<Element> download(const DeviceBuffer& buffer, std::size_t count) {
        std::vector<Element> values(count);
        check_cuda(cudaMemcpy(values.data(), buffer.as<Element>(), count * sizeof(Element),
                              cudaMemcpyDeviceToHost),
                   "cudaMemcpy");
        return values;
    }
};

TEST_F(DeviceKernels, DequantizeEveryCodeUnderEveryKindOfScaleAsTheHostDoes) {
    const std::vector<float> scales = {1.0F,
                                       0.00123F,
                                       1e-38F,
                                       3e36F,
                                       std::bit_cast<float>(0x7f800000U),
                                       std::bit_cast<float>(0x7fc00001U)};
    std::vector<std::uint8_t> codes;
    for (std::size_t s = 0; s < scales.size(); ++s) {
        for (int code = 0; code < 256; ++code) codes.push_back(static_cast<std::uint8_t>(code));
    }
    const auto rows = static_cast<std::int64_t>(scales.size());
    std::vector<float> wide(codes.size());
    std::vector<std::uint16_t> narrow(codes.size());
    DequantizeJob host{codes.data(), scales.data(), nullptr, wide.data(), rows, 256, 1, 256, 1};
    for (std::size_t i = 0; i < codes.size(); ++i)
        dequantize_element(host, static_cast<std::int64_t>(i));
    host.bf16 = narrow.data();
    for (std::size_t i = 0; i < codes.size(); ++i)
        dequantize_element(host, static_cast<std::int64_t>(i));

    DeviceBuffer code_memory, scale_memory, wide_memory, narrow_memory;
    const Stream stream;
    DequantizeJob job = host;
    job.codes = upload(code_memory, codes);
    job.scale_inv = upload(scale_memory, scales);
    job.bf16 = nullptr;
    job.f32 = static_cast<float*>(wide_memory.reserve(codes.size() * 4));
    launch_dequantize(job, stream.get());
    job.bf16 = static_cast<std::uint16_t*>(narrow_memory.reserve(codes.size() * 2));
    launch_dequantize(job, stream.get());
    check_cuda(cudaStreamSynchronize(stream.get()), "cudaStreamSynchronize");
    const auto found = download<std::uint32_t>(wide_memory, codes.size());
    for (std::size_t i = 0; i < codes.size(); ++i)
        ASSERT_EQ(found[i], std::bit_cast<std::uint32_t>(wide[i])) << "element " << i;
    EXPECT_EQ(download<std::uint16_t>(narrow_memory, codes.size()), narrow);
}

TEST_F(DeviceKernels, CompareFindsHowManyBytesDifferAndTheFirst) {
    std::vector<std::uint8_t> left(1'000'003, 0x7f);
    std::vector<std::uint8_t> right = left;
    DeviceBuffer left_memory, right_memory, result_memory;
    const Stream stream;
    for (const std::vector<std::size_t>& planted :
         {std::vector<std::size_t>{}, {1'000'002}, {0, 5, 77'777}}) {
        right = left;
        for (const std::size_t at : planted) right[at] ^= 0x80U;
        const unsigned long long none = ~0ULL;
        auto* result = upload<unsigned long long>(result_memory, {0ULL, none});
        launch_compare(upload(left_memory, left), upload(right_memory, right),
                       static_cast<std::int64_t>(left.size()), result, result + 1, stream.get());
        check_cuda(cudaStreamSynchronize(stream.get()), "cudaStreamSynchronize");
        const auto found = download<unsigned long long>(result_memory, 2);
        EXPECT_EQ(found[0], planted.size());
        EXPECT_EQ(found[1], planted.empty() ? none : planted.front());
    }
}

/// Gaussian enough: sums of four bytes of a counter's bits.
std::vector<std::uint16_t> weights_of(std::int64_t count) {
    std::vector<std::uint16_t> values(static_cast<std::size_t>(count));
    std::uint32_t state = 12345;
    for (std::uint16_t& value : values) {
        state = state * 1664525U + 1013904223U;
        int sum = -510;
        for (int i = 0; i < 4; ++i) sum += static_cast<int>((state >> (8 * i)) & 0xffU);
        value = numerics::f32_to_bf16(static_cast<float>(sum) * 1e-4F);
    }
    return values;
}

TEST_F(DeviceKernels, AMatrixOnTheDeviceGivesTheHostsBitsAndCountsPlantedFaults) {
    constexpr std::int64_t kRows = 389;
    for (const std::int64_t cols : {264, 259}) {
        const std::vector<std::uint16_t> values = weights_of(kRows * cols);
        const auto matrix = upload_matrix(values.data(), kRows, cols);
        ASSERT_NE(matrix, nullptr);
        std::int64_t count = -1;
        EXPECT_THROW((void)matrix->count_nan_codes(count), std::invalid_argument);
        for (const quant::Recipe& recipe : quant::recipe_catalog()) {
            const TileGrid grid = tile_grid(recipe.scaling, kRows, cols);
            std::vector<std::uint32_t> amax(static_cast<std::size_t>(grid.grid_rows) *
                                            static_cast<std::size_t>(grid.grid_cols));
            std::vector<float> scales(amax.size());
            std::vector<std::uint8_t> codes(values.size());
            Band band{values.data(), cols, 0, kRows, kRows, cols, 0};
            band.last_element_bits = numerics::abs_bits(values.back());
            find_backend("portable")
                ->quantize(recipe.scaling, band, amax, scales, codes.data(), cols, {});
            EXPECT_GT(matrix->quantize(recipe.scaling), 0.0);
            const DeviceMatrix::Quantized found = matrix->quantized();
            EXPECT_EQ(found.amax_bits, amax) << recipe.name;
            EXPECT_EQ(found.scale_inv, scales) << recipe.name;
            EXPECT_EQ(found.codes, codes) << recipe.name;
            (void)matrix->compare_codes(codes.data(), count);
            EXPECT_EQ(count, 0);
            (void)matrix->count_nan_codes(count);
            EXPECT_EQ(count, 0);
            matrix->set_code(kRows * cols - 1, 0xff);
            (void)matrix->count_nan_codes(count);
            EXPECT_EQ(count, 1);
            (void)matrix->compare_codes(codes.data(), count);
            EXPECT_EQ(count, 1);
        }
        std::uint32_t bits = 0;
        (void)matrix->max_abs_bits(bits);
        EXPECT_EQ(bits, find_backend("portable")->max_abs_bits(values.data(), kRows * cols));
        EXPECT_GT(matrix->copy(1 << 20), 0.0);
    }
}

}  // namespace
}  // namespace refit::kernels::cuda
