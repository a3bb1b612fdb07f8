// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What the benchmarks share: weights, shapes, counters, and the limits that figures are divided by.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
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
[[nodiscard]] std::span<const std::uint16_t> weights();
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
/// Bytes of one pass, read and written.
[[nodiscard]] std::int64_t bytes_moved(Traffic traffic, const Shape& shape);
/// CPU seconds of one pass of a loop with this traffic and no arithmetic to speak of. Stores
/// through or past the cache, reads asked for ahead or not: whichever was fastest at the first
/// call.
[[nodiscard]] double limit_s(Traffic traffic, const Shape& shape);

/// CPU time of the calling thread.
[[nodiscard]] double thread_cpu_s();

/// Adds elements_per_s and bytes_per_s of the median time, and of_limit, the median of the limit's
/// times over that of the work's.
void report(benchmark::State& state, Traffic traffic, const Shape& shape,
            std::vector<double> work_s, std::vector<double> limits_s);

/// Runs `work` and the limit in turn, so that a machine under load slows both. The time of an
/// iteration is the CPU time of `work`; register with UseManualTime. One run before the first pays
/// for fresh memory.
template <typename Work>
void measure(benchmark::State& state, Traffic traffic, const Shape& shape, const Work& work) {
    // One pass over a small shape is too short for the clock.
    const std::int64_t passes =
        shape.elements() < (1 << 20) ? (1 << 20) / shape.elements() : std::int64_t{1};
    std::vector<double> work_s;
    std::vector<double> limits_s;
    work();
    for ([[maybe_unused]] auto iteration : state) {
        const double begin = thread_cpu_s();
        for (std::int64_t pass = 0; pass < passes; ++pass) {
            work();
            benchmark::ClobberMemory();
        }
        work_s.push_back((thread_cpu_s() - begin) / static_cast<double>(passes));
        state.SetIterationTime(work_s.back());
        limits_s.push_back(limit_s(traffic, shape));
    }
    report(state, traffic, shape, std::move(work_s), std::move(limits_s));
}

/// Registers a benchmark whose time is what `run` gives to measure().
void add(const std::string& name, std::function<void(benchmark::State&)> run);

}  // namespace refit::microbench
