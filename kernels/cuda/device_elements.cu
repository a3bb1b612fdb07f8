// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Kernels that look at loaded weights and that lay arrived bytes out. What a thread does is in
// element_program.hpp and placement_program.hpp.
#include "kernels/cuda/cuda_call.hpp"
#include "kernels/cuda/device_kernels.hpp"

namespace refit::kernels::cuda {
namespace {

/// The second dimension of a grid ends here; kernels walk on from there.
constexpr std::int64_t kMostGridRows = 65535;
constexpr std::int64_t kMostFlatBlocks = 16384;
/// Blocks of the kernel that copies rows; each goes on to further rows.
constexpr std::int64_t kMostRowBlocks = 1 << 16;

__global__ void __launch_bounds__(kBlockThreads)
    check_patches(const CheckJob job, CheckSums* results, std::int64_t patch_rows,
                  std::int64_t across) {
    // Raw bytes, since sums have initializers.
    __shared__ alignas(alignof(CheckSums)) unsigned char memory[kBlockThreads * sizeof(CheckSums)];
    auto* sums = reinterpret_cast<CheckSums*>(memory);
    const int thread = static_cast<int>(threadIdx.x);
    for (std::int64_t row = blockIdx.y; row < patch_rows; row += gridDim.y) {
        sums[thread] = check_patch(job, row, blockIdx.x, thread);
        for (int distance = kBlockThreads / 2; distance > 0; distance /= 2) {
            __syncthreads();
            merge_step(sums, thread, distance);
        }
        if (thread == 0) {
            results[row * across + blockIdx.x] = sums[0];
        }
        // The next patch overwrites what thread 0 may still read.
        __syncthreads();
    }
}

__global__ void __launch_bounds__(kBlockThreads)
    count_nonfinite(const std::uint16_t* values, std::int64_t count, NonfiniteCounts* result) {
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
         i < count; i += step) {
        const int kind = nonfinite_kind(values[i]);
        if (kind != 0) {
            atomicAdd(kind == 1 ? &result->nan : &result->inf, 1ULL);
            atomicMin(&result->first, static_cast<unsigned long long>(i));
        }
    }
}

__global__ void __launch_bounds__(kBlockThreads)
    place_rows(const PlacedRectangle* rectangles, std::int64_t count, std::int64_t rows) {
    for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        place_row(rectangles, count, row, static_cast<int>(threadIdx.x), kBlockThreads);
    }
}

__global__ void __launch_bounds__(kBlockThreads)
    pack_words(const ScalePackJob job, std::int64_t words, unsigned long long* refused) {
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
         i < words; i += step) {
        const int bad = pack_scales(job, i);
        if (bad != 0) {
            atomicAdd(refused, static_cast<unsigned long long>(bad));
        }
    }
}

unsigned flat_blocks(std::int64_t count) {
    const std::int64_t blocks = (count + kBlockThreads - 1) / kBlockThreads;
    return static_cast<unsigned>(blocks < kMostFlatBlocks ? blocks : kMostFlatBlocks);
}

void check_launch(const char* kernel) {
    check_cuda(cudaGetLastError(), kernel);
}

}  // namespace

void launch_check(const CheckJob& job, CheckSums* results, cudaStream_t stream) {
    if (job.rows <= 0 || job.cols <= 0) {
        return;
    }
    const std::int64_t rows = patches_down(job);
    const std::int64_t across = patches_across(job);
    const dim3 grid(static_cast<unsigned>(across),
                    static_cast<unsigned>(rows < kMostGridRows ? rows : kMostGridRows));
    check_patches<<<grid, kBlockThreads, 0, stream>>>(job, results, rows, across);
    check_launch("kernel check_patches");
}

void launch_count_nonfinite(const std::uint16_t* values, std::int64_t count,
                            NonfiniteCounts* result, cudaStream_t stream) {
    if (count <= 0) {
        return;
    }
    count_nonfinite<<<flat_blocks(count), kBlockThreads, 0, stream>>>(values, count, result);
    check_launch("kernel count_nonfinite");
}

void launch_place(const PlacedRectangle* rectangles, std::int64_t count, std::int64_t rows,
                  cudaStream_t stream) {
    if (count <= 0 || rows <= 0) {
        return;
    }
    const auto blocks = static_cast<unsigned>(rows < kMostRowBlocks ? rows : kMostRowBlocks);
    place_rows<<<blocks, kBlockThreads, 0, stream>>>(rectangles, count, rows);
    check_launch("kernel place_rows");
}

void launch_pack_scales(const ScalePackJob& job, unsigned long long* refused, cudaStream_t stream) {
    const std::int64_t words = packed_words(job);
    if (words <= 0) {
        return;
    }
    pack_words<<<flat_blocks(words), kBlockThreads, 0, stream>>>(job, words, refused);
    check_launch("kernel pack_words");
}

}  // namespace refit::kernels::cuda
