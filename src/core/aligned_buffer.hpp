// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Owned bytes, aligned for vector loads and stores.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

namespace refit::core {

/// Uninitialised memory aligned to 64 bytes (2 MiB and advised as huge pages from 4 MiB on).
/// Throws ResourceError with the size when there is not enough memory.
class AlignedBuffer {
 public:
    AlignedBuffer() = default;
    explicit AlignedBuffer(std::size_t bytes);
    [[nodiscard]] std::byte* data() { return data_.get(); }
    [[nodiscard]] const std::byte* data() const { return data_.get(); }
    [[nodiscard]] std::size_t size() const { return size_; }
    [[nodiscard]] std::span<std::byte> span() { return {data_.get(), size_}; }
    [[nodiscard]] std::span<const std::byte> span() const { return {data_.get(), size_}; }

 private:
    struct Free {
        void operator()(std::byte* p) const noexcept;
    };
    std::unique_ptr<std::byte, Free> data_;
    std::size_t size_ = 0;
};

}  // namespace refit::core
