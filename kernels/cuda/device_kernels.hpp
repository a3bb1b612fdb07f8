// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Kernels on device memory. Every function enqueues on the stream and returns; a launch that fails
// throws CudaError. Private to kernels/cuda and the tests that need a device.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/decode_program.hpp"
#include "kernels/cuda/digest_program.hpp"
#include "kernels/cuda/element_program.hpp"
#include "kernels/cuda/latent_program.hpp"
#include "kernels/cuda/placement_program.hpp"
#include "kernels/cuda/tile_program.hpp"
#include "kernels/cuda/value_program.hpp"

namespace refit::kernels::cuda {

/// Puts every kernel on the device. The runtime would else do so at the first launch of each, in a
/// timed refit, and may wait for all that runs on the device then: a broadcast of NCCL that waits
/// for another rank, say.
void load_tile_kernels();
void load_element_kernels();
void load_digest_kernels();

/// amax_bits, scale_inv and codes of a band of whole tiles in one pass over memory. Throws
/// CudaError for Program::any, which takes tile_amax, factors and encode.
void launch_quantize(const Job& job, cudaStream_t stream);

/// Raises amax_bits of the touched tiles by the band's elements and the padding of ragged tiles.
void launch_tile_amax(const Job& job, std::int64_t touched_tiles, cudaStream_t stream);
/// scale_inv and operands of `tiles` tiles from amax_bits.
void launch_factors(const Job& job, std::int64_t tiles, cudaStream_t stream);
/// Codes of the band from the operands of its tiles.
void launch_encode(const Job& job, cudaStream_t stream);

/// Values of codes; see DequantizeJob.
void launch_dequantize(const DequantizeJob& job, cudaStream_t stream);

/// *result = max(*result, |x| of `count` BF16 values as F32 bits); >= 0x7f800000 tells NaN or Inf.
void launch_max_abs(const std::uint16_t* values, std::int64_t count, std::uint32_t* result,
                    cudaStream_t stream);
/// *result += number of E4M3FN codes that are NaN.
void launch_count_nan(const std::uint8_t* codes, std::int64_t count, unsigned long long* result,
                      cudaStream_t stream);
/// Adds to *differing the number of bytes that differ and lowers *first to the first of them.
void launch_compare(const std::uint8_t* left, const std::uint8_t* right, std::int64_t count,
                    unsigned long long* differing, unsigned long long* first, cudaStream_t stream);

/// Sums of each patch, [patches_down(job), patches_across(job)]; merge() them in this order.
void launch_check(const CheckJob& job, CheckSums* results, cudaStream_t stream);
/// Adds to the counts of *result and lowers its first index.
void launch_count_nonfinite(const std::uint16_t* values, std::int64_t count,
                            NonfiniteCounts* result, cudaStream_t stream);
/// Copies all rectangles, of `rows` rows together.
void launch_place(const PlacedRectangle* rectangles, std::int64_t count, std::int64_t rows,
                  cudaStream_t stream);
/// Words of the packed scales; adds to *refused the scales that are no power of two.
void launch_pack_scales(const ScalePackJob& job, unsigned long long* refused, cudaStream_t stream);

/// Digests of `count` jobs, which together have `blocks` blocks. secret : numerics::kXxh3Secret on
/// the device; sums : [blocks, 8], scratch; results : [count].
void launch_digests(const DigestJob* jobs, std::int64_t count, std::int64_t blocks,
                    const std::uint64_t* secret, std::uint64_t* sums, numerics::Xxh128* results,
                    cudaStream_t stream);
/// Writes all rectangles, of `values` values together, in their other type.
void launch_convert(const ValueRectangle* rectangles, std::int64_t count, std::int64_t values,
                    cudaStream_t stream);
/// Adds to the count of each rectangle's result and lowers its first index. results : [count].
void launch_look_at_scales(const ValueRectangle* rectangles, std::int64_t count,
                           std::int64_t values, UnusableScales* results, cudaStream_t stream);
/// *result = max(*result, bits[i]).
void launch_max_bits(const std::uint32_t* bits, std::int64_t count, std::uint32_t* result,
                     cudaStream_t stream);
/// scale_inv[i] = NaN where amax_bits[i] is that of NaN or Inf.
void launch_mark_nonfinite(const std::uint32_t* amax_bits, float* scale_inv, std::int64_t count,
                           cudaStream_t stream);
/// NaN becomes +0 and Inf +-448 in `count` BF16 values, which may begin at any address.
void launch_replace_nonfinite(std::uint8_t* values, std::int64_t count, cudaStream_t stream);
/// Values of codes, cut out of every head and transposed; see DeriveJob.
void launch_derive(const DeriveJob& job, cudaStream_t stream);
void launch_set_words(std::uint32_t* words, std::uint32_t value, std::int64_t count,
                      cudaStream_t stream);

}  // namespace refit::kernels::cuda
