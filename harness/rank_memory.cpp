// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/rank_memory.hpp"

#include <algorithm>
#include <array>
#include <sstream>
#include <string>
#include <vector>

#include "harness/process_memory.hpp"

namespace refit::harness {
namespace {

/// The figures of every rank, in rank order.
template <std::size_t Count>
std::vector<std::array<std::uint64_t, Count>> gathered(
    World& world, const std::array<std::uint64_t, Count>& mine) {
    std::string text;
    for (const std::uint64_t figure : mine) text += std::to_string(figure) + " ";
    std::vector<std::array<std::uint64_t, Count>> all;
    for (const std::string& one : world.allgather(text)) {
        std::istringstream fields(one);
        for (std::uint64_t& figure : all.emplace_back()) fields >> figure;
    }
    return all;
}

}  // namespace

void note_memory(World& world, std::uint64_t own_shared, std::size_t addresses,
                 record::CaseRecord& record) {
    const ProcessMemory memory = process_memory();
    std::uint64_t largest = 0;
    std::uint64_t sum = 0;
    std::uint64_t most_addresses = 0;
    for (const auto& [peak, shared, owned, places] :
         gathered<4>(world, {memory.peak_bytes, memory.shared_bytes, own_shared, addresses})) {
        largest = std::max(largest, peak);
        most_addresses = std::max(most_addresses, places);
        // Shared pages stand in the figure of every process that maps them; their owner's share
        // counts once.
        sum += peak - std::min(peak, shared) + owned;
    }
    // Engines bake addresses into CUDA graphs: one in place, two where copies take turns.
    record.notes["destination_addresses"] = std::to_string(most_addresses);
    record.peak_rss_max_bytes = static_cast<std::int64_t>(largest);
    record.peak_rss_sum_bytes = static_cast<std::int64_t>(world.is_mpi() ? sum : largest);
}

void note_device_traffic(World& world, const RankPart::Traffic& mine, record::CaseRecord& record) {
    std::array<std::uint64_t, 3> most{};
    for (const auto& one : gathered<3>(world, {mine.weights, mine.control, mine.audited})) {
        for (std::size_t i = 0; i < most.size(); ++i) most[i] = std::max(most[i], one[i]);
    }
    record.notes["device_staged_bytes"] = std::to_string(most[0]);
    record.notes["device_control_bytes"] = std::to_string(most[1]);
    record.notes["device_audited_bytes"] = std::to_string(most[2]);
}

}  // namespace refit::harness
