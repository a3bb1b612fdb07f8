// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Kernels for what is sent and what arrives: digests of rectangles, values of another type, values
// and scales that are not finite, matrices derived from loaded weights. What a thread does is in
// digest_program.hpp, value_program.hpp, scan_program.hpp and latent_program.hpp.
#include "kernels/cuda/cuda_call.hpp"
#include "kernels/cuda/device_kernels.hpp"
#include "kernels/cuda/scan_program.hpp"

namespace refit::kernels::cuda {
namespace {

constexpr std::int64_t kMostBlocks = 1 << 16;
constexpr int kDigestThreads = 32;  ///< of which eight work: one job a warp

__global__ void __launch_bounds__(kBlockThreads)
    sum_blocks(const DigestJob* jobs, std::int64_t count, std::int64_t blocks,
               const std::uint64_t* secret, std::uint64_t* sums) {
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
         i < blocks * numerics::kXxh3Lanes; i += step) {
        sums[i] = digest_block_lane(jobs, count, i / numerics::kXxh3Lanes, i % numerics::kXxh3Lanes,
                                    secret);
    }
}

__global__ void __launch_bounds__(kDigestThreads)
    finish_digests(const DigestJob* jobs, std::int64_t count, const std::uint64_t* secret,
                   const std::uint64_t* sums, numerics::Xxh128* results) {
    __shared__ std::uint64_t lanes[numerics::kXxh3Lanes];
    const auto lane = static_cast<std::int64_t>(threadIdx.x);
    for (std::int64_t i = blockIdx.x; i < count; i += gridDim.x) {
        const DigestJob job = jobs[i];
        if (job.length() > numerics::kXxh3ShortBytes && lane < numerics::kXxh3Lanes) {
            lanes[lane] = digest_lane(job, sums, lane, secret);
        }
        __syncthreads();
        if (lane == 0) {
            results[i] = digest_of_job(job, lanes, secret);
        }
        // The next job overwrites what thread 0 may still read.
        __syncthreads();
    }
}

__global__ void __launch_bounds__(kBlockThreads)
    convert_values(const ValueRectangle* rectangles, std::int64_t count, std::int64_t values) {
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
         i < values; i += step) {
        convert_value(rectangles, count, i);
    }
}

__global__ void __launch_bounds__(kBlockThreads)
    look_at_scales(const ValueRectangle* rectangles, std::int64_t count, std::int64_t values,
                   UnusableScales* results) {
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
         i < values; i += step) {
        const std::int64_t which = item_of(rectangles, count, &ValueRectangle::first, i);
        const std::int64_t local = i - rectangles[which].first;
        if (is_unusable(rectangles[which], local)) {
            atomicAdd(&results[which].count, 1ULL);
            atomicMin(&results[which].first, static_cast<unsigned long long>(local));
        }
    }
}

__global__ void __launch_bounds__(kBlockThreads)
    raise_max_bits(const std::uint32_t* bits, std::int64_t count, std::uint32_t* result) {
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    std::uint32_t most = 0;
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
         i < count; i += step) {
        most = larger(most, bits[i]);
    }
    if (most != 0U) {
        atomicMax(result, most);
    }
}

__global__ void __launch_bounds__(kBlockThreads)
    mark_scales(const std::uint32_t* amax_bits, float* scale_inv, std::int64_t count) {
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
         i < count; i += step) {
        mark_nonfinite(amax_bits, scale_inv, i);
    }
}

__global__ void __launch_bounds__(kBlockThreads)
    replace_values(std::uint8_t* values, std::int64_t count) {
    const std::int64_t threads = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    replace_nonfinite(values, count,
                      static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, threads);
}

__global__ void __launch_bounds__(kBlockThreads) derive_values(const DeriveJob job) {
    __shared__ DerivedTile tile;
    const int thread = static_cast<int>(threadIdx.x);
    const std::int64_t tiles = derived_tiles(job);
    for (std::int64_t i = blockIdx.x; i < tiles; i += gridDim.x) {
        derive_load(job, i, thread, tile);
        __syncthreads();
        derive_store(job, i, thread, tile);
        // The next tile overwrites what others may still read.
        __syncthreads();
    }
}

__global__ void __launch_bounds__(kBlockThreads)
    set_to_word(std::uint32_t* words, std::uint32_t value, std::int64_t count) {
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
         i < count; i += step) {
        words[i] = value;
    }
}

unsigned blocks_for(std::int64_t threads) {
    const std::int64_t blocks = (threads + kBlockThreads - 1) / kBlockThreads;
    return static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks);
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

void load_digest_kernels() {
    load_kernel(sum_blocks);
    load_kernel(finish_digests);
    load_kernel(convert_values);
    load_kernel(look_at_scales);
    load_kernel(raise_max_bits);
    load_kernel(mark_scales);
    load_kernel(replace_values);
    load_kernel(derive_values);
    load_kernel(set_to_word);
}

void launch_digests(const DigestJob* jobs, std::int64_t count, std::int64_t blocks,
                    const std::uint64_t* secret, std::uint64_t* sums, numerics::Xxh128* results,
                    cudaStream_t stream) {
    if (count <= 0) {
        return;
    }
    if (blocks > 0) {
        sum_blocks<<<blocks_for(blocks * numerics::kXxh3Lanes), kBlockThreads, 0, stream>>>(
            jobs, count, blocks, secret, sums);
        check_launch("kernel sum_blocks");
    }
    const auto grid = static_cast<unsigned>(count < kMostBlocks ? count : kMostBlocks);
    finish_digests<<<grid, kDigestThreads, 0, stream>>>(jobs, count, secret, sums, results);
    check_launch("kernel finish_digests");
}

void launch_convert(const ValueRectangle* rectangles, std::int64_t count, std::int64_t values,
                    cudaStream_t stream) {
    if (count <= 0 || values <= 0) {
        return;
    }
    convert_values<<<blocks_for(values), kBlockThreads, 0, stream>>>(rectangles, count, values);
    check_launch("kernel convert_values");
}

void launch_look_at_scales(const ValueRectangle* rectangles, std::int64_t count,
                           std::int64_t values, UnusableScales* results, cudaStream_t stream) {
    if (count <= 0 || values <= 0) {
        return;
    }
    look_at_scales<<<blocks_for(values), kBlockThreads, 0, stream>>>(rectangles, count, values,
                                                                     results);
    check_launch("kernel look_at_scales");
}

void launch_max_bits(const std::uint32_t* bits, std::int64_t count, std::uint32_t* result,
                     cudaStream_t stream) {
    if (count <= 0) {
        return;
    }
    raise_max_bits<<<blocks_for(count), kBlockThreads, 0, stream>>>(bits, count, result);
    check_launch("kernel raise_max_bits");
}

void launch_mark_nonfinite(const std::uint32_t* amax_bits, float* scale_inv, std::int64_t count,
                           cudaStream_t stream) {
    if (count <= 0) {
        return;
    }
    mark_scales<<<blocks_for(count), kBlockThreads, 0, stream>>>(amax_bits, scale_inv, count);
    check_launch("kernel mark_scales");
}

void launch_replace_nonfinite(std::uint8_t* values, std::int64_t count, cudaStream_t stream) {
    if (count <= 0) {
        return;
    }
    replace_values<<<blocks_for((count + kChunk - 1) / kChunk), kBlockThreads, 0, stream>>>(values,
                                                                                            count);
    check_launch("kernel replace_values");
}

void launch_derive(const DeriveJob& job, cudaStream_t stream) {
    const std::int64_t tiles = derived_tiles(job);
    if (tiles <= 0) {
        return;
    }
    const auto grid = static_cast<unsigned>(tiles < kMostBlocks ? tiles : kMostBlocks);
    derive_values<<<grid, kBlockThreads, 0, stream>>>(job);
    check_launch("kernel derive_values");
}

void launch_set_words(std::uint32_t* words, std::uint32_t value, std::int64_t count,
                      cudaStream_t stream) {
    if (count <= 0) {
        return;
    }
    set_to_word<<<blocks_for(count), kBlockThreads, 0, stream>>>(words, value, count);
    check_launch("kernel set_to_word");
}

}  // namespace refit::kernels::cuda
