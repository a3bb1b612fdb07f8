// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// digest/xxh3_128/<bytes>: the digest of codes, in cache and from memory, one core.
#include <benchmark/benchmark.h>
#include <xxhash.h>

#include <cstdint>
#include <string_view>
#include <vector>

namespace {

void bench_digest(benchmark::State& state) {
    // The published value for no input shows that the library computes what it is named after.
    const XXH128_hash_t empty = XXH3_128bits("", 0);
    if (empty.high64 != 0x99aa06d3014798d8ULL || empty.low64 != 0x6001c324468d497fULL) {
        state.SkipWithError("XXH3-128 of no bytes is not the published value");
        return;
    }
    const std::vector<std::uint8_t> bytes(static_cast<std::size_t>(state.range(0)), 0x5a);
    for ([[maybe_unused]] auto iteration : state) {
        XXH128_hash_t digest = XXH3_128bits(bytes.data(), bytes.size());
        benchmark::DoNotOptimize(digest);
    }
    state.counters["bytes_per_s"] = benchmark::Counter(
        static_cast<double>(bytes.size()), benchmark::Counter::kIsIterationInvariantRate);
}

BENCHMARK(bench_digest)->Name("digest/xxh3_128")->Arg(256 << 10)->Arg(256 << 20);

}  // namespace
