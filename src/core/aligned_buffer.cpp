// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "core/aligned_buffer.hpp"

#include <sys/mman.h>

#include <cstdlib>
#include <string>

#include "core/error.hpp"

namespace refit::core {

AlignedBuffer::AlignedBuffer(std::size_t bytes) : size_(bytes) {
    constexpr std::size_t kHugePage = std::size_t{2} << 20;
    const std::size_t alignment = bytes >= 2 * kHugePage ? kHugePage : 64;
    const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    // A size near the largest number wraps to a small one; there is no such memory either.
    void* memory = rounded < bytes
                       ? nullptr
                       : std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded);
    if (memory == nullptr) {
        throw ResourceError(
            "cannot allocate " + std::to_string(bytes) +
            " bytes; use fewer layers (--set model.layers=N) or a machine with more memory");
    }
    // Advice only: where the kernel does not take it, ordinary pages serve as well.
    if (alignment == kHugePage) (void)madvise(memory, rounded, MADV_HUGEPAGE);
    data_.reset(static_cast<std::byte*>(memory));
}

void AlignedBuffer::Free::operator()(std::byte* p) const noexcept {
    std::free(p);
}

}  // namespace refit::core
