// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "parallel/placement.hpp"

#include <cmath>
#include <cstddef>
#include <string>

#include "core/error.hpp"

namespace refit::parallel {
namespace {

/// Rounds to the nearest multiple of `multiple`, half up, within [low, high].
std::int64_t to_boundary(double position, std::int64_t multiple, std::int64_t low,
                         std::int64_t high) {
    const auto unit = static_cast<double>(multiple);
    const double boundary = std::floor(position / unit + 0.5) * unit;
    if (!(boundary > static_cast<double>(low))) return low;
    if (!(boundary < static_cast<double>(high))) return high;
    return static_cast<std::int64_t>(boundary);
}

void check(std::int64_t rows, const RowSharding& sharding) {
    if (rows < 0) {
        throw core::ShapeError("cannot shard " + std::to_string(rows) +
                               " rows; a tensor has 0 rows or more");
    }
    if (sharding.ranks < 1) {
        throw core::ScenarioError("trainer.ranks is " + std::to_string(sharding.ranks) +
                                  "; it must be at least 1");
    }
    if (sharding.multiple < 1) {
        throw core::ScenarioError("shard boundaries as multiples of " +
                                  std::to_string(sharding.multiple) +
                                  " rows are asked for; the multiple must be at least 1");
    }
    if (sharding.shares.empty()) return;
    if (sharding.shares.size() != static_cast<std::size_t>(sharding.ranks)) {
        throw core::ScenarioError("trainer shares: " + std::to_string(sharding.shares.size()) +
                                  " are given for " + std::to_string(sharding.ranks) +
                                  " ranks; give one for each rank");
    }
    double sum = 0.0;
    for (const double share : sharding.shares) {
        if (!(share >= 0.0) || !std::isfinite(share)) {
            throw core::ScenarioError("trainer shares: " + std::to_string(share) +
                                      " is given; a share is a finite number, 0 or more");
        }
        sum += share;
    }
    if (!(sum > 0.0) || !std::isfinite(sum)) {
        throw core::ScenarioError(
            "trainer shares add up to " + std::to_string(sum) +
            "; their sum must be finite and above 0, so that the rows have an owner");
    }
}

}  // namespace

std::vector<core::RowRange> shard_rows(std::int64_t rows, const RowSharding& sharding) {
    check(rows, sharding);
    std::vector<core::RowRange> ranges;
    ranges.reserve(static_cast<std::size_t>(sharding.ranks));
    std::int64_t begin = 0;
    if (sharding.shares.empty()) {
        // Ceiling division in units of `multiple`, as FSDP chunks the first dimension: the first
        // ranks are full, a later one holds the remainder, and those behind it nothing.
        const std::int64_t units = core::ceil_div(rows, sharding.multiple);
        const std::int64_t chunk = core::ceil_div(units, sharding.ranks) * sharding.multiple;
        for (int rank = 0; rank < sharding.ranks; ++rank) {
            const std::int64_t end = rows - begin < chunk ? rows : begin + chunk;
            ranges.push_back({begin, end});
            begin = end;
        }
        return ranges;
    }
    double sum = 0.0;
    std::size_t last_owner = 0;  // the last rank with a share above 0
    for (std::size_t rank = 0; rank < sharding.shares.size(); ++rank) {
        sum += sharding.shares[rank];
        if (sharding.shares[rank] > 0.0) last_owner = rank;
    }
    double cumulative = 0.0;
    for (std::size_t rank = 0; rank < sharding.shares.size(); ++rank) {
        cumulative += sharding.shares[rank];
        // The last owner takes the remainder below one multiple; a rank of share 0 takes nothing.
        std::int64_t end = begin;
        if (rank >= last_owner) {
            end = rows;
        } else if (sharding.shares[rank] > 0.0) {
            end = to_boundary(static_cast<double>(rows) * (cumulative / sum), sharding.multiple,
                              begin, rows);
        }
        ranges.push_back({begin, end});
        begin = end;
    }
    return ranges;
}

std::optional<Layout> layout_from_name(std::string_view name) {
    if (name == "fsdp") return Layout::fsdp;
    if (name == "tp") return Layout::tp;
    if (name == "ep") return Layout::ep;
    return std::nullopt;
}

int rank_of_expert(std::int64_t expert, std::int64_t experts, int ranks) {
    if (expert < 0 || expert >= experts || ranks < 1) {
        throw core::ShapeError("expert " + std::to_string(expert) + " of " +
                               std::to_string(experts) + " has no place among " +
                               std::to_string(ranks) + " trainers");
    }
    return static_cast<int>(expert * ranks / experts);
}

namespace {

[[noreturn]] void does_not_divide(const PlacedTensor& tensor, const std::string& what,
                                  std::int64_t count, int ranks) {
    std::string fitting;
    for (int r = 1; r <= ranks * 2 && r <= 64; ++r) {
        if (count % r == 0) fitting += (fitting.empty() ? "" : ", ") + std::to_string(r);
    }
    throw core::ScenarioError("trainer.layout tp cannot cut " + tensor.name + ": its " +
                              std::to_string(count) + " " + what + " are not a multiple of the " +
                              std::to_string(ranks) +
                              " trainer ranks; set trainer.ranks to one of " + fitting +
                              ", or --set trainer.layout=fsdp");
}

core::Region whole(const PlacedTensor& tensor) {
    return {0, 0, tensor.rows, tensor.cols};
}

/// Heads that several ranks hold alike: a head's replicas are neighbours, one of them sends.
Placement replicate_heads(const PlacedTensor& tensor, int ranks, std::size_t turn) {
    if (ranks % tensor.heads != 0) does_not_divide(tensor, "heads", tensor.heads, ranks);
    const std::int64_t replicas = ranks / tensor.heads;
    const std::int64_t head_rows = tensor.rows / tensor.heads;
    const std::int64_t sender = static_cast<std::int64_t>(turn) % replicas;
    Placement placement;
    for (int rank = 0; rank < ranks; ++rank) {
        const core::Region own{rank / replicas * head_rows, 0, head_rows, tensor.cols};
        placement.held.push_back(own);
        placement.sent.push_back(rank % replicas == sender ? own : core::Region{});
    }
    return placement;
}

Placement cut_tensor(const PlacedTensor& tensor, int ranks, std::size_t turn) {
    Placement placement;
    if (tensor.cut == TensorCut::replicated) {
        const auto sender = static_cast<int>(turn % static_cast<std::size_t>(ranks));
        for (int rank = 0; rank < ranks; ++rank) {
            placement.held.push_back(whole(tensor));
            placement.sent.push_back(rank == sender ? whole(tensor) : core::Region{});
        }
        return placement;
    }
    const bool by_rows = tensor.cut == TensorCut::rows;
    const std::int64_t extent = by_rows ? tensor.rows : tensor.cols;
    if (by_rows && tensor.heads > 0) {
        if (tensor.rows % tensor.heads != 0) {
            throw core::ShapeError(tensor.name + " has " + std::to_string(tensor.rows) +
                                   " rows, which are no whole number for each of " +
                                   std::to_string(tensor.heads) + " heads");
        }
        if (tensor.heads_replicate && ranks > tensor.heads)
            return replicate_heads(tensor, ranks, turn);
        if (tensor.heads % ranks != 0) does_not_divide(tensor, "heads", tensor.heads, ranks);
    } else if (extent % ranks != 0) {
        does_not_divide(tensor, by_rows ? "rows" : "columns", extent, ranks);
    }
    const std::int64_t part = extent / ranks;
    for (int rank = 0; rank < ranks; ++rank) {
        placement.held.push_back(by_rows ? core::Region{rank * part, 0, part, tensor.cols}
                                         : core::Region{0, rank * part, tensor.rows, part});
    }
    placement.sent = placement.held;
    return placement;
}

Placement cut_rows(const PlacedTensor& tensor, const RowSharding& sharding) {
    Placement placement;
    for (const core::RowRange& rows : shard_rows(tensor.rows, sharding)) {
        placement.held.push_back({rows.begin, 0, rows.count(), tensor.cols});
    }
    placement.sent = placement.held;
    return placement;
}

Placement on_one_rank(const PlacedTensor& tensor, int owner, int ranks) {
    Placement placement;
    placement.held.resize(static_cast<std::size_t>(ranks));
    placement.held[static_cast<std::size_t>(owner)] = whole(tensor);
    placement.sent = placement.held;
    return placement;
}

}  // namespace

std::vector<Placement> place(const std::vector<PlacedTensor>& tensors, const Sharding& sharding) {
    check(0, sharding.rows);
    const int ranks = sharding.rows.ranks;
    std::vector<Placement> placements;
    placements.reserve(tensors.size());
    // Senders of what several trainers hold take turns, so that no rank sends all of it.
    std::size_t turn = 0;
    for (const PlacedTensor& tensor : tensors) {
        if (sharding.layout == Layout::tp) {
            placements.push_back(cut_tensor(tensor, ranks, turn));
            const bool shared =
                tensor.cut == TensorCut::replicated ||
                (tensor.heads_replicate && tensor.heads > 0 && ranks > tensor.heads);
            if (shared) ++turn;
        } else if (sharding.layout == Layout::ep && tensor.expert >= 0) {
            placements.push_back(
                on_one_rank(tensor, rank_of_expert(tensor.expert, sharding.experts, ranks), ranks));
        } else {
            placements.push_back(cut_rows(tensor, sharding.rows));
        }
    }
    return placements;
}

}  // namespace refit::parallel
