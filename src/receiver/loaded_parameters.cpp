// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/loaded_parameters.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

namespace refit::receiver {
namespace {

constexpr std::size_t kDestinationAlignment = 64;
constexpr std::size_t kPoisonStepBytes = std::size_t{16} << 20;

}  // namespace

DestinationPlaces::DestinationPlaces(const ContractInstance& instance) {
    for (const DestinationParameter& parameter : instance.destinations) {
        const auto bytes = static_cast<std::size_t>(core::element_count(parameter.shape) *
                                                    core::size_bytes(parameter.dtype));
        ranges_.push_back({total_, bytes});
        total_ +=
            (bytes + kDestinationAlignment - 1) / kDestinationAlignment * kDestinationAlignment;
    }
}

std::uint64_t DestinationPlaces::used_bytes() const {
    std::uint64_t sum = 0;
    for (const Range& range : ranges_) sum += range.bytes;
    return sum;
}

LoadedParameters::LoadedParameters(const ContractInstance& instance)
    : places_(instance), memory_(places_.total_bytes()) {}

std::span<std::byte> LoadedParameters::bytes(std::size_t destination) {
    const auto [offset, size] = places_.range(destination);
    return memory_.span().subspan(offset, size);
}

std::span<const std::byte> LoadedParameters::bytes(std::size_t destination) const {
    const auto [offset, size] = places_.range(destination);
    return memory_.span().subspan(offset, size);
}

void LoadedParameters::poison(const ContractInstance& instance,
                              const std::function<void()>& on_progress) {
    for (std::size_t at = 0; at < memory_.size(); at += kPoisonStepBytes) {
        std::memset(memory_.data() + at, 0xFF, std::min(kPoisonStepBytes, memory_.size() - at));
        if (on_progress) on_progress();
    }
    constexpr float kLowest = std::numeric_limits<float>::lowest();
    for (std::size_t i = 0; i < instance.destinations.size(); ++i) {
        if (!instance.destinations[i].is_scale) continue;
        const std::span<std::byte> range = bytes(i);
        for (std::size_t at = 0; at + sizeof kLowest <= range.size(); at += sizeof kLowest)
            std::memcpy(range.data() + at, &kLowest, sizeof kLowest);
    }
}

std::uint64_t LoadedParameters::size_bytes() const {
    return places_.used_bytes();
}

}  // namespace refit::receiver
