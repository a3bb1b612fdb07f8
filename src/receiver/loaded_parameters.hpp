// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The memory that holds an engine's parameters on one rank.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/aligned_buffer.hpp"
#include "receiver/engine_contract.hpp"

namespace refit::receiver {

/// Where each destination begins in one stretch of memory, and how long it is.
class DestinationPlaces {
 public:
    struct Range {
        std::size_t offset = 0;  ///< a multiple of 64
        std::size_t bytes = 0;
    };
    explicit DestinationPlaces(const ContractInstance& instance);
    [[nodiscard]] Range range(std::size_t destination) const { return ranges_.at(destination); }
    [[nodiscard]] std::size_t total_bytes() const { return total_; }
    /// Without what lies between two destinations.
    [[nodiscard]] std::uint64_t used_bytes() const;

 private:
    std::vector<Range> ranges_;
    std::size_t total_ = 0;
};

/// What the engine's kernels would see on this rank: one copy of every destination.
class LoadedParameters {
 public:
    explicit LoadedParameters(const ContractInstance& instance);
    [[nodiscard]] std::span<std::byte> bytes(std::size_t destination);
    [[nodiscard]] std::span<const std::byte> bytes(std::size_t destination) const;
    /// 0xFF bytes everywhere, -FLT_MAX in scales; padding rows too (the loader zero-fills them).
    /// `on_progress` is called at least once per 16 MiB: memory that is touched for the first time
    /// may come slowly.
    void poison(const ContractInstance& instance, const std::function<void()>& on_progress = {});
    [[nodiscard]] std::uint64_t size_bytes() const;

 private:
    DestinationPlaces places_;
    core::AlignedBuffer memory_;
};

}  // namespace refit::receiver
