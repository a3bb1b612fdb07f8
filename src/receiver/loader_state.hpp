// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What every loader keeps while pieces come, wherever its parameters lie. Private to src/receiver.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "receiver/derived_weights.hpp"
#include "receiver/host_scales.hpp"
#include "receiver/incoming_cell.hpp"
#include "receiver/loader_findings.hpp"
#include "receiver/weight_loader.hpp"
#include "wire/checksum.hpp"

namespace refit::receiver {

/// Whether `region` shares an element with any of the others.
[[nodiscard]] bool overlaps_any(const core::Region& region,
                                const std::vector<core::Region>& others);
/// Row and column of the first element of `whole` that none of the disjoint `parts` covers.
[[nodiscard]] std::optional<std::pair<std::int64_t, std::int64_t>> first_missing(
    const core::Region& whole, const std::vector<core::Region>& parts);

struct WeightLoader::State {
    /// What this rank does with one parameter of the manifest.
    struct Plan {
        bool is_scale = false;
        bool skip = false;
        bool flip = false;
        std::vector<std::size_t> spans;  ///< indexes into the spans of this rank
    };

    const ContractInstance& instance;
    const wire::RefitManifest& manifest;
    const std::vector<LoadSpan>& spans;
    std::vector<LoadedParameters> copies;
    std::size_t visible = 0;
    DerivedWeights derived;
    HostScales host;
    bool has_derived = false;
    std::vector<Plan> plans;                         ///< by parameter of the manifest
    std::vector<std::vector<core::Region>> written;  ///< by span, disjoint rectangles
    wire::DigestStream digest;
    Reported reported;
    std::uint64_t pending = 0;
    bool begun = false;
    bool finished = false;
    bool failed = false;
    bool flipped = false;
    std::uint64_t loaded_bytes = 0;
    std::int64_t since_progress = 0;

    /// `host_copies` of the destinations are allocated and poisoned.
    State(const ContractInstance& contract, const wire::RefitManifest& sent, std::size_t rank,
          std::size_t host_copies, const LoadFaults& faults,
          const std::function<void()>& on_progress);

    /// The cells of a piece that this rank keeps, in the order in which they lie there; `records`
    /// are all digests of the piece.
    [[nodiscard]] std::vector<IncomingCell> cells_of(
        const wire::PiecePlan& plan, std::span<const wire::DigestRecord> records) const;
    /// Of `count` copies the one that a refit writes.
    [[nodiscard]] std::size_t target_index(std::size_t count) const {
        return count == 1 ? 0 : 1 - visible;
    }
    LoadedParameters& target() { return copies[target_index(copies.size())]; }

 private:
    /// Sets where the cell goes.
    void set_destination(std::size_t index, IncomingCell& cell) const;
};

}  // namespace refit::receiver
