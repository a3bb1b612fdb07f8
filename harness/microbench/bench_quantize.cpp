// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// quantize/<recipe>/<backend>/<rows>x<cols>: amax, scales and codes of a BF16 matrix, one core.
// limit/copy_2r1w/<rows>x<cols>: reads two bytes and writes one for each element with no arithmetic
// to speak of, the memory traffic that quantize cannot avoid. /streaming writes past the cache.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "kernels/backend.hpp"
#include "quant/recipe.hpp"

namespace {

using refit::kernels::Backend;
using refit::kernels::Band;

struct Shape {
    std::int64_t rows;
    std::int64_t cols;
    [[nodiscard]] std::string text() const {
        return std::to_string(rows) + "x" + std::to_string(cols);
    }
};

/// The larger ones are in memory, the smaller one in a cache of 1 MiB or more.
constexpr Shape kShapes[] = {{128, 2048}, {4096, 4096}, {16384, 8192}};

/// Gaussian BF16 weights as models have them. One buffer, made once: filling it takes longer than a
/// run.
const std::vector<std::uint16_t>& weights() {
    static const std::vector<std::uint16_t> values = [] {
        std::vector<std::uint16_t> made(static_cast<std::size_t>(16384) * 8192);
        std::mt19937_64 random(1);
        std::normal_distribution<float> gaussian(0.0F, 0.02F);
        const std::size_t distinct = 1 << 22;
        for (std::size_t i = 0; i < distinct; ++i) {
            made[i] =
                static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(gaussian(random)) >> 16);
        }
        for (std::size_t i = distinct; i < made.size(); ++i) {
            made[i] = made[i - distinct];
        }
        return made;
    }();
    return values;
}

Band whole(const Shape& shape) {
    Band band;
    band.data = weights().data();
    band.row_stride = shape.cols;
    band.row_count = shape.rows;
    band.rows = shape.rows;
    band.cols = shape.cols;
    const std::uint16_t last = weights()[static_cast<std::size_t>(shape.rows * shape.cols - 1)];
    band.last_element_bits = static_cast<std::uint32_t>(last & 0x7fffU) << 16;
    return band;
}

void count_elements(benchmark::State& state, const Shape& shape) {
    const auto elements = static_cast<double>(shape.rows * shape.cols);
    state.counters["elements_per_s"] =
        benchmark::Counter(elements, benchmark::Counter::kIsIterationInvariantRate);
    state.counters["bytes_per_s"] =
        benchmark::Counter(3.0 * elements, benchmark::Counter::kIsIterationInvariantRate);
}

/// True if the backend gives portable's bits on a part of the matrix that is timed.
bool equals_portable(const Backend& backend, const refit::quant::Recipe& recipe,
                     const Shape& shape) {
    const Shape part{std::min<std::int64_t>(shape.rows, 256), shape.cols};
    const refit::kernels::TileGrid grid =
        refit::kernels::tile_grid(recipe.scaling, part.rows, part.cols);
    const auto tiles = static_cast<std::size_t>(grid.grid_rows * grid.grid_cols);
    const auto bytes = static_cast<std::size_t>(part.rows * part.cols);
    std::vector<std::uint32_t> amax[2];
    std::vector<float> scale_inv[2];
    std::vector<std::uint8_t> codes[2];
    const Backend* backends[2] = {&backend, refit::kernels::find_backend("portable")};
    for (int i = 0; i < 2; ++i) {
        amax[i].resize(tiles);
        scale_inv[i].resize(tiles);
        codes[i].resize(bytes);
        backends[i]->quantize(recipe.scaling, whole(part), amax[i], scale_inv[i], codes[i].data(),
                              part.cols, {});
    }
    return amax[0] == amax[1] && scale_inv[0] == scale_inv[1] && codes[0] == codes[1];
}

void bench_quantize(benchmark::State& state, const Backend& backend,
                    const refit::quant::Recipe& recipe, const Shape& shape) {
    if (!equals_portable(backend, recipe, shape)) {
        state.SkipWithError("the backend does not give the bits of portable");
        return;
    }
    const refit::kernels::TileGrid grid =
        refit::kernels::tile_grid(recipe.scaling, shape.rows, shape.cols);
    const auto tiles = static_cast<std::size_t>(grid.grid_rows * grid.grid_cols);
    std::vector<std::uint32_t> amax(tiles);
    std::vector<float> scale_inv(tiles);
    std::vector<std::uint8_t> storage(static_cast<std::size_t>(shape.rows * shape.cols) + 64);
    // The first cache line boundary: buffers of the program are aligned so.
    std::uint8_t* codes =
        storage.data() + (64 - reinterpret_cast<std::uintptr_t>(storage.data()) % 64);
    const Band band = whole(shape);
    for ([[maybe_unused]] auto iteration : state) {
        backend.quantize(recipe.scaling, band, amax, scale_inv, codes, shape.cols, {});
        benchmark::ClobberMemory();
    }
    count_elements(state, shape);
}

void bench_limit(benchmark::State& state, const Shape& shape, bool streaming) {
#if defined(__SSE2__)
    const auto elements = static_cast<std::size_t>(shape.rows * shape.cols);
    std::vector<std::uint8_t> storage(elements + 64);
    std::uint8_t* target =
        storage.data() + (64 - reinterpret_cast<std::uintptr_t>(storage.data()) % 64);
    const std::uint16_t* source = weights().data();
    for ([[maybe_unused]] auto iteration : state) {
        for (std::size_t i = 0; i < elements; i += 16) {
            const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source + i));
            const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source + i + 8));
            const __m128i bytes = _mm_xor_si128(a, b);
            if (streaming) {
                _mm_stream_si128(reinterpret_cast<__m128i*>(target + i), bytes);
            } else {
                _mm_store_si128(reinterpret_cast<__m128i*>(target + i), bytes);
            }
        }
        _mm_sfence();
        benchmark::ClobberMemory();
    }
    count_elements(state, shape);
#else
    (void)shape;
    (void)streaming;
    state.SkipWithError("this limit is written for x86-64");
#endif
}

const bool kRegistered = [] {
    for (const Shape& shape : kShapes) {
        for (const bool streaming : {false, true}) {
            const std::string name =
                "limit/copy_2r1w/" + std::string(streaming ? "streaming/" : "") + shape.text();
            benchmark::RegisterBenchmark(name.c_str(), [shape, streaming](benchmark::State& state) {
                bench_limit(state, shape, streaming);
            });
        }
    }
    for (const refit::quant::Recipe& recipe : refit::quant::recipe_catalog()) {
        for (const refit::kernels::BackendRow& row : refit::kernels::backend_rows()) {
            const Backend* backend = refit::kernels::find_backend(row.name);
            if (backend == nullptr) {
                continue;
            }
            for (const Shape& shape : kShapes) {
                const std::string name =
                    "quantize/" + recipe.name + "/" + row.name + "/" + shape.text();
                benchmark::RegisterBenchmark(name.c_str(),
                                             [backend, &recipe, shape](benchmark::State& state) {
                                                 bench_quantize(state, *backend, recipe, shape);
                                             });
            }
        }
    }
    return true;
}();

}  // namespace
