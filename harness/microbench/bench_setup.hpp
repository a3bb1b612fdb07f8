// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What the benchmarks share: weights, shapes, counters, and the limits that figures are divided by.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/aligned_buffer.hpp"
#include "kernels/backend.hpp"
#include "quant/recipe.hpp"

namespace refit::microbench {

struct Shape {
    std::int64_t rows;
    std::int64_t cols;
    [[nodiscard]] std::string text() const {
        return std::to_string(rows) + "x" + std::to_string(cols);
    }
    [[nodiscard]] std::int64_t elements() const { return rows * cols; }
};

/// The first is in a cache of 512 KiB, the last larger than any cache.
inline constexpr Shape kShapes[] = {{128, 1024}, {4096, 4096}, {16384, 8192}};

/// Gaussian BF16 weights as models have them, enough for the largest shape. One buffer, made once.
[[nodiscard]] const std::vector<std::uint16_t>& weights();
/// The first rows of them as a matrix.
[[nodiscard]] kernels::Band whole(const Shape& shape);

/// Codes and scales of whole(shape), made by the fastest backend.
struct Codes {
    explicit Codes(const quant::Recipe& recipe, const Shape& shape);
    core::AlignedBuffer bytes;
    std::vector<float> scales;
    [[nodiscard]] const std::uint8_t* data() const;
};

/// What a kernel cannot avoid: reading `read` and writing `written` bytes an element.
enum class Traffic {
    read_1,          ///< scans of codes, digests
    read_2,          ///< scans of weights: amax, non-finite
    read_3,          ///< weights and codes: the check pass
    read_1_write_1,  ///< copies: pack
    read_1_write_2,  ///< codes to BF16
    read_2_write_1,  ///< weights to codes
};
/// Seconds that a loop with this traffic and no arithmetic to speak of takes on the shape, the
/// fastest of several rounds and, where it writes, of stores through and past the cache. Measured
/// at the first call for each pair, in the same process as what is divided by it.
[[nodiscard]] double limit_s(Traffic traffic, const Shape& shape);

/// Runs `work` in the benchmark's loop and adds elements_per_s, bytes_per_s and of_limit, the
/// fraction of the limit's rate that is reached, both by CPU time of this thread.
template <typename Work>
void measure(benchmark::State& state, Traffic traffic, const Shape& shape, const Work& work);

/// CPU time of the calling thread.
[[nodiscard]] double thread_cpu_s();
void report(benchmark::State& state, Traffic traffic, const Shape& shape, double cpu_s);

template <typename Work>
void measure(benchmark::State& state, Traffic traffic, const Shape& shape, const Work& work) {
    const double limit = limit_s(traffic, shape);
    benchmark::DoNotOptimize(limit);
    const double begin = thread_cpu_s();
    for ([[maybe_unused]] auto iteration : state) {
        work();
        benchmark::ClobberMemory();
    }
    report(state, traffic, shape, thread_cpu_s() - begin);
}

}  // namespace refit::microbench
