// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// XXH3-128 digests of tensor bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace refit::wire {

struct Digest {
    std::uint64_t low = 0;
    std::uint64_t high = 0;
    bool operator==(const Digest&) const = default;
};

/// 32 hexadecimal digits, high word first: what `xxhash.xxh3_128_hexdigest` prints in Python.
[[nodiscard]] std::string to_string(const Digest& digest);
/// Digest of one contiguous range.
[[nodiscard]] Digest digest_of(std::span<const std::byte> bytes);

/// The same, fed in parts.
class DigestStream {
 public:
    DigestStream();
    ~DigestStream();
    DigestStream(DigestStream&&) noexcept;
    DigestStream& operator=(DigestStream&&) noexcept;
    void reset();
    void update(const void* data, std::size_t bytes);
    [[nodiscard]] Digest value() const;

 private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace refit::wire
