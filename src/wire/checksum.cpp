// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "wire/checksum.hpp"

#include <xxhash.h>

#include <cstdio>

#include "core/error.hpp"

namespace refit::wire {
namespace {

Digest from_xxh(XXH128_hash_t hash) {
    return {hash.low64, hash.high64};
}

}  // namespace

struct DigestStream::State {
    XXH3_state_t* xxh = nullptr;
    State() : xxh(XXH3_createState()) {
        if (xxh == nullptr) throw core::ResourceError("no memory for a digest state");
        XXH3_128bits_reset(xxh);
    }
    ~State() { XXH3_freeState(xxh); }
    State(const State&) = delete;
    State& operator=(const State&) = delete;
};

std::string to_string(const Digest& digest) {
    char text[33];
    std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(digest.high),
                  static_cast<unsigned long long>(digest.low));
    return text;
}

Digest digest_of(std::span<const std::byte> bytes) {
    return from_xxh(XXH3_128bits(bytes.data(), bytes.size()));
}

DigestStream::DigestStream() : state_(std::make_unique<State>()) {}
DigestStream::~DigestStream() = default;
DigestStream::DigestStream(DigestStream&&) noexcept = default;
DigestStream& DigestStream::operator=(DigestStream&&) noexcept = default;

void DigestStream::reset() {
    XXH3_128bits_reset(state_->xxh);
}

void DigestStream::update(const void* data, std::size_t bytes) {
    XXH3_128bits_update(state_->xxh, data, bytes);
}

Digest DigestStream::value() const {
    return from_xxh(XXH3_128bits_digest(state_->xxh));
}

}  // namespace refit::wire
