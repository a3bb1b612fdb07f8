// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/amax_exchange.hpp"

#include <algorithm>

namespace refit::trainer {
namespace {

std::size_t first_word(const SharedTiles& shared, std::size_t index,
                       const kernels::TileGrid& grid) {
    return shared.offset + index * static_cast<std::size_t>(grid.grid_cols);
}

}  // namespace

bool ExchangedAmax::covers(std::int64_t grid_row) const {
    return tiles != nullptr &&
           std::binary_search(tiles->grid_rows.begin(), tiles->grid_rows.end(), grid_row);
}

void ExchangedAmax::copy_row(const wire::ParameterMeta& meta, const kernels::TileGrid& grid,
                             std::int64_t grid_row, std::int64_t first_tile,
                             std::span<std::uint32_t> out) const {
    const std::vector<std::int64_t>& all = tiles->grid_rows;
    const auto index =
        static_cast<std::size_t>(std::lower_bound(all.begin(), all.end(), grid_row) - all.begin());
    const std::span<const std::uint32_t> from = words.subspan(
        first_word(*tiles, index, grid) + static_cast<std::size_t>(first_tile), out.size());
    const bool ragged_row = (grid_row + 1) * grid.tile_rows > meta.rows();
    for (std::size_t t = 0; t < out.size(); ++t) {
        const std::int64_t end = (first_tile + static_cast<std::int64_t>(t) + 1) * grid.tile_cols;
        const bool ragged = ragged_row || end > meta.cols();
        out[t] = ragged ? std::max(from[t], last_element_bits) : from[t];
    }
}

void AmaxExchange::exchange(std::size_t bucket, const bool& aborted,
                            const GatherTiles& gather_tiles,
                            const MaxOverTrainers& max_over_trainers) {
    bucket_ = bucket;
    words_.assign(plan_.exchange_words[bucket], 0);
    if (words_.empty()) return;
    for (const SharedTiles& shared : plan_.shared[bucket]) {
        for (const wire::PieceEntry& entry :
             plan_.manifest.buckets[bucket].pieces[trainer_].entries) {
            if (aborted || entry.parameter != shared.parameter) continue;
            gather_tiles(shared, entry.region(plan_.manifest.parameters[entry.parameter]));
        }
    }
    max_over_trainers(words_);
}

std::span<std::uint32_t> AmaxExchange::row(const SharedTiles& shared, std::size_t index,
                                           const kernels::TileGrid& grid) {
    return std::span(words_).subspan(first_word(shared, index, grid),
                                     static_cast<std::size_t>(grid.grid_cols));
}

std::uint32_t& AmaxExchange::last_element(const SharedTiles& shared,
                                          const kernels::TileGrid& grid) {
    return words_[first_word(shared, shared.grid_rows.size(), grid)];
}

ExchangedAmax AmaxExchange::of(std::uint32_t parameter, const kernels::TileGrid& grid) const {
    const std::vector<SharedTiles>& all = plan_.shared[bucket_];
    const auto shared = std::find_if(
        all.begin(), all.end(), [&](const SharedTiles& one) { return one.parameter == parameter; });
    if (shared == all.end()) return {};
    const std::uint32_t last =
        shared->last_element ? words_[first_word(*shared, shared->grid_rows.size(), grid)] : 0;
    return {&*shared, words_, last};
}

}  // namespace refit::trainer
