// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The kernels: blocks, barriers and launches. What a thread does is in tile_program.hpp, and the
// arithmetic is in kernels/numerics.
#include "kernels/cuda/cuda_call.hpp"
#include "kernels/cuda/device_kernels.hpp"

namespace refit::kernels::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kWarps = kBlockThreads / kWarp;
constexpr unsigned kWholeWarp = 0xffffffffU;
/// The second dimension of a grid ends here; kernels walk on from there.
constexpr std::int64_t kMostGridRows = 65535;
/// Blocks of the kernel for whole rows; longer matrices take several rows a block.
constexpr std::int64_t kMostRowBlocks = 1 << 20;
/// Blocks of a kernel that walks over a flat range.
constexpr std::int64_t kMostFlatBlocks = 16384;

/// The largest of all threads' values, on every thread. `shared` holds kWarps words.
__device__ std::uint32_t block_max(std::uint32_t own, std::uint32_t* shared) {
    const unsigned warp_max = __reduce_max_sync(kWholeWarp, own);
    if (threadIdx.x % kWarp == 0) {
        shared[threadIdx.x / kWarp] = warp_max;
    }
    __syncthreads();
    std::uint32_t result = shared[0];
    for (int i = 1; i < kWarps; ++i) {
        result = larger(result, shared[i]);
    }
    // The next call may overwrite what a slow warp still reads.
    __syncthreads();
    return result;
}

template <Flavour kFlavour>
__global__ void __launch_bounds__(kBlockThreads)
    quantize_block_tiles(const Job job, std::int64_t block_rows) {
    __shared__ std::uint32_t shared[kWarps];
    const int thread = static_cast<int>(threadIdx.x);
    for (std::int64_t row = blockIdx.y; row < block_rows; row += gridDim.y) {
        BlockTile tile;
        const std::uint32_t own = block_tile_load<kFlavour>(job, row, blockIdx.x, thread, tile);
        const std::uint32_t amax = block_max(own, shared);
        block_tile_finish<kFlavour>(job, row, blockIdx.x, thread, tile, amax);
    }
}

template <int kLanes>
__global__ void __launch_bounds__(kBlockThreads)
    quantize_groups(const Job job, std::int64_t patch_rows) {
    const int thread = static_cast<int>(threadIdx.x);
    for (std::int64_t row = blockIdx.y; row < patch_rows; row += gridDim.y) {
        for (int pass = 0; pass < kPatchPasses; ++pass) {
            Chunk chunk;
            std::uint32_t amax = group_load(job, row, blockIdx.x, thread, pass, chunk);
            for (int distance = kLanes / 2; distance > 0; distance /= 2) {
                amax = larger(amax, __shfl_xor_sync(kWholeWarp, amax, distance));
            }
            group_finish<kLanes>(job, row, blockIdx.x, thread, pass, chunk, amax);
        }
    }
}

template <Flavour kFlavour>
__global__ void __launch_bounds__(kBlockThreads) quantize_whole_rows(const Job job) {
    __shared__ std::uint32_t shared[kWarps];
    const int thread = static_cast<int>(threadIdx.x);
    for (std::int64_t row = blockIdx.x; row < job.row_count; row += gridDim.x) {
        WholeRow kept;
        const std::uint32_t own = whole_row_load<kFlavour>(job, row, thread, kept);
        const std::uint32_t amax = block_max(own, shared);
        whole_row_finish<kFlavour>(job, row, thread, kept, amax);
    }
}

__global__ void __launch_bounds__(kBlockThreads)
    amax_of_patches(const Job job, const Meet meet, std::int64_t patch_rows) {
    __shared__ std::uint32_t shared[kWarps];
    const int thread = static_cast<int>(threadIdx.x);
    const auto raise = [&job](std::int64_t index, std::uint32_t bits) {
        atomicMax(job.amax_bits + index, bits);
    };
    for (std::int64_t row = blockIdx.y; row < patch_rows; row += gridDim.y) {
        const std::uint32_t own = patch_amax(job, meet, row, blockIdx.x, thread, raise);
        if (meet != Meet::patch) {
            continue;
        }
        const std::uint32_t amax = block_max(own, shared);
        if (thread == 0) {
            raise(patch_tile(job, row, blockIdx.x), amax);
        }
    }
}

__global__ void pad_tiles(const Job job, std::int64_t tiles) {
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
         i < tiles; i += step) {
        pad_tile(job, i);
    }
}

__global__ void make_factors(const Job job, std::int64_t tiles) {
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
         i < tiles; i += step) {
        make_factor(job, i);
    }
}

template <Flavour kFlavour>
__global__ void __launch_bounds__(kBlockThreads)
    encode_patches(const Job job, const Meet meet, std::int64_t patch_rows) {
    for (std::int64_t row = blockIdx.y; row < patch_rows; row += gridDim.y) {
        patch_encode<kFlavour>(job, meet, row, blockIdx.x, static_cast<int>(threadIdx.x));
    }
}

__global__ void dequantize_elements(const DequantizeJob job, std::int64_t count) {
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
         i < count; i += step) {
        dequantize_element(job, i);
    }
}

__global__ void __launch_bounds__(kBlockThreads)
    max_abs(const std::uint16_t* values, std::int64_t count, std::uint32_t* result) {
    __shared__ std::uint32_t shared[kWarps];
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    std::uint32_t own = 0;
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
         i < count; i += step) {
        own = larger(own, numerics::abs_bits(values[i]));
    }
    const std::uint32_t all = block_max(own, shared);
    if (threadIdx.x == 0) {
        atomicMax(result, all);
    }
}

__global__ void __launch_bounds__(kBlockThreads)
    count_nan(const std::uint8_t* codes, std::int64_t count, unsigned long long* result) {
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    unsigned own = 0;
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
         i < count; i += step) {
        own += numerics::e4m3_is_nan(codes[i]) ? 1U : 0U;
    }
    const unsigned warp = __reduce_add_sync(kWholeWarp, own);
    if (threadIdx.x % kWarp == 0 && warp != 0U) {
        atomicAdd(result, static_cast<unsigned long long>(warp));
    }
}

__global__ void __launch_bounds__(kBlockThreads)
    compare_bytes(const std::uint8_t* left, const std::uint8_t* right, std::int64_t count,
                  unsigned long long* differing, unsigned long long* first) {
    const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
         i < count; i += step) {
        if (left[i] != right[i]) {
            atomicAdd(differing, 1ULL);
            atomicMin(first, static_cast<unsigned long long>(i));
        }
    }
}

unsigned flat_blocks(std::int64_t count) {
    const std::int64_t blocks = (count + kBlockThreads - 1) / kBlockThreads;
    return static_cast<unsigned>(blocks < kMostFlatBlocks ? blocks : kMostFlatBlocks);
}

dim3 patch_grid(const Job& job, std::int64_t patch_rows) {
    return dim3(static_cast<unsigned>(patches_across(job)),
                static_cast<unsigned>(patch_rows < kMostGridRows ? patch_rows : kMostGridRows));
}

bool is_empty(const Job& job) {
    return job.row_count <= 0 || job.cols <= 0;
}

void check_launch(const char* kernel) {
    check_cuda(cudaGetLastError(), kernel);
}

template <Flavour kFlavour>
void quantize_as(const Job& job, cudaStream_t stream) {
    if (program_of(job) == Program::block_tiles) {
        const std::int64_t rows = patches_down(job);
        quantize_block_tiles<kFlavour>
            <<<patch_grid(job, rows), kBlockThreads, 0, stream>>>(job, rows);
        check_launch("kernel quantize_block_tiles");
        return;
    }
    const auto blocks =
        static_cast<unsigned>(job.row_count < kMostRowBlocks ? job.row_count : kMostRowBlocks);
    quantize_whole_rows<kFlavour><<<blocks, kBlockThreads, 0, stream>>>(job);
    check_launch("kernel quantize_whole_rows");
}

template <int kLanes>
void quantize_in_groups(const Job& job, cudaStream_t stream) {
    const std::int64_t rows = patches_down(job);
    quantize_groups<kLanes><<<patch_grid(job, rows), kBlockThreads, 0, stream>>>(job, rows);
    check_launch("kernel quantize_groups");
}

}  // namespace

void launch_quantize(const Job& job, cudaStream_t stream) {
    if (is_empty(job)) {
        return;
    }
    switch (program_of(job)) {
        case Program::block_tiles:
        case Program::whole_rows:
            switch (flavour_of(job.scaling)) {
                case Flavour::divide_plain:
                    return quantize_as<Flavour::divide_plain>(job, stream);
                case Flavour::multiply_plain:
                    return quantize_as<Flavour::multiply_plain>(job, stream);
                case Flavour::any:
                    return quantize_as<Flavour::any>(job, stream);
            }
            break;
        case Program::groups_of_4:
            return quantize_in_groups<4>(job, stream);
        case Program::groups_of_16:
            return quantize_in_groups<16>(job, stream);
        case Program::any:
            break;
    }
    throw CudaError("CUDA backend: no kernel quantizes tiles of " + std::to_string(job.tile_rows) +
                    " x " + std::to_string(job.tile_cols) + " in one pass; use the three steps");
}

void launch_tile_amax(const Job& job, std::int64_t touched_tiles, cudaStream_t stream) {
    if (is_empty(job)) {
        return;
    }
    const Meet meet = meet_of(job.tile_rows, job.tile_cols, job.rows, job.cols);
    const std::int64_t rows = aligned_patches_down(job);
    amax_of_patches<<<patch_grid(job, rows), kBlockThreads, 0, stream>>>(job, meet, rows);
    check_launch("kernel amax_of_patches");
    if (job.scaling.edge == numerics::Edge::pad_last_element) {
        pad_tiles<<<flat_blocks(touched_tiles), kBlockThreads, 0, stream>>>(job, touched_tiles);
        check_launch("kernel pad_tiles");
    }
}

void launch_factors(const Job& job, std::int64_t tiles, cudaStream_t stream) {
    if (tiles <= 0) {
        return;
    }
    make_factors<<<flat_blocks(tiles), kBlockThreads, 0, stream>>>(job, tiles);
    check_launch("kernel make_factors");
}

void launch_encode(const Job& job, cudaStream_t stream) {
    if (is_empty(job)) {
        return;
    }
    const Meet meet = meet_of(job.tile_rows, job.tile_cols, job.rows, job.cols);
    const std::int64_t rows = aligned_patches_down(job);
    const dim3 grid = patch_grid(job, rows);
    switch (flavour_of(job.scaling)) {
        case Flavour::divide_plain:
            encode_patches<Flavour::divide_plain>
                <<<grid, kBlockThreads, 0, stream>>>(job, meet, rows);
            break;
        case Flavour::multiply_plain:
            encode_patches<Flavour::multiply_plain>
                <<<grid, kBlockThreads, 0, stream>>>(job, meet, rows);
            break;
        case Flavour::any:
            encode_patches<Flavour::any><<<grid, kBlockThreads, 0, stream>>>(job, meet, rows);
            break;
    }
    check_launch("kernel encode_patches");
}

void launch_dequantize(const DequantizeJob& job, cudaStream_t stream) {
    const std::int64_t count = job.rows * job.cols;
    if (count <= 0) {
        return;
    }
    dequantize_elements<<<flat_blocks(count), kBlockThreads, 0, stream>>>(job, count);
    check_launch("kernel dequantize_elements");
}

void launch_max_abs(const std::uint16_t* values, std::int64_t count, std::uint32_t* result,
                    cudaStream_t stream) {
    if (count <= 0) {
        return;
    }
    max_abs<<<flat_blocks(count), kBlockThreads, 0, stream>>>(values, count, result);
    check_launch("kernel max_abs");
}

void launch_count_nan(const std::uint8_t* codes, std::int64_t count, unsigned long long* result,
                      cudaStream_t stream) {
    if (count <= 0) {
        return;
    }
    count_nan<<<flat_blocks(count), kBlockThreads, 0, stream>>>(codes, count, result);
    check_launch("kernel count_nan");
}

void launch_compare(const std::uint8_t* left, const std::uint8_t* right, std::int64_t count,
                    unsigned long long* differing, unsigned long long* first, cudaStream_t stream) {
    if (count <= 0) {
        return;
    }
    compare_bytes<<<flat_blocks(count), kBlockThreads, 0, stream>>>(left, right, count, differing,
                                                                    first);
    check_launch("kernel compare_bytes");
}

}  // namespace refit::kernels::cuda
