// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The kernels that no Backend call reaches: dequantize, check, compare, place, pack.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "checks/decode.hpp"
#include "checks/element_walk.hpp"
#include "kernels/cuda/cuda_backend.hpp"
#include "kernels/cuda/cuda_call.hpp"
#include "kernels/cuda/device_kernels.hpp"
#include "kernels/cuda/device_matrix.hpp"
#include "quant/recipe.hpp"
#include "support/check_sums.hpp"

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

/// The sums by the definitions of src/checks, element by element.
CheckSums defined_sums(const std::vector<std::uint16_t>& values, std::int64_t cols,
                       const DeviceMatrix::Quantized& loaded, const TileGrid& grid,
                       const std::vector<double>& own, double slack) {
    CheckSums sums;
    for (std::size_t i = 0; i < values.size(); ++i) {
        const auto index = static_cast<std::int64_t>(i);
        if ((values[i] & 0x7f80U) == 0x7f80U) {
            sums.nonfinite += 1;
            sums.first_nonfinite = std::min(sums.first_nonfinite, index);
            continue;
        }
        const auto tile = static_cast<std::size_t>(index / cols / grid.tile_rows * grid.grid_cols +
                                                   index % cols / grid.tile_cols);
        const double x = checks::decode_bf16(values[i]);
        const double code = checks::decode_e4m3(loaded.codes[i]);
        const double scale = loaded.scale_inv[tile];
        const double error = code * scale - x;
        const double ratio = checks::error_over_bound(x, code * scale, own[tile]);
        sums.x2 += x * x;
        sums.error2 += error * error;
        sums.x_error += x * error;
        sums.worst = std::max(sums.worst, ratio);
        sums.elements += 1;
        sums.exact += error == 0.0 ? 1 : 0;
        sums.flushed += code == 0.0 && x != 0.0 ? 1 : 0;
        sums.saturated +=
            std::abs(code) == 448.0 && std::abs(x) > 448.0 * scale * (1.0 + slack) ? 1 : 0;
        if (ratio > 1.0 + slack) {
            sums.beyond += 1;
            sums.first_beyond = std::min(sums.first_beyond, index);
        }
    }
    return sums;
}

TEST_F(DeviceKernels, CheckCountsAndSumsAsTheDefinitionsSayAndSeesPlantedFaults) {
    constexpr double kSlack = 1.0 / 65536.0;
    constexpr std::int64_t kRows = 300;
    constexpr std::int64_t kCols = 259;
    std::vector<std::uint16_t> values = weights_of(kRows * kCols);
    // A tile of zeros, and small values that become code 0.
    for (std::int64_t r = 0; r < 128; ++r) {
        for (std::int64_t c = 128; c < 256; ++c)
            values[static_cast<std::size_t>(r * kCols + c)] = 0;
    }
    values[5] = 0x3000;
    for (const char* name : {"prime-rl-blockwise", "mxfp8", "tensorwise", "modelopt-pc-pt"}) {
        for (const bool special : {false, true}) {
            if (special) {
                values[1000] = 0x7f80;
                values[70'000] = 0xffc1;
            }
            const numerics::TileScaling& scaling = quant::find_recipe(name).scaling;
            const TileGrid grid = tile_grid(scaling, kRows, kCols);
            std::vector<double> own;  // of the finite values alone
            own.resize(static_cast<std::size_t>(grid.grid_rows * grid.grid_cols), 0.0);
            for (std::size_t i = 0; i < values.size(); ++i) {
                if ((values[i] & 0x7f80U) == 0x7f80U) continue;
                const auto index = static_cast<std::int64_t>(i);
                double& scale =
                    own[static_cast<std::size_t>(index / kCols / grid.tile_rows * grid.grid_cols +
                                                 index % kCols / grid.tile_cols)];
                scale = std::max(scale, std::abs(checks::decode_bf16(values[i])) / 448.0);
            }
            const auto matrix = upload_matrix(values.data(), kRows, kCols);
            (void)matrix->quantize(scaling);
            const auto expect_check = [&](const std::string& what) {
                CheckSums sums;
                (void)matrix->check(own, kSlack, sums);
                SCOPED_TRACE(std::string(name) + " " + what);
                expect_found(sums,
                             defined_sums(values, kCols, matrix->quantized(), grid, own, kSlack));
                return sums;
            };
            CheckSums sums = expect_check("as made");
            EXPECT_EQ(sums.nonfinite, special ? 2 : 0) << name;
            EXPECT_EQ(sums.first_nonfinite, special ? 1000 : kNowhere) << name;
            const std::int64_t before = sums.beyond;
            // A scale from an Inf is wrong for its whole tile, and that of MXFP8 is a power of two,
            // up to twice what the bound here is made of.
            EXPECT_TRUE(special || before == 0 || std::string(name) == "mxfp8") << name;
            const std::int64_t last = kRows * kCols - 1;
            const std::uint8_t right = matrix->quantized().codes[static_cast<std::size_t>(last)];
            matrix->set_code(last, static_cast<std::uint8_t>(right ^ 0x80U));
            sums = expect_check("with a wrong sign");
            EXPECT_TRUE(special || sums.beyond == before + 1) << name;
            matrix->set_code(last, 0x7f);
            sums = expect_check("with a NaN code");
            EXPECT_EQ(sums.worst, std::numeric_limits<double>::infinity()) << name;
            EXPECT_TRUE(std::isnan(sums.error2)) << name;
        }
        values[1000] = values[70'000] = 0x3c00;
    }
}

TEST_F(DeviceKernels, CountOfNonfiniteValuesTellsKindsAndTheFirst) {
    std::vector<std::uint16_t> values = weights_of(100'003);
    NonfiniteCounts counts;
    (void)upload_matrix(values.data(), 1, 100'003)->count_nonfinite(counts);
    EXPECT_EQ(counts.nan + counts.inf, 0U);
    EXPECT_EQ(counts.first, ~0ULL);
    values[100'002] = 0xff80;
    values[77] = 0x7f80;
    values[99] = 0xff81;
    (void)upload_matrix(values.data(), 1, 100'003)->count_nonfinite(counts);
    EXPECT_EQ(counts.nan, 1U);
    EXPECT_EQ(counts.inf, 2U);
    EXPECT_EQ(counts.first, 77U);
}

TEST_F(DeviceKernels, PlaceCutsForARankAndFusesWhateverTheAlignment) {
    // q, k and v of 96, 32 and 32 rows, cut for rank 1 of 2 and laid below each other; a matrix cut
    // by columns; rectangles without rows and of one byte.
    std::vector<std::uint8_t> source(60'000);
    for (std::size_t i = 0; i < source.size(); ++i)
        source[i] = static_cast<std::uint8_t>((i * 2654435761U) >> 13);
    const std::int64_t cols = 129;
    DeviceBuffer source_memory, target_memory, list_memory;
    const std::uint8_t* from = upload(source_memory, source);
    std::vector<std::uint8_t> expected(60'000, 0x5a);
    std::uint8_t* to = upload(target_memory, expected);
    std::vector<PlacedRectangle> list;
    std::int64_t rows = 0;
    const auto add = [&](std::int64_t from_offset, std::int64_t from_stride, std::int64_t to_offset,
                         std::int64_t to_stride, std::int64_t count, std::int64_t bytes) {
        list.push_back(
            {from + from_offset, from_stride, to + to_offset, to_stride, count, bytes, rows});
        rows += count;
        for (std::int64_t r = 0; r < count; ++r) {
            std::copy_n(source.begin() + from_offset + r * from_stride, bytes,
                        expected.begin() + to_offset + r * to_stride);
        }
    };
    add(0, cols, 0, cols, 0, cols);                               // no rows
    add(48 * cols, cols, 3, cols, 48, cols);                      // q
    add((96 + 16) * cols, cols, 3 + 48 * cols, cols, 16, cols);   // k
    add((128 + 16) * cols, cols, 3 + 64 * cols, cols, 16, cols);  // v
    add(30'000 + 40, 96, 20'000, 48, 100, 48);                    // columns, aligned alike
    add(45'001, 70, 30'000, 70, 1, 1);                            // one byte
    add(50'007, 100, 40'007, 100, 5, 100);                        // both 7 bytes off
    add(0, cols, 0, cols, 0, cols);
    const PlacedRectangle* on_device = upload(list_memory, list);
    const Stream stream;
    launch_place(on_device, static_cast<std::int64_t>(list.size()), rows, stream.get());
    check_cuda(cudaStreamSynchronize(stream.get()), "cudaStreamSynchronize");
    EXPECT_EQ(download<std::uint8_t>(target_memory, expected.size()), expected);
    // Planted: a rectangle one byte further on is seen.
    list[4].from += 1;
    on_device = upload(list_memory, list);
    launch_place(on_device, static_cast<std::int64_t>(list.size()), rows, stream.get());
    check_cuda(cudaStreamSynchronize(stream.get()), "cudaStreamSynchronize");
    EXPECT_NE(download<std::uint8_t>(target_memory, expected.size()), expected);
}

TEST_F(DeviceKernels, PackPutsFourExponentsIntoAWordAndRefusesWhatIsNoPowerOfTwo) {
    // 5 rows of a weight with tiles of 4 x 128 and 6 columns of tiles: two words a row, and room
    // for rows up to 8.
    const std::vector<float> scales = {1.0F,    2.0F,    0.5F,      4.0F, 0x1p-127F, 0x1p127F,
                                       0x1p-9F, 0x1p-9F, 0x1p-126F, 1.0F, 1.0F,      8.0F};
    DeviceBuffer scale_memory, word_memory, refused_memory;
    ScalePackJob job;
    job.scale_inv = upload(scale_memory, scales);
    job.rows = 5;
    job.tile_rows = 4;
    job.grid_cols = 6;
    ASSERT_EQ(packed_words(job), 16);
    job.words = upload(word_memory, std::vector<std::uint32_t>(16, 0x5a5a5a5aU));
    auto* refused = upload(refused_memory, std::vector<unsigned long long>{0});
    const Stream stream;
    launch_pack_scales(job, refused, stream.get());
    check_cuda(cudaStreamSynchronize(stream.get()), "cudaStreamSynchronize");
    const std::uint32_t top = 0x817e807fU;     // bytes 127, 128, 126, 129
    const std::uint32_t bottom = 0x7f017676U;  // 118, 118, 1, 127
    EXPECT_EQ(download<std::uint32_t>(word_memory, 16),
              (std::vector<std::uint32_t>{top, top, top, top, bottom, 0, 0, 0, 0xfe00U, 0xfe00U,
                                          0xfe00U, 0xfe00U, 0x827fU, 0, 0, 0}));
    EXPECT_EQ(download<unsigned long long>(refused_memory, 1).front(), 0U);
    for (const float bad : {3.0F, -1.0F, 0.0F, std::numeric_limits<float>::infinity()}) {
        std::vector<float> with_bad = scales;
        with_bad[7] = bad;  // under one row of the weight
        job.scale_inv = upload(scale_memory, with_bad);
        refused = upload(refused_memory, std::vector<unsigned long long>{0});
        launch_pack_scales(job, refused, stream.get());
        check_cuda(cudaStreamSynchronize(stream.get()), "cudaStreamSynchronize");
        EXPECT_EQ(download<unsigned long long>(refused_memory, 1).front(), 1U) << bad;
    }
}

}  // namespace
}  // namespace refit::kernels::cuda
