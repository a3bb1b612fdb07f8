// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Kernels that look at loaded weights and that lay arrived bytes out. What a thread does is in
// element_program.hpp and placement_program.hpp.
#include "kernels/cuda/cuda_call.hpp"
#include "kernels/cuda/device_kernels.hpp"
#include "kernels/cuda/scan_program.hpp"

namespace refit::kernels::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kWarps = kBlockThreads / kWarp;
constexpr std::int64_t kMostFlatBlocks = 16384;
/// Blocks of the kernel that checks patches: three on each multiprocessor of a Hopper device, five
/// times over.
constexpr std::int64_t kMostCheckBlocks = 2048;
/// Blocks of the kernel that copies rows; each goes on to further rows.
constexpr std::int64_t kMostRowBlocks = 1 << 16;

__global__ void __launch_bounds__(kBlockThreads, 3)
    check_patches(const CheckJob job, CheckSums* results, std::int64_t patches,
                  std::int64_t across) {
    // Raw bytes, since sums have initializers.
    __shared__ alignas(alignof(CheckSums)) unsigned char memory[kBlockThreads * sizeof(CheckSums)];
    auto* sums = reinterpret_cast<CheckSums*>(memory);
    const int thread = static_cast<int>(threadIdx.x);
    // The largest ratio that a warp has seen spares the others the division: of positive doubles
    // the upper words are ordered as the numbers are, and without the lower one it is no larger.
    const auto share = [](double reached) {
        const auto upper = static_cast<unsigned>(__double2hiint(reached));
        return __hiloint2double(static_cast<int>(__reduce_max_sync(0xffffffffU, upper)), 0);
    };
    double reached = 0.0;
    for (std::int64_t patch = blockIdx.x; patch < patches; patch += gridDim.x) {
        const std::int64_t row = quotient_of(patch, across);
        check_patch(job, row, patch - row * across, thread, reached, share, sums[thread]);
        for (int distance = kBlockThreads / 2; distance > 0; distance /= 2) {
            __syncthreads();
            merge_step(sums, thread, distance);
        }
        if (thread == 0) {
            results[patch] = sums[0];
        }
        // The next patch overwrites what thread 0 may still read.
        __syncthreads();
    }
}

__global__ void __launch_bounds__(kBlockThreads)
    count_nonfinite(const std::uint16_t* values, std::int64_t count, NonfiniteCounts* result) {
    const std::int64_t threads = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    const std::int64_t thread = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    scan_nonfinite(values, count, thread, threads, [=](std::int64_t i) {
        atomicAdd(nonfinite_kind(values[i]) == 1 ? &result->nan : &result->inf, 1ULL);
        atomicMin(&result->first, static_cast<unsigned long long>(i));
    });
}

__global__ void __launch_bounds__(kBlockThreads)
    place_rows(const PlacedRectangle* rectangles, std::int64_t count, std::int64_t rows) {
    // A warp a row: 512 bytes at a time, four of them under way together.
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
    for (std::int64_t row = first; row < rows;
         row += static_cast<std::int64_t>(gridDim.x) * kWarps) {
        place_row(rectangles, count, row, lane, kWarp);
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

template <class Kernel>
void load_kernel(Kernel* kernel) {
    cudaFuncAttributes attributes;
    check_cuda(cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(kernel)),
               "cudaFuncGetAttributes");
}

}  // namespace

void load_element_kernels() {
    load_kernel(check_patches);
    load_kernel(count_nonfinite);
    load_kernel(place_rows);
    load_kernel(pack_words);
}

void launch_check(const CheckJob& job, CheckSums* results, cudaStream_t stream) {
    if (job.rows <= 0 || job.cols <= 0) {
        return;
    }
    const std::int64_t across = patches_across(job);
    const std::int64_t patches = patches_down(job) * across;
    // Few blocks that go on from patch to patch: what the first has seen speeds the next.
    const auto blocks =
        static_cast<unsigned>(patches < kMostCheckBlocks ? patches : kMostCheckBlocks);
    check_patches<<<blocks, kBlockThreads, 0, stream>>>(job, results, patches, across);
    check_launch("kernel check_patches");
}

void launch_count_nonfinite(const std::uint16_t* values, std::int64_t count,
                            NonfiniteCounts* result, cudaStream_t stream) {
    if (count <= 0) {
        return;
    }
    count_nonfinite<<<flat_blocks((count + 31) / 32), kBlockThreads, 0, stream>>>(values, count,
                                                                                  result);
    check_launch("kernel count_nonfinite");
}

void launch_place(const PlacedRectangle* rectangles, std::int64_t count, std::int64_t rows,
                  cudaStream_t stream) {
    if (count <= 0 || rows <= 0) {
        return;
    }
    const std::int64_t wanted = (rows + kWarps - 1) / kWarps;
    const auto blocks = static_cast<unsigned>(wanted < kMostRowBlocks ? wanted : kMostRowBlocks);
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
