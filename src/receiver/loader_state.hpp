// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What every loader keeps while pieces come, wherever its parameters lie. Private to src/receiver.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "receiver/derived_weights.hpp"
#include "receiver/host_scales.hpp"
#include "receiver/weight_loader.hpp"
#include "wire/checksum.hpp"

namespace refit::receiver {

/// Whether an element of `from` can be loaded into a parameter of `to`.
[[nodiscard]] bool can_load(core::DType from, core::DType to);
/// The element (row, col) of the matrix view in the tensor's own dimensions.
[[nodiscard]] std::vector<std::int64_t> index_of(const core::Shape& shape, std::int64_t row,
                                                 std::int64_t col);
[[nodiscard]] std::string range_text(std::int64_t begin, std::int64_t end);
[[nodiscard]] bool overlap(const core::Region& a, const core::Region& b);
/// Row and column of the first element of `whole` that none of the disjoint `parts` covers.
[[nodiscard]] std::optional<std::pair<std::int64_t, std::int64_t>> first_missing(
    const core::Region& whole, const std::vector<core::Region>& parts);

/// Check, tensor and, where a parameter is made of several tensors, cell of what has a finding.
using Reported = std::set<std::tuple<std::string, std::string, std::uint32_t>>;

/// Collects findings, one a check and tensor; of an engine's own parameters one a check and cell,
/// which is a part of one tensor.
struct Reporter {
    core::Findings& findings;
    Reported& reported;
    bool& failed;
    bool by_cell = false;
    std::uint32_t cell = 0;

    void error(const std::string& check, const std::string& tensor, std::vector<std::int64_t> index,
               const std::string& measured, const std::string& limit, const std::string& message,
               const std::string& remedy);
};

struct WeightLoader::State {
    /// What this rank does with one parameter of the manifest.
    struct Plan {
        bool is_scale = false;
        bool skip = false;
        bool flip = false;
        std::vector<std::size_t> spans;  ///< indexes into the spans of this rank
    };
    /// One non-finite or non-positive scale, the first of a cell.
    struct BadScale {
        std::int64_t row = 0;
        std::int64_t col = 0;
        float value = 0.0F;
        std::int64_t count = 0;
    };

    const ContractInstance& instance;
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
    State(const ContractInstance& contract, const wire::RefitManifest& manifest, std::size_t rank,
          std::size_t host_copies, const LoadFaults& faults,
          const std::function<void()>& on_progress);

    /// Of `count` copies the one that a refit writes.
    [[nodiscard]] std::size_t target_index(std::size_t count) const {
        return count == 1 ? 0 : 1 - visible;
    }
    LoadedParameters& target() { return copies[target_index(copies.size())]; }
};

}  // namespace refit::receiver
