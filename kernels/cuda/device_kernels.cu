// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The kernels: blocks, barriers and launches. What a thread does is in tile_program.hpp, and the
// arithmetic is in kernels/numerics.
#include "kernels/cuda/cuda_call.hpp"
#include "kernels/cuda/device_kernels.hpp"
#include "kernels/cuda/scan_program.hpp"

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
/// Blocks of a kernel that reads a flat range and ends with one atomic operation a block or warp.
constexpr std::int64_t kMostScanBlocks = 4096;

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

template <Flavour kFlavour, int kLanes>
__global__ void __launch_bounds__(kBlockThreads)
    quantize_groups(const Job job, std::int64_t patch_rows) {
    const int thread = static_cast<int>(threadIdx.x);
    for (std::int64_t row = blockIdx.y; row < patch_rows; row += gridDim.y) {
        BlockTile tile;
        patch_load(job, row, blockIdx.x, thread, tile);
        REFIT_UNROLL
        for (int pass = 0; pass < kPatchPasses; ++pass) {
            std::uint32_t amax = chunk_amax(as_flavour<kFlavour>(job.scaling), tile.chunks[pass]);
            REFIT_UNROLL
            for (int distance = kLanes / 2; distance > 0; distance /= 2) {
                amax = larger(amax, __shfl_xor_sync(kWholeWarp, amax, distance));
            }
            group_finish<kFlavour, kLanes>(job, row, blockIdx.x, thread, pass, tile.chunks[pass],
                                           amax);
        }
    }
}

/// Blocks of quantize_whole_rows on a multiprocessor: with 64, 48 or 40 registers a thread, 32 to
/// 128 KiB of reads are under way there.
template <int kKept>
inline constexpr int kRowBlocks = kKept <= 2 ? 6 : (kKept <= 4 ? 5 : 4);

template <Flavour kFlavour, int kKept>
__global__ void __launch_bounds__(kBlockThreads, kRowBlocks<kKept>)
    quantize_whole_rows(const Job job) {
    __shared__ std::uint32_t shared[kWarps];
    const int thread = static_cast<int>(threadIdx.x);
    for (std::int64_t row = blockIdx.x; row < job.row_count; row += gridDim.x) {
        WholeRow<kKept> kept;
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

__global__ void __launch_bounds__(kBlockThreads)
    dequantize_patches(const DequantizeJob job, std::int64_t patch_rows) {
    for (std::int64_t row = blockIdx.y; row < patch_rows; row += gridDim.y) {
        dequantize_patch(job, row, blockIdx.x, static_cast<int>(threadIdx.x));
    }
}

__device__ std::int64_t flat_thread() {
    return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ std::int64_t flat_threads() {
    return static_cast<std::int64_t>(gridDim.x) * blockDim.x;
}

__global__ void __launch_bounds__(kBlockThreads)
    max_abs(const std::uint16_t* values, std::int64_t count, std::uint32_t* result) {
    __shared__ std::uint32_t shared[kWarps];
    const std::uint32_t all =
        block_max(scan_max_abs(values, count, flat_thread(), flat_threads()), shared);
    if (threadIdx.x == 0) {
        atomicMax(result, all);
    }
}

__global__ void __launch_bounds__(kBlockThreads)
    count_nan(const std::uint8_t* codes, std::int64_t count, unsigned long long* result) {
    const unsigned warp =
        __reduce_add_sync(kWholeWarp, scan_nan_codes(codes, count, flat_thread(), flat_threads()));
    if (threadIdx.x % kWarp == 0 && warp != 0U) {
        atomicAdd(result, static_cast<unsigned long long>(warp));
    }
}

__global__ void __launch_bounds__(kBlockThreads)
    compare_bytes(const std::uint8_t* left, const std::uint8_t* right, std::int64_t count,
                  unsigned long long* differing, unsigned long long* first) {
    scan_differences(left, right, count, flat_thread(), flat_threads(), [=](std::int64_t i) {
        atomicAdd(differing, 1ULL);
        atomicMin(first, static_cast<unsigned long long>(i));
    });
}

/// Of `count` items that one thread takes each.
unsigned flat_blocks(std::int64_t count) {
    const std::int64_t blocks = (count + kBlockThreads - 1) / kBlockThreads;
    return static_cast<unsigned>(blocks < kMostFlatBlocks ? blocks : kMostFlatBlocks);
}

/// Of a range of `bytes` bytes that is read 16 at a time: four words a thread, or more.
unsigned scan_blocks(std::int64_t bytes) {
    const std::int64_t blocks = flat_blocks((bytes + 63) / 64);
    return static_cast<unsigned>(blocks < kMostScanBlocks ? blocks : kMostScanBlocks);
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

template <Flavour kFlavour, int kKept>
void quantize_rows(const Job& job, cudaStream_t stream) {
    const auto blocks =
        static_cast<unsigned>(job.row_count < kMostRowBlocks ? job.row_count : kMostRowBlocks);
    quantize_whole_rows<kFlavour, kKept><<<blocks, kBlockThreads, 0, stream>>>(job);
    check_launch("kernel quantize_whole_rows");
}

template <Flavour kFlavour>
void quantize_as(const Job& job, cudaStream_t stream) {
    const std::int64_t rows = patches_down(job);
    switch (program_of(job)) {
        case Program::block_tiles:
            quantize_block_tiles<kFlavour>
                <<<patch_grid(job, rows), kBlockThreads, 0, stream>>>(job, rows);
            return check_launch("kernel quantize_block_tiles");
        case Program::groups_of_4:
            quantize_groups<kFlavour, 4>
                <<<patch_grid(job, rows), kBlockThreads, 0, stream>>>(job, rows);
            return check_launch("kernel quantize_groups");
        case Program::groups_of_16:
            quantize_groups<kFlavour, 16>
                <<<patch_grid(job, rows), kBlockThreads, 0, stream>>>(job, rows);
            return check_launch("kernel quantize_groups");
        case Program::whole_rows:
            switch (kept_chunks(job.cols)) {
                case 2:
                    return quantize_rows<kFlavour, 2>(job, stream);
                case 4:
                    return quantize_rows<kFlavour, 4>(job, stream);
                default:
                    return quantize_rows<kFlavour, kRowChunks>(job, stream);
            }
        case Program::any:
            break;
    }
    throw CudaError("CUDA backend: no kernel quantizes tiles of " + std::to_string(job.tile_rows) +
                    " x " + std::to_string(job.tile_cols) + " in one pass; use the three steps");
}

template <class Kernel>
void load_kernel(Kernel* kernel) {
    cudaFuncAttributes attributes;
    check_cuda(cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(kernel)),
               "cudaFuncGetAttributes");
}

template <Flavour kFlavour>
void load_quantizing_kernels() {
    load_kernel(quantize_block_tiles<kFlavour>);
    load_kernel(quantize_groups<kFlavour, 4>);
    load_kernel(quantize_groups<kFlavour, 16>);
    load_kernel(quantize_whole_rows<kFlavour, 2>);
    load_kernel(quantize_whole_rows<kFlavour, 4>);
    load_kernel(quantize_whole_rows<kFlavour, kRowChunks>);
    load_kernel(encode_patches<kFlavour>);
}

}  // namespace

void load_tile_kernels() {
    load_quantizing_kernels<Flavour::divide_plain>();
    load_quantizing_kernels<Flavour::multiply_plain>();
    load_quantizing_kernels<Flavour::any>();
    load_kernel(amax_of_patches);
    load_kernel(pad_tiles);
    load_kernel(make_factors);
    load_kernel(dequantize_patches);
    load_kernel(max_abs);
    load_kernel(count_nan);
    load_kernel(compare_bytes);
}

void launch_quantize(const Job& job, cudaStream_t stream) {
    if (is_empty(job)) {
        return;
    }
    switch (flavour_of(job.scaling)) {
        case Flavour::divide_plain:
            return quantize_as<Flavour::divide_plain>(job, stream);
        case Flavour::multiply_plain:
            return quantize_as<Flavour::multiply_plain>(job, stream);
        case Flavour::any:
            return quantize_as<Flavour::any>(job, stream);
    }
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
    const std::int64_t rows = (job.rows + kPatchRows - 1) / kPatchRows;
    const std::int64_t across = (job.cols + kPatchCols - 1) / kPatchCols;
    const dim3 grid(static_cast<unsigned>(across),
                    static_cast<unsigned>(rows < kMostGridRows ? rows : kMostGridRows));
    dequantize_patches<<<grid, kBlockThreads, 0, stream>>>(job, rows);
    check_launch("kernel dequantize_patches");
}

void launch_max_abs(const std::uint16_t* values, std::int64_t count, std::uint32_t* result,
                    cudaStream_t stream) {
    if (count <= 0) {
        return;
    }
    max_abs<<<scan_blocks(2 * count), kBlockThreads, 0, stream>>>(values, count, result);
    check_launch("kernel max_abs");
}

void launch_count_nan(const std::uint8_t* codes, std::int64_t count, unsigned long long* result,
                      cudaStream_t stream) {
    if (count <= 0) {
        return;
    }
    count_nan<<<scan_blocks(count), kBlockThreads, 0, stream>>>(codes, count, result);
    check_launch("kernel count_nan");
}

void launch_compare(const std::uint8_t* left, const std::uint8_t* right, std::int64_t count,
                    unsigned long long* differing, unsigned long long* first, cudaStream_t stream) {
    if (count <= 0) {
        return;
    }
    compare_bytes<<<scan_blocks(count), kBlockThreads, 0, stream>>>(left, right, count, differing,
                                                                    first);
    check_launch("kernel compare_bytes");
}

}  // namespace refit::kernels::cuda
