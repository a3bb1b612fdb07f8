// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/host_scales.hpp"

#include <cstdio>
#include <cstring>
#include <limits>
#include <string>

#include "receiver/engine_finding.hpp"

namespace refit::receiver {
namespace {

float value_of(const LoadedParameters& loaded, std::size_t destination) {
    float value = 0.0F;
    std::memcpy(&value, loaded.bytes(destination).data(), sizeof value);
    return value;
}

/// With enough digits to tell two numbers apart.
std::string number(float value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.9g", static_cast<double>(value));
    return text;
}

/// The checkpoint's name of a scale, which is the same on every rank.
std::string wanted_name(const ContractInstance& instance, std::size_t destination) {
    for (const LoadSpan& span : instance.spans.front()) {
        if (span.destination == destination) return instance.wanted[span.wanted].name;
    }
    return instance.destinations[destination].name;
}

}  // namespace

HostScales::HostScales(const ContractInstance& instance) {
    for (std::size_t i = 0; i < instance.destinations.size(); ++i) {
        if (instance.destinations[i].is_cache_scale)
            copies_.push_back({i, std::numeric_limits<float>::quiet_NaN()});
    }
}

void HostScales::update(const LoadedParameters& loaded) {
    for (Copy& copy : copies_) copy.value = value_of(loaded, copy.destination);
}

void HostScales::update(std::span<const float> values) {
    for (std::size_t i = 0; i < copies_.size(); ++i) copies_[i].value = values[i];
}

core::Findings check_host_scales(const ContractInstance& instance, const LoadedParameters& loaded,
                                 const HostScales& host, std::uint64_t version) {
    core::Findings findings;
    for (const HostScales::Copy& copy : host.copies()) {
        const float held = value_of(loaded, copy.destination);
        if (copy.value == held) continue;
        findings.push_back(
            engine_finding("version", wanted_name(instance, copy.destination), number(copy.value),
                           number(held), "silently_wrong", "",
                           "the host's copy " + instance.destinations[copy.destination].name +
                               "_float is not that of version " + std::to_string(version),
                           "compute the host copies again at every commit"));
    }
    return findings;
}

}  // namespace refit::receiver
