// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// check/elements/<shape>: the element-wise check (dequantize, bound, statistics) of weights against
// codes. dequantize/<shape>: codes to BF16, as the program's command does it. limit/..: the loops
// that all figures are divided by. One core.
#include <array>
#include <cmath>
#include <utility>

#include "checks/decode.hpp"
#include "checks/element_walk.hpp"
#include "harness/microbench/bench_setup.hpp"
#include "quant/dequantize.hpp"

namespace {

using namespace refit::microbench;

constexpr std::int64_t kTile = 128;
constexpr double kSlack = 1.0 / 65536.0;

const refit::quant::Recipe& blockwise() {
    return refit::quant::find_recipe("prime-rl-blockwise-cpu");
}

/// Every element of the shape, eight rows of a tile at a time as the audit takes them.
refit::checks::TensorAudit walk(const Codes& codes, const Shape& shape) {
    refit::checks::TensorAudit audit;
    std::vector<std::int64_t> beyond;
    std::vector<std::int64_t> nonfinite;
    const std::int64_t grid_cols = shape.cols / kTile;
    refit::checks::NearestCodesCache known;
    std::vector<refit::checks::NearestCodes> nearest(static_cast<std::size_t>(grid_cols));
    constexpr std::int64_t kRows = 8;
    for (std::int64_t first = 0; first < shape.rows; first += kRows) {
        for (std::int64_t t = 0; t < grid_cols; ++t) {
            refit::checks::Segment segment;
            segment.source = weights().data() + first * shape.cols + t * kTile;
            segment.codes = codes.data() + first * shape.cols + t * kTile;
            segment.count = kTile;
            segment.loaded_scale =
                codes.scales[static_cast<std::size_t>((first / kTile) * grid_cols + t)];
            segment.own_scale = segment.loaded_scale;
            refit::checks::NearestCodes& expected = nearest[static_cast<std::size_t>(t)];
            if (first % kTile == 0) {
                expected = known.of(segment.own_scale, segment.loaded_scale);
            }
            segment.nearest = &expected;
            if (refit::checks::walk_rows(segment, {kRows, shape.cols, shape.cols}, kSlack, audit)) {
                continue;
            }
            for (std::int64_t row = 0; row < kRows; ++row) {
                refit::checks::walk_segment(segment, kSlack, audit, beyond, nonfinite);
                segment.source += shape.cols;
                segment.codes += shape.cols;
            }
        }
    }
    return audit;
}

void bench_check(benchmark::State& state, const Shape& shape) {
    Codes codes(blockwise(), shape);
    // Gaussian weights in E4M3FN have an SQNR near 31.5 dB; a wrong code must be seen.
    const refit::checks::TensorAudit audit = walk(codes, shape);
    const double sqnr = refit::checks::sqnr_db(audit.sum_x2, audit.sum_error2);
    auto* bytes = reinterpret_cast<std::uint8_t*>(codes.bytes.data());
    bytes[77] ^= 0x10U;
    const bool seen = walk(codes, shape).mismatched == 1;
    bytes[77] ^= 0x10U;
    if (audit.mismatched != 0 || audit.elements != shape.elements() || !seen ||
        std::abs(sqnr - 31.5) > 0.3) {
        state.SkipWithError("the check does not accept right codes, or accepts a wrong one");
        return;
    }
    measure(state, Traffic::read_3, shape, [&] {
        refit::checks::TensorAudit result = walk(codes, shape);
        benchmark::DoNotOptimize(result);
    });
}

void bench_dequantize(benchmark::State& state, const Shape& shape) {
    const Codes codes(blockwise(), shape);
    refit::core::AlignedBuffer storage(2 * static_cast<std::size_t>(shape.elements()));
    auto* values = reinterpret_cast<std::uint16_t*>(storage.data());
    const refit::quant::CodedMatrix matrix{
        codes.data(), codes.scales.data(), shape.rows, shape.cols, kTile, kTile};
    std::int64_t nonfinite = 0;
    const auto dequantize = [&] { nonfinite = refit::quant::dequantize_bf16(matrix, values); };
    dequantize();
    for (std::int64_t i = 0; i < shape.cols; ++i) {
        const double scale = codes.scales[static_cast<std::size_t>(i / kTile)];
        const double exact = refit::checks::decode_e4m3(codes.data()[i]) * scale;
        if (nonfinite != 0 ||
            std::abs(refit::checks::decode_bf16(values[i]) - exact) > std::abs(exact) / 256.0) {
            state.SkipWithError("a dequantized value is not its code times its scale");
            return;
        }
    }
    measure(state, Traffic::read_1_write_2, shape, dequantize);
}

/// The limit beside itself: of_limit shows what the machine's noise does to a fraction.
void bench_limit(benchmark::State& state, Traffic traffic, const Shape& shape) {
    std::vector<double> seconds;
    std::vector<double> again;
    for ([[maybe_unused]] auto iteration : state) {
        seconds.push_back(limit_s(traffic, shape));
        state.SetIterationTime(seconds.back());
        again.push_back(limit_s(traffic, shape));
    }
    report(state, traffic, shape, std::move(seconds), std::move(again));
}

constexpr std::array<std::pair<const char*, Traffic>, 6> kLimits = {
    {{"read_1", Traffic::read_1},
     {"read_2", Traffic::read_2},
     {"read_3", Traffic::read_3},
     {"copy_1r1w", Traffic::read_1_write_1},
     {"copy_1r2w", Traffic::read_1_write_2},
     {"copy_2r1w", Traffic::read_2_write_1}}};

const bool kRegistered = [] {
    for (const Shape& shape : kShapes) {
        for (const auto& [name, traffic] : kLimits) {
            const Traffic kind = traffic;
            add("limit/" + std::string(name) + "/" + shape.text(),
                [kind, shape](auto& state) { bench_limit(state, kind, shape); });
        }
        add("check/elements/" + shape.text(), [shape](auto& state) { bench_check(state, shape); });
        add("dequantize/" + shape.text(), [shape](auto& state) { bench_dequantize(state, shape); });
    }
    return true;
}();

}  // namespace
