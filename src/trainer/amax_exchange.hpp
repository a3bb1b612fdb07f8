// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The amax of tiles that several trainers hold parts of: gathered by each, then the largest of all.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/shape.hpp"
#include "kernels/backend.hpp"
#include "trainer/publisher.hpp"
#include "trainer/refit_plan.hpp"

namespace refit::trainer {

/// What the exchange says about one parameter.
struct ExchangedAmax {
    const SharedTiles* tiles = nullptr;    ///< null where nothing is shared
    std::span<const std::uint32_t> words;  ///< of the bucket
    std::uint32_t last_element_bits = 0;   ///< where the recipe pads ragged tiles with it

    [[nodiscard]] bool covers(std::int64_t grid_row) const;
    /// amax of the tiles [first_tile, first_tile + out.size()) of a covered grid row; ragged tiles
    /// with the last element of the matrix, where the recipe pads with it.
    void copy_row(const wire::ParameterMeta& meta, const kernels::TileGrid& grid,
                  std::int64_t grid_row, std::int64_t first_tile,
                  std::span<std::uint32_t> out) const;
};

class AmaxExchange {
 public:
    /// The part of `own`, which this trainer holds, in the tiles of `shared`: row() and
    /// last_element() are to be written.
    using GatherTiles = std::function<void(const SharedTiles& shared, const core::Region& own)>;

    /// The plan must outlive the exchange.
    AmaxExchange(const RefitPlan& plan, std::size_t trainer) : plan_(plan), trainer_(trainer) {}

    /// Collective where the bucket shares tiles. Calls gather_tiles for every entry of this trainer
    /// that has such, as long as `aborted` is false.
    void exchange(std::size_t bucket, const bool& aborted, const GatherTiles& gather_tiles,
                  const MaxOverTrainers& max_over_trainers);

    /// [grid.grid_cols] of the grid row shared.grid_rows[index].
    [[nodiscard]] std::span<std::uint32_t> row(const SharedTiles& shared, std::size_t index,
                                               const kernels::TileGrid& grid);
    /// The word of the matrix' last element, where shared.last_element.
    [[nodiscard]] std::uint32_t& last_element(const SharedTiles& shared,
                                              const kernels::TileGrid& grid);

    /// Of the bucket exchanged last; `grid` is the parameter's.
    [[nodiscard]] ExchangedAmax of(std::uint32_t parameter, const kernels::TileGrid& grid) const;

 private:
    const RefitPlan& plan_;
    std::size_t trainer_;
    std::size_t bucket_ = 0;
    std::vector<std::uint32_t> words_;
};

}  // namespace refit::trainer
