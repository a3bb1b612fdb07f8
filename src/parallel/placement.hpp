// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Who holds and who sends which rectangle of a tensor among the trainers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/shape.hpp"

namespace refit::parallel {

/// How FSDP cuts the first dimension of every tensor.
struct RowSharding {
    int ranks = 1;
    std::int64_t multiple =
        128;  ///< shard boundaries are multiples of this; 1 lets them cut scaling tiles
    std::vector<double> shares;  ///< relative size of each rank's shard; empty = equal
};

/// Rows of each rank, in rank order, covering [0, rows) without overlap; a rank may own none.
[[nodiscard]] std::vector<core::RowRange> shard_rows(std::int64_t rows,
                                                     const RowSharding& sharding);

enum class Layout {
    fsdp,  ///< every tensor is cut by rows
    tp,    ///< tensor parallel: by rows, by columns or replicated, as the tensor's part wants
    ep,    ///< routed experts whole, one rank each; everything else as fsdp
};

/// nullopt for an unknown name.
[[nodiscard]] std::optional<Layout> layout_from_name(std::string_view name);

/// The trainers' layout. Figures of the model stand here because heads and experts are never cut.
struct Sharding {
    Sharding() = default;
    /// FSDP.
    Sharding(RowSharding by_rows) : rows(std::move(by_rows)) {}  // NOLINT: a plain row sharding

    RowSharding rows;  ///< of fsdp, and of what ep does not place by expert; `ranks` counts always
    Layout layout = Layout::fsdp;
    std::int64_t heads = 0;     ///< attention heads (tp)
    std::int64_t kv_heads = 0;  ///< (tp)
    std::int64_t experts = 0;   ///< routed experts of a layer (ep)
};

/// How tensor parallelism cuts a tensor.
enum class TensorCut {
    replicated,  ///< every trainer holds all of it, one sends it
    rows,        ///< column-parallel linear layers: outputs, heads, vocabulary
    columns,     ///< row-parallel linear layers: inputs
};

/// What a layout has to know of a tensor.
struct PlacedTensor {
    std::string name;
    std::int64_t rows = 0;  ///< of the tensor seen as a matrix
    std::int64_t cols = 0;
    TensorCut cut = TensorCut::replicated;
    std::int64_t heads = 0;        ///< of a row cut: heads that stay whole; 0 = rows are cut freely
    bool heads_replicate = false;  ///< more ranks than heads: a head is held by several ranks
    std::int64_t expert = -1;      ///< routed expert that the tensor belongs to, or -1
};

/// One tensor among the trainers; by trainer, global rectangles, an empty one where there is none.
/// The rectangles sent cover the tensor once; each lies within what its trainer holds.
struct Placement {
    std::vector<core::Region> held;
    std::vector<core::Region> sent;
};

[[nodiscard]] inline bool is_empty(const core::Region& region) {
    return region.rows <= 0 || region.cols <= 0;
}

/// The trainer that holds a routed expert under `ep`: contiguous blocks, uneven where the ranks do
/// not divide the experts.
[[nodiscard]] int rank_of_expert(std::int64_t expert, std::int64_t experts, int ranks);

/// Every tensor's place. Deterministic: trainers agree without a word. Throws ScenarioError that
/// names tensor, extent and remedy where `tp` does not divide, ShapeError for a negative extent.
[[nodiscard]] std::vector<Placement> place(const std::vector<PlacedTensor>& tensors,
                                           const Sharding& sharding);

}  // namespace refit::parallel
