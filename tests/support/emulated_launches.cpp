// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The launches of kernels/cuda with every thread of every block played on the host.
#include "kernels/cuda/cuda_call.hpp"
#include "kernels/cuda/device_kernels.hpp"
#include "kernels/cuda/scan_program.hpp"
#include "support/emulated_cuda.hpp"
#include "support/tile_emulator.hpp"

namespace refit::kernels::cuda {

using emulated_cuda::enqueue;
using emulated_cuda::launched;

namespace {

/// Threads of a scan: few, so that small ranges have words of all kinds for each.
constexpr std::int64_t kScanThreads = 3;

}  // namespace

void load_tile_kernels() {}
void load_element_kernels() {}
void load_digest_kernels() {}

void launch_quantize(const Job& job, cudaStream_t stream) {
    launched("quantize");
    if (program_of(job) == Program::any) throw CudaError("no kernel quantizes this in one pass");
    enqueue(stream,
            [job] { with_flavour(job, Fault::none, [](auto emulator) { emulator.quantize(); }); });
}

void launch_tile_amax(const Job& job, std::int64_t touched_tiles, cudaStream_t stream) {
    enqueue(stream, [=] {
        with_flavour(job, Fault::none, [=](auto emulator) { emulator.tile_amax(touched_tiles); });
    });
}

void launch_factors(const Job& job, std::int64_t tiles, cudaStream_t stream) {
    enqueue(stream, [=] {
        for (std::int64_t i = 0; i < tiles; ++i) make_factor(job, i);
    });
}

void launch_encode(const Job& job, cudaStream_t stream) {
    enqueue(stream,
            [job] { with_flavour(job, Fault::none, [](auto emulator) { emulator.encode(); }); });
}

void launch_dequantize(const DequantizeJob& job, cudaStream_t stream) {
    enqueue(stream, [job] {
        for (std::int64_t row = 0; row * kPatchRows < job.rows; ++row) {
            for (std::int64_t col = 0; col * kPatchCols < job.cols; ++col) {
                for (int t = 0; t < kBlockThreads; ++t) dequantize_patch(job, row, col, t);
            }
        }
    });
}

void launch_max_abs(const std::uint16_t* values, std::int64_t count, std::uint32_t* result,
                    cudaStream_t stream) {
    enqueue(stream, [=] {
        for (std::int64_t t = 0; t < kScanThreads; ++t)
            *result = larger(*result, scan_max_abs(values, count, t, kScanThreads));
    });
}

void launch_count_nan(const std::uint8_t* codes, std::int64_t count, unsigned long long* result,
                      cudaStream_t stream) {
    enqueue(stream, [=] {
        for (std::int64_t t = 0; t < kScanThreads; ++t)
            *result += scan_nan_codes(codes, count, t, kScanThreads);
    });
}

void launch_compare(const std::uint8_t* left, const std::uint8_t* right, std::int64_t count,
                    unsigned long long* differing, unsigned long long* first, cudaStream_t stream) {
    enqueue(stream, [=] {
        for (std::int64_t t = 0; t < kScanThreads; ++t) {
            scan_differences(left, right, count, t, kScanThreads, [=](std::int64_t i) {
                *differing += 1;
                *first = std::min(*first, static_cast<unsigned long long>(i));
            });
        }
    });
}

void launch_check(const CheckJob& job, CheckSums* results, cudaStream_t stream) {
    enqueue(stream, [=] {
        std::vector<CheckSums> sums(kBlockThreads);
        // Threads come one after the other, and each knows what those before it have seen.
        double reached = 0.0;
        const auto share = [](double known) { return known; };
        for (std::int64_t row = 0; row < patches_down(job); ++row) {
            for (std::int64_t col = 0; col < patches_across(job); ++col) {
                for (int t = 0; t < kBlockThreads; ++t)
                    check_patch(job, row, col, t, reached, share,
                                sums[static_cast<std::size_t>(t)]);
                for (int distance = kBlockThreads / 2; distance > 0; distance /= 2) {
                    for (int t = 0; t < kBlockThreads; ++t) merge_step(sums.data(), t, distance);
                }
                results[row * patches_across(job) + col] = sums.front();
            }
        }
    });
}

void launch_count_nonfinite(const std::uint16_t* values, std::int64_t count,
                            NonfiniteCounts* result, cudaStream_t stream) {
    enqueue(stream, [=] {
        for (std::int64_t t = 0; t < kScanThreads; ++t) {
            scan_nonfinite(values, count, t, kScanThreads, [=](std::int64_t i) {
                (nonfinite_kind(values[i]) == 1 ? result->nan : result->inf) += 1;
                result->first = std::min(result->first, static_cast<unsigned long long>(i));
            });
        }
    });
}

void launch_place(const PlacedRectangle* rectangles, std::int64_t count, std::int64_t rows,
                  cudaStream_t stream) {
    launched("place");
    enqueue(stream, [=] {
        for (std::int64_t row = 0; row < rows; ++row) {
            for (int lane = 0; lane < 32; ++lane) place_row(rectangles, count, row, lane, 32);
        }
    });
}

void launch_pack_scales(const ScalePackJob& job, unsigned long long* refused, cudaStream_t stream) {
    enqueue(stream, [=] {
        for (std::int64_t i = 0; i < packed_words(job); ++i)
            *refused += static_cast<unsigned long long>(pack_scales(job, i));
    });
}

void launch_digests(const DigestJob* jobs, std::int64_t count, std::int64_t blocks,
                    const std::uint64_t* secret, std::uint64_t* sums, numerics::Xxh128* results,
                    cudaStream_t stream) {
    launched("digests");
    enqueue(stream, [=] {
        // Blocks in no particular order, the last first.
        for (std::int64_t i = blocks * numerics::kXxh3Lanes; i-- > 0;) {
            sums[i] = digest_block_lane(jobs, count, i / numerics::kXxh3Lanes,
                                        i % numerics::kXxh3Lanes, secret);
        }
    });
    enqueue(stream, [=] {
        for (std::int64_t i = 0; i < count; ++i) {
            std::uint64_t lanes[numerics::kXxh3Lanes] = {};
            const bool has_lanes = jobs[i].length() > numerics::kXxh3ShortBytes;
            for (std::int64_t lane = 0; has_lanes && lane < numerics::kXxh3Lanes; ++lane)
                lanes[lane] = digest_lane(jobs[i], sums, lane, secret);
            results[i] = digest_of_job(jobs[i], lanes, secret);
        }
    });
}

void launch_convert(const ValueRectangle* rectangles, std::int64_t count, std::int64_t values,
                    cudaStream_t stream) {
    enqueue(stream, [=] {
        for (std::int64_t i = 0; i < values; ++i) convert_value(rectangles, count, i);
    });
}

void launch_look_at_scales(const ValueRectangle* rectangles, std::int64_t count,
                           std::int64_t values, UnusableScales* results, cudaStream_t stream) {
    enqueue(stream, [=] {
        for (std::int64_t i = 0; i < values; ++i) {
            const std::int64_t which = item_of(rectangles, count, &ValueRectangle::first, i);
            const std::int64_t local = i - rectangles[which].first;
            if (!is_unusable(rectangles[which], local)) continue;
            results[which].count += 1;
            results[which].first =
                std::min(results[which].first, static_cast<unsigned long long>(local));
        }
    });
}

void launch_max_bits(const std::uint32_t* bits, std::int64_t count, std::uint32_t* result,
                     cudaStream_t stream) {
    enqueue(stream, [=] {
        for (std::int64_t i = 0; i < count; ++i) *result = larger(*result, bits[i]);
    });
}

void launch_mark_nonfinite(const std::uint32_t* amax_bits, float* scale_inv, std::int64_t count,
                           cudaStream_t stream) {
    enqueue(stream, [=] {
        for (std::int64_t i = 0; i < count; ++i) mark_nonfinite(amax_bits, scale_inv, i);
    });
}

void launch_replace_nonfinite(std::uint8_t* values, std::int64_t count, cudaStream_t stream) {
    enqueue(stream, [=] {
        for (std::int64_t t = 0; t < kScanThreads; ++t)
            replace_nonfinite(values, count, t, kScanThreads);
    });
}

void launch_derive(const DeriveJob& job, cudaStream_t stream) {
    launched("derive");
    enqueue(stream, [=] {
        DerivedTile tile{};
        for (std::int64_t i = 0; i < derived_tiles(job); ++i) {
            for (int t = 0; t < kBlockThreads; ++t) derive_load(job, i, t, tile);
            for (int t = kBlockThreads; t-- > 0;) derive_store(job, i, t, tile);
        }
    });
}

void launch_set_words(std::uint32_t* words, std::uint32_t value, std::int64_t count,
                      cudaStream_t stream) {
    launched("set_words");
    enqueue(stream, [=] { std::fill_n(words, count, value); });
}

}  // namespace refit::kernels::cuda
