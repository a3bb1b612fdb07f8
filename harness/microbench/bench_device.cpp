// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The same names as on the CPU with `cuda` as backend, over weights that lie on the device: time by
// events of the stream, of_limit over a copy on the device of as many bytes, in turn with the work.
// staged/<recipe>/cuda/..: the Backend's own call, from host memory and back, by the wall clock.
// Registered where a device works; elsewhere the program says why not.
#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <string>
#include <utility>

#include "checks/decode.hpp"
#include "harness/microbench/bench_setup.hpp"
#include "kernels/cuda/cuda_backend.hpp"
#include "kernels/cuda/device_matrix.hpp"

namespace {

using namespace refit::microbench;
using refit::kernels::cuda::DeviceMatrix;
using refit::quant::Recipe;

/// Shapes whose kernels last longer than an event can tell; the first fits into the cache of large
/// devices, the second into none.
constexpr std::array<Shape, 2> kDeviceShapes = {{{4096, 4096}, {16384, 8192}}};
/// One of each kind of tile; quantize has all recipes.
constexpr std::array<const char*, 4> kKinds = {"prime-rl-blockwise", "prime-rl-channelwise",
                                               "tensorwise", "mxfp8"};

std::unique_ptr<DeviceMatrix> upload(const Shape& shape) {
    return refit::kernels::cuda::upload_matrix(weights().data(), shape.rows, shape.cols);
}

/// Codes and scales as the fastest CPU backend makes them.
bool equals_host(const DeviceMatrix& matrix, const Recipe& recipe, const Shape& shape) {
    const Codes expected(recipe, shape);
    const DeviceMatrix::Quantized found = matrix.quantized();
    return found.scale_inv == expected.scales &&
           std::equal(found.codes.begin(), found.codes.end(), expected.data());
}

/// `work` gives its own seconds; one call before the first that counts pays for memory and clocks.
template <class Work>
void measure_on_device(benchmark::State& state, DeviceMatrix& matrix, Traffic traffic,
                       const Shape& shape, const Work& work) {
    const std::int64_t copied = bytes_moved(traffic, shape) / 2;
    (void)work();
    (void)matrix.copy(copied);
    std::vector<double> work_s;
    std::vector<double> limits_s;
    for ([[maybe_unused]] auto iteration : state) {
        work_s.push_back(work());
        state.SetIterationTime(work_s.back());
        limits_s.push_back(matrix.copy(copied));
    }
    report(state, traffic, shape, std::move(work_s), std::move(limits_s));
}

void bench_quantize(benchmark::State& state, const Recipe& recipe, const Shape& shape) {
    const auto matrix = upload(shape);
    (void)matrix->quantize(recipe.scaling);
    if (!equals_host(*matrix, recipe, shape)) {
        state.SkipWithError("the device does not give the bits of the host");
        return;
    }
    measure_on_device(state, *matrix, Traffic::read_2_write_1, shape,
                      [&] { return matrix->quantize(recipe.scaling); });
}

void bench_amax(benchmark::State& state, const Recipe& recipe, const Shape& shape) {
    const auto matrix = upload(shape);
    (void)matrix->quantize(recipe.scaling);
    if (!equals_host(*matrix, recipe, shape)) {
        state.SkipWithError("the device does not give the bits of the host");
        return;
    }
    measure_on_device(state, *matrix, Traffic::read_2, shape,
                      [&] { return matrix->tile_amax(recipe.scaling); });
}

void bench_dequantize(benchmark::State& state, const Recipe& recipe, const Shape& shape) {
    const auto matrix = upload(shape);
    (void)matrix->quantize(recipe.scaling);
    (void)matrix->dequantize();
    const DeviceMatrix::Quantized codes = matrix->quantized();
    const std::vector<std::uint16_t> found = matrix->dequantized();
    const auto grid = refit::kernels::tile_grid(recipe.scaling, shape.rows, shape.cols);
    for (std::int64_t i = 0; i < shape.elements(); i += 4097) {
        const std::int64_t tile =
            i / shape.cols / grid.tile_rows * grid.grid_cols + i % shape.cols / grid.tile_cols;
        const double exact = refit::checks::decode_e4m3(codes.codes[static_cast<std::size_t>(i)]) *
                             static_cast<double>(codes.scale_inv[static_cast<std::size_t>(tile)]);
        const double value = refit::checks::decode_bf16(found[static_cast<std::size_t>(i)]);
        if (std::abs(value - exact) > std::abs(exact) / 256.0) {
            state.SkipWithError("a dequantized value is not its code times its scale");
            return;
        }
    }
    measure_on_device(state, *matrix, Traffic::read_1_write_2, shape,
                      [&] { return matrix->dequantize(); });
}

void bench_nonfinite(benchmark::State& state, const Shape& shape) {
    const auto matrix = upload(shape);
    std::uint32_t bits = 0;
    (void)matrix->max_abs_bits(bits);
    if (bits !=
        refit::kernels::find_backend("auto")->max_abs_bits(weights().data(), shape.elements())) {
        state.SkipWithError("the largest magnitude is not the one that the host finds");
        return;
    }
    measure_on_device(state, *matrix, Traffic::read_2, shape,
                      [&] { return matrix->max_abs_bits(bits); });
}

void bench_nan_codes(benchmark::State& state, const Shape& shape) {
    const auto matrix = upload(shape);
    (void)matrix->quantize(refit::quant::find_recipe(kKinds[0]).scaling);
    std::int64_t count = 0;
    (void)matrix->count_nan_codes(count);
    const bool none = count == 0;
    matrix->set_code(0, 0x7f);
    matrix->set_code(shape.elements() - 1, 0xff);
    (void)matrix->count_nan_codes(count);
    if (!none || count != 2) {
        state.SkipWithError("the scan does not count two NaN codes of two");
        return;
    }
    measure_on_device(state, *matrix, Traffic::read_1, shape,
                      [&] { return matrix->count_nan_codes(count); });
}

void bench_check(benchmark::State& state, const Recipe& recipe, const Shape& shape) {
    const auto matrix = upload(shape);
    (void)matrix->quantize(recipe.scaling);
    std::vector<double> own;
    for (const std::uint32_t bits : matrix->quantized().amax_bits)
        own.push_back(static_cast<double>(std::bit_cast<float>(bits)) / 448.0);
    refit::kernels::cuda::CheckSums sums;
    const auto check = [&] { return matrix->check(own, 1.0 / 65536.0, sums); };
    (void)check();
    // Gaussian weights in E4M3FN have an SQNR near 31.5 dB; a wrong code must be seen.
    const bool clean = sums.beyond == 0 && sums.elements == shape.elements() &&
                       std::abs(10.0 * std::log10(sums.x2 / sums.error2) - 31.5) < 0.3;
    const std::uint8_t right = matrix->quantized().codes[77];
    matrix->set_code(77, static_cast<std::uint8_t>(right ^ 0x10U));
    (void)check();
    if (!clean || sums.beyond != 1 || sums.first_beyond != 77) {
        state.SkipWithError("the check does not accept right codes, or accepts a wrong one");
        return;
    }
    matrix->set_code(77, right);
    measure_on_device(state, *matrix, Traffic::read_3, shape, check);
}

void bench_copy(benchmark::State& state, const Shape& shape) {
    const auto matrix = upload(shape);
    measure_on_device(state, *matrix, Traffic::read_2_write_1, shape, [&] {
        return matrix->copy(bytes_moved(Traffic::read_2_write_1, shape) / 2);
    });
}

void bench_staged(benchmark::State& state, const Recipe& recipe, const Shape& shape) {
    const refit::kernels::Backend& backend = *refit::kernels::find_backend("cuda");
    const auto matrix = upload(shape);
    const auto grid = refit::kernels::tile_grid(recipe.scaling, shape.rows, shape.cols);
    std::vector<std::uint32_t> amax(static_cast<std::size_t>(grid.grid_rows * grid.grid_cols));
    std::vector<float> scale_inv(amax.size());
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(shape.elements()));
    measure_on_device(state, *matrix, Traffic::read_2_write_1, shape, [&] {
        const auto begin = std::chrono::steady_clock::now();
        backend.quantize(recipe.scaling, whole(shape), amax, scale_inv, codes.data(), shape.cols,
                         {});
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    });
}

void add_shape(const Shape& shape) {
    const std::string end = "/cuda/" + shape.text();
    for (const Recipe& recipe : refit::quant::recipe_catalog()) {
        add("quantize/" + recipe.name + end,
            [&recipe, shape](auto& state) { bench_quantize(state, recipe, shape); });
    }
    for (const char* name : kKinds) {
        const Recipe& recipe = refit::quant::find_recipe(name);
        add("amax/" + recipe.name + end,
            [&recipe, shape](auto& state) { bench_amax(state, recipe, shape); });
        add("staged/" + recipe.name + end,
            [&recipe, shape](auto& state) { bench_staged(state, recipe, shape); });
    }
    const Recipe& blockwise = refit::quant::find_recipe(kKinds[0]);
    add("dequantize" + end,
        [&blockwise, shape](auto& state) { bench_dequantize(state, blockwise, shape); });
    add("check/elements" + end,
        [&blockwise, shape](auto& state) { bench_check(state, blockwise, shape); });
    add("nonfinite" + end, [shape](auto& state) { bench_nonfinite(state, shape); });
    add("nan_codes" + end, [shape](auto& state) { bench_nan_codes(state, shape); });
    add("limit/copy" + end, [shape](auto& state) { bench_copy(state, shape); });
}

const bool kRegistered = [] {
    const refit::kernels::BackendRow& row = refit::kernels::cuda::cuda_row();
    if (!row.viable) {
        // Not on the standard output, which may be a report in JSON.
        std::fprintf(stderr, "# benchmarks of the device are left out: %s\n", row.reason.c_str());
        return false;
    }
    for (const Shape& shape : kDeviceShapes) add_shape(shape);
    return true;
}();

}  // namespace
