// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// digest/xxh3_128/<shape>: the digest of codes, one byte an element. pack/<shape>: the copy of a
// tensor's codes into a bucket. One core.
#include <xxhash.h>

#include <cstring>
#include <string_view>

#include "harness/microbench/bench_setup.hpp"

namespace {

using namespace refit::microbench;

/// The digest of an input whose value the library's authors published, so that what is timed is
/// what it is named after.
bool is_xxh3() {
    const XXH128_hash_t empty = XXH3_128bits("", 0);
    return empty.high64 == 0x99aa06d3014798d8ULL && empty.low64 == 0x6001c324468d497fULL;
}

void bench_digest(benchmark::State& state, const Shape& shape) {
    if (!is_xxh3()) {
        state.SkipWithError("XXH3-128 of no bytes is not the published value");
        return;
    }
    const auto bytes = static_cast<std::size_t>(shape.elements());
    measure(state, Traffic::read_1, shape, [&] {
        XXH128_hash_t digest = XXH3_128bits(weights().data(), bytes);
        benchmark::DoNotOptimize(digest);
    });
}

void bench_pack(benchmark::State& state, const Shape& shape) {
    const auto bytes = static_cast<std::size_t>(shape.elements());
    refit::core::AlignedBuffer bucket(bytes);
    const auto pack = [&] { std::memcpy(bucket.data(), weights().data(), bytes); };
    pack();
    if (std::memcmp(bucket.data(), weights().data(), bytes) != 0) {
        state.SkipWithError("the copy differs from its source");
        return;
    }
    measure(state, Traffic::read_1_write_1, shape, pack);
}

const bool kRegistered = [] {
    for (const Shape& shape : kShapes) {
        add("digest/xxh3_128/" + shape.text(),
            [shape](auto& state) { bench_digest(state, shape); });
        add("pack/" + shape.text(), [shape](auto& state) { bench_pack(state, shape); });
    }
    return true;
}();

}  // namespace
