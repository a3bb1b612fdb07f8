// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// quantize/<recipe>/<backend>/<rows>x<cols>: amax, scales and codes of a BF16 matrix.
// amax/<recipe>/..: the first of three steps alone. nonfinite/<backend>/..: the largest magnitude
// of the whole matrix, which tells NaN and Inf. nan_codes/<backend>/..: NaN among codes. One core.
#include <algorithm>
#include <array>

#include "harness/microbench/bench_setup.hpp"

namespace {

using namespace refit::microbench;
using refit::kernels::Backend;

struct Result {
    std::vector<std::uint32_t> amax;
    std::vector<float> scale_inv;
    std::vector<std::uint8_t> codes;
    bool operator==(const Result&) const = default;
};

Result quantized(const Backend& backend, const refit::quant::Recipe& recipe, const Shape& shape) {
    const auto grid = refit::kernels::tile_grid(recipe.scaling, shape.rows, shape.cols);
    const auto tiles = static_cast<std::size_t>(grid.grid_rows * grid.grid_cols);
    Result result{std::vector<std::uint32_t>(tiles), std::vector<float>(tiles),
                  std::vector<std::uint8_t>(static_cast<std::size_t>(shape.elements()))};
    backend.quantize(recipe.scaling, whole(shape), result.amax, result.scale_inv,
                     result.codes.data(), shape.cols, {});
    return result;
}

/// True if the backend gives portable's bits on a part of the matrix that is timed.
bool equals_portable(const Backend& backend, const refit::quant::Recipe& recipe,
                     const Shape& shape) {
    const Shape part{std::min<std::int64_t>(shape.rows, 256), shape.cols};
    return quantized(backend, recipe, part) ==
           quantized(*refit::kernels::find_backend("portable"), recipe, part);
}

void bench_quantize(benchmark::State& state, const Backend& backend,
                    const refit::quant::Recipe& recipe, const Shape& shape) {
    if (!equals_portable(backend, recipe, shape)) {
        state.SkipWithError("the backend does not give the bits of portable");
        return;
    }
    const auto grid = refit::kernels::tile_grid(recipe.scaling, shape.rows, shape.cols);
    const auto tiles = static_cast<std::size_t>(grid.grid_rows * grid.grid_cols);
    std::vector<std::uint32_t> amax(tiles);
    std::vector<float> scale_inv(tiles);
    refit::core::AlignedBuffer storage(static_cast<std::size_t>(shape.elements()));
    auto* codes = reinterpret_cast<std::uint8_t*>(storage.data());
    measure(state, Traffic::read_2_write_1, shape, [&] {
        backend.quantize(recipe.scaling, whole(shape), amax, scale_inv, codes, shape.cols, {});
    });
}

void bench_amax(benchmark::State& state, const Backend& backend, const refit::quant::Recipe& recipe,
                const Shape& shape) {
    if (!equals_portable(backend, recipe, shape)) {
        state.SkipWithError("the backend does not give the bits of portable");
        return;
    }
    const auto grid = refit::kernels::tile_grid(recipe.scaling, shape.rows, shape.cols);
    std::vector<std::uint32_t> amax(static_cast<std::size_t>(grid.grid_rows * grid.grid_cols));
    measure(state, Traffic::read_2, shape,
            [&] { backend.tile_amax(recipe.scaling, whole(shape), amax); });
}

void bench_nonfinite(benchmark::State& state, const Backend& backend, const Shape& shape) {
    std::vector<std::uint16_t> bad(300, 0x3f80);
    bad[257] = 0xff81;
    if (backend.max_abs_bits(bad.data(), 300) != 0x7f810000U ||
        backend.max_abs_bits(bad.data(), 257) != 0x3f800000U) {
        state.SkipWithError("the scan does not find a NaN, or finds one that is not there");
        return;
    }
    measure(state, Traffic::read_2, shape, [&] {
        std::uint32_t bits = backend.max_abs_bits(weights().data(), shape.elements());
        benchmark::DoNotOptimize(bits);
    });
}

void bench_nan_codes(benchmark::State& state, const Backend& backend, const Shape& shape) {
    std::vector<std::uint8_t> bad(300, 0x7e);
    bad[3] = 0x7f;
    bad[299] = 0xff;
    if (backend.count_nan_codes(bad.data(), 300) != 2) {
        state.SkipWithError("the scan does not count two NaN codes of two");
        return;
    }
    const Codes codes(refit::quant::find_recipe("prime-rl-blockwise"), shape);
    measure(state, Traffic::read_1, shape, [&] {
        std::int64_t count = backend.count_nan_codes(codes.data(), shape.elements());
        benchmark::DoNotOptimize(count);
    });
}

/// One of each kind of tile; quantize has all recipes.
constexpr std::array<const char*, 4> kAmaxRecipes = {"prime-rl-blockwise", "prime-rl-channelwise",
                                                     "tensorwise", "mxfp8"};

void add_backend(const std::string& name, const Backend& backend, const Shape& shape) {
    const std::string end = name + "/" + shape.text();
    for (const refit::quant::Recipe& recipe : refit::quant::recipe_catalog()) {
        add("quantize/" + recipe.name + "/" + end, [&backend, &recipe, shape](auto& state) {
            bench_quantize(state, backend, recipe, shape);
        });
    }
    for (const char* recipe : kAmaxRecipes) {
        add("amax/" + std::string(recipe) + "/" + end, [&backend, recipe, shape](auto& state) {
            bench_amax(state, backend, refit::quant::find_recipe(recipe), shape);
        });
    }
    add("nonfinite/" + end,
        [&backend, shape](auto& state) { bench_nonfinite(state, backend, shape); });
    add("nan_codes/" + end,
        [&backend, shape](auto& state) { bench_nan_codes(state, backend, shape); });
}

const bool kRegistered = [] {
    for (const Shape& shape : kShapes) {
        for (const refit::kernels::BackendRow& row : refit::kernels::backend_rows()) {
            // CPU time says nothing about a device; bench_device.cpp times it by events.
            if (row.viable && row.name != "cuda")
                add_backend(row.name, *refit::kernels::find_backend(row.name), shape);
        }
    }
    return true;
}();

}  // namespace
