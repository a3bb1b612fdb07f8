// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/microbench/bench_setup.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <ctime>
#include <limits>
#include <map>
#include <random>
#include <utility>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace refit::microbench {
namespace {

struct Bytes {
    std::int64_t read;
    std::int64_t written;
};

Bytes bytes_of(Traffic traffic) {
    switch (traffic) {
        case Traffic::read_1:
            return {1, 0};
        case Traffic::read_2:
            return {2, 0};
        case Traffic::read_3:
            return {3, 0};
        case Traffic::read_1_write_1:
            return {1, 1};
        case Traffic::read_1_write_2:
            return {1, 2};
        case Traffic::read_2_write_1:
            return {2, 1};
    }
    return {0, 0};
}

#if defined(__SSE2__)

using Vector = __m128i;
Vector load(const std::byte* from) {
    return _mm_loadu_si128(reinterpret_cast<const Vector*>(from));
}
Vector mixed(Vector a, Vector b) {
    return _mm_xor_si128(a, b);
}
template <bool kStreaming>
void store(std::byte* to, Vector value) {
    if constexpr (kStreaming) {
        _mm_stream_si128(reinterpret_cast<Vector*>(to), value);
    } else {
        _mm_store_si128(reinterpret_cast<Vector*>(to), value);
    }
}
void fence() {
    _mm_sfence();
}

#else

struct Vector {
    std::uint64_t low;
    std::uint64_t high;
};
Vector load(const std::byte* from) {
    Vector value;
    std::memcpy(&value, from, sizeof(value));
    return value;
}
Vector mixed(Vector a, Vector b) {
    return {a.low ^ b.low, a.high ^ b.high};
}
template <bool kStreaming>
void store(std::byte* to, Vector value) {
    std::memcpy(to, &value, sizeof(value));
}
void fence() {}

#endif

/// How a limit loop moves its bytes; which way is the fastest depends on the processor and on what
/// else uses the memory.
struct Way {
    bool streaming;  ///< stores past the cache
    bool fetching;   ///< reads asked for ahead
};
constexpr Way kWays[] = {{false, false}, {true, false}, {false, true}, {true, true}};
constexpr std::int64_t kAheadBytes = 4096;

/// 64 bytes of each stream at a time: kRead streams in, kWritten out, as many bytes each as there
/// are elements.
template <int kRead, int kWritten, bool kStreaming, bool kFetching>
void run_limit(const std::byte* source, std::byte* target, std::int64_t elements) {
    Vector sum{};
    for (std::int64_t i = 0; i + 64 <= elements; i += 64) {
        if constexpr (kFetching) {
            for (int stream = 0; stream < kRead; ++stream) {
                __builtin_prefetch(source + i * kRead + stream * 64 + kAheadBytes);
            }
        }
        for (std::int64_t k = 0; k < 64; k += 16) {
            Vector value = load(source + i * kRead + k);
            for (int stream = 1; stream < kRead; ++stream) {
                value = mixed(value, load(source + i * kRead + stream * 64 + k));
            }
            if constexpr (kWritten == 0) {
                sum = mixed(sum, value);
            }
            for (int stream = 0; stream < kWritten; ++stream) {
                store<kStreaming>(target + i * kWritten + stream * 64 + k, value);
            }
        }
    }
    benchmark::DoNotOptimize(sum);
    fence();
    benchmark::ClobberMemory();
}

using LimitLoop = void (*)(const std::byte* source, std::byte* target, std::int64_t elements);

template <int kRead, int kWritten>
LimitLoop limit_loop(const Way& way) {
    if (way.fetching) {
        return way.streaming ? run_limit<kRead, kWritten, true, true>
                             : run_limit<kRead, kWritten, false, true>;
    }
    return way.streaming ? run_limit<kRead, kWritten, true, false>
                         : run_limit<kRead, kWritten, false, false>;
}

LimitLoop limit_loop(Traffic traffic, const Way& way) {
    switch (traffic) {
        case Traffic::read_1:
            return limit_loop<1, 0>(way);
        case Traffic::read_2:
            return limit_loop<2, 0>(way);
        case Traffic::read_3:
            return limit_loop<3, 0>(way);
        case Traffic::read_1_write_1:
            return limit_loop<1, 1>(way);
        case Traffic::read_1_write_2:
            return limit_loop<1, 2>(way);
        case Traffic::read_2_write_1:
            return limit_loop<2, 1>(way);
    }
    return nullptr;
}

/// Memory of the limit loops, kept from call to call and touched before its first use.
struct LimitBuffers {
    core::AlignedBuffer source;
    core::AlignedBuffer target;
};

LimitBuffers& limit_buffers(std::int64_t elements) {
    static LimitBuffers buffers;
    const auto count = static_cast<std::size_t>(elements);
    if (buffers.target.size() < 2 * count) {
        buffers = {core::AlignedBuffer(3 * count), core::AlignedBuffer(2 * count)};
        std::memset(buffers.source.data(), 1, buffers.source.size());
        std::memset(buffers.target.data(), 1, buffers.target.size());
    }
    return buffers;
}

double time_limit(Traffic traffic, const Shape& shape, const Way& way) {
    LimitBuffers& buffers = limit_buffers(shape.elements());
    const auto passes = std::max<std::int64_t>(1, (std::int64_t{1} << 20) / shape.elements());
    const LimitLoop run = limit_loop(traffic, way);
    const double begin = thread_cpu_s();
    for (std::int64_t pass = 0; pass < passes; ++pass) {
        run(buffers.source.data(), buffers.target.data(), shape.elements());
    }
    return (thread_cpu_s() - begin) / static_cast<double>(passes);
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const std::size_t half = values.size() / 2;
    return values.size() % 2 == 1 ? values[half] : 0.5 * (values[half - 1] + values[half]);
}

}  // namespace

double thread_cpu_s() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

std::span<const std::uint16_t> weights() {
    constexpr auto kCount = static_cast<std::size_t>(16384) * 8192;
    // Memory as the limit loops and the program's own weights have it: where pages are small, each
    // of the streams of a stripe waits for translations that a copy from end to end needs less.
    static const core::AlignedBuffer memory = [] {
        core::AlignedBuffer made(kCount * sizeof(std::uint16_t));
        auto* const values = reinterpret_cast<std::uint16_t*>(made.data());
        std::mt19937_64 random(1);
        std::normal_distribution<float> gaussian(0.0F, 0.02F);
        constexpr std::size_t kDistinct = 1 << 22;
        for (std::size_t i = 0; i < kDistinct; ++i) {
            values[i] =
                static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(gaussian(random)) >> 16);
        }
        for (std::size_t i = kDistinct; i < kCount; ++i) values[i] = values[i - kDistinct];
        return made;
    }();
    return {reinterpret_cast<const std::uint16_t*>(memory.data()), kCount};
}

kernels::Band whole(const Shape& shape) {
    kernels::Band band;
    band.data = weights().data();
    band.row_stride = shape.cols;
    band.row_count = shape.rows;
    band.rows = shape.rows;
    band.cols = shape.cols;
    const std::uint16_t last = weights()[static_cast<std::size_t>(shape.elements() - 1)];
    band.last_element_bits = static_cast<std::uint32_t>(last & 0x7fffU) << 16;
    return band;
}

Codes::Codes(const quant::Recipe& recipe, const Shape& shape)
    : bytes(static_cast<std::size_t>(shape.elements())) {
    const kernels::TileGrid grid = kernels::tile_grid(recipe.scaling, shape.rows, shape.cols);
    scales.resize(static_cast<std::size_t>(grid.grid_rows * grid.grid_cols));
    std::vector<std::uint32_t> amax(scales.size());
    kernels::find_backend("auto")->quantize(recipe.scaling, whole(shape), amax, scales,
                                            reinterpret_cast<std::uint8_t*>(bytes.data()),
                                            shape.cols, {});
}

const std::uint8_t* Codes::data() const {
    return reinterpret_cast<const std::uint8_t*>(bytes.data());
}

std::int64_t bytes_moved(Traffic traffic, const Shape& shape) {
    const Bytes bytes = bytes_of(traffic);
    return (bytes.read + bytes.written) * shape.elements();
}

double limit_s(Traffic traffic, const Shape& shape) {
    static std::map<std::pair<int, std::int64_t>, const Way*> ways;
    const Way*& chosen = ways[{static_cast<int>(traffic), shape.elements()}];
    if (chosen == nullptr) {
        std::map<const Way*, double> best;
        for (int round = 0; round < 5; ++round) {
            for (const Way& way : kWays) {
                const double seconds = time_limit(traffic, shape, way);
                const auto [place, is_new] = best.try_emplace(&way, seconds);
                place->second = std::min(place->second, seconds);
            }
        }
        chosen = std::min_element(best.begin(), best.end(), [](const auto& a, const auto& b) {
                     return a.second < b.second;
                 })->first;
    }
    return time_limit(traffic, shape, *chosen);
}

void report(benchmark::State& state, Traffic traffic, const Shape& shape,
            std::vector<double> work_s, std::vector<double> limits_s) {
    if (work_s.empty()) return;
    const double work = median(std::move(work_s));
    const auto elements = static_cast<double>(shape.elements());
    state.counters["elements_per_s"] = elements / work;
    state.counters["bytes_per_s"] = static_cast<double>(bytes_moved(traffic, shape)) / work;
    state.counters["of_limit"] = median(std::move(limits_s)) / work;
}

void add(const std::string& name, std::function<void(benchmark::State&)> run) {
    benchmark::RegisterBenchmark(name.c_str(), [run](benchmark::State& state) {
        run(state);
    })->UseManualTime();
}

}  // namespace refit::microbench
