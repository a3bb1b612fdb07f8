// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/device_quantizer.hpp"

#include <algorithm>
#include <utility>

#include "kernels/numerics/scale.hpp"

namespace refit::trainer {

using kernels::cuda::DeviceQueue;

DeviceQuantizer::DeviceQuantizer(const RefitPlan& plan, const numerics::TileScaling& scaling,
                                 const DeviceShard& weights, DeviceQueue& queue,
                                 std::size_t trainer)
    : plan_(plan), scaling_(scaling), weights_(weights), queue_(queue), trainer_(trainer) {
    std::int64_t most = 1;
    for (const wire::BucketPlan& bucket : plan.manifest.buckets) {
        std::int64_t words = 0;
        for (const wire::PieceEntry& entry : bucket.pieces[trainer_].entries) {
            const wire::ParameterMeta& meta = plan.manifest.parameters[entry.parameter];
            if (meta.kind != wire::ParameterKind::codes) continue;
            const kernels::TileGrid grid = grid_of(meta);
            const core::Region region = entry.region(meta);
            words += (region.rows / grid.tile_rows + 2) * (region.cols / grid.tile_cols + 2);
        }
        most = std::max(most, words);
    }
    amax_ = queue_.allocate(static_cast<std::size_t>(most) * sizeof(std::uint32_t));
    scales_ = queue_.allocate(static_cast<std::size_t>(most) * sizeof(float));
}

kernels::TileGrid DeviceQuantizer::grid_of(const wire::ParameterMeta& meta) const {
    return kernels::tile_grid(scaling_, meta.rows(), meta.cols());
}

void DeviceQuantizer::gather(const SharedTiles& shared, const core::Region& own,
                             AmaxExchange& exchange) {
    const wire::ParameterMeta& meta = plan_.manifest.parameters[shared.parameter];
    const std::size_t tensor = plan_.productions[shared.parameter].tensor;
    const kernels::TileGrid grid = grid_of(meta);
    const std::vector<Panel> panels = Panel::of(own, grid);
    /// Maxima of one grid row in one panel, and where they lie.
    struct Found {
        std::size_t row = 0;  ///< index into shared.grid_rows
        const Panel* panel = nullptr;
        std::size_t word = 0;
    };
    std::vector<Found> found;
    std::size_t next = 0;
    const std::vector<std::int64_t>& all = shared.grid_rows;
    for (std::size_t i = 0; i < all.size();) {
        // Neighbouring grid rows are one band.
        std::size_t last = i + 1;
        while (last < all.size() && all[last] == all[last - 1] + 1) ++last;
        const core::RowRange rows{
            std::max(own.row, all[i] * grid.tile_rows),
            std::min(own.row + own.rows, (all[last - 1] + 1) * grid.tile_rows)};
        if (!rows.empty()) {
            const Values values =
                weights_.values(tensor, {rows.begin, own.col, rows.count(), own.cols});
            const std::int64_t first = rows.begin / grid.tile_rows;
            const std::int64_t count = (rows.end - 1) / grid.tile_rows - first + 1;
            for (const Panel& panel : panels) {
                kernels::cuda::DeviceBand band;
                band.scaling = scaling_;
                band.band = panel.band(values, rows, own.col, meta.rows(), 0);
                band.amax_bits = amax(next);
                queue_.tile_amax(band);
                for (std::int64_t g = 0; g < count; ++g) {
                    found.push_back(
                        {i + static_cast<std::size_t>(first + g - all[i]), &panel, next});
                    next += static_cast<std::size_t>(panel.tiles);
                }
            }
        }
        i = last;
    }
    std::vector<std::uint32_t> words(next);
    queue_.download(words.data(), amax(0), words.size() * sizeof words.front(),
                    DeviceQueue::Purpose::control);
    for (const Found& one : found) {
        std::uint32_t* const to =
            exchange.row(shared, one.row, grid).data() + one.panel->first_tile;
        for (std::int64_t t = 0; t < one.panel->tiles; ++t)
            to[t] = std::max(to[t], words[one.word + static_cast<std::size_t>(t)]);
    }
    const bool owns_last = own.row + own.rows == meta.rows() && own.col + own.cols == meta.cols();
    if (!shared.last_element || !owns_last) return;
    std::uint16_t last = 0;
    queue_.download(&last, weights_.values(tensor, {meta.rows() - 1, meta.cols() - 1, 1, 1}).data,
                    sizeof last, DeviceQueue::Purpose::control);
    exchange.last_element(shared, grid) = numerics::amax_part(scaling_, numerics::abs_bits(last));
}

QuantizedEntry DeviceQuantizer::entry_of(const wire::PieceEntry& entry, std::size_t word) const {
    const wire::ParameterMeta& meta = plan_.manifest.parameters[entry.parameter];
    QuantizedEntry one;
    one.entry = entry;
    one.region = entry.region(meta);
    one.grid = grid_of(meta);
    one.first_grid_row = one.region.row / one.grid.tile_rows;
    one.values = weights_.values(plan_.productions[entry.parameter].tensor, one.region);
    one.word = word;
    const std::int64_t grid_rows =
        core::ceil_div(one.region.row + one.region.rows, one.grid.tile_rows) - one.first_grid_row;
    for (Panel& panel : Panel::of(one.region, one.grid)) {
        one.panels.push_back({panel, word + one.words});
        one.words += static_cast<std::size_t>(grid_rows * panel.tiles);
    }
    return one;
}

std::vector<QuantizedEntry> DeviceQuantizer::run(std::size_t bucket, std::uint8_t* piece,
                                                 const AmaxExchange& exchange) {
    std::vector<QuantizedEntry> all;
    std::size_t word = 0;
    for (const wire::PieceEntry& entry : plan_.manifest.buckets[bucket].pieces[trainer_].entries) {
        if (plan_.manifest.parameters[entry.parameter].kind != wire::ParameterKind::codes) continue;
        all.push_back(entry_of(entry, word));
        word += all.back().words;
        quantize_rows(all.back(), exchange.of(entry.parameter, all.back().grid),
                      piece + entry.offset);
    }
    return all;
}

void DeviceQuantizer::quantize_rows(const QuantizedEntry& one, const ExchangedAmax& exchanged,
                                    std::uint8_t* codes) {
    const auto is_shared = [&](std::int64_t row) {
        return exchanged.covers(row / one.grid.tile_rows);
    };
    const std::int64_t last = one.region.row + one.region.rows;
    for (std::int64_t row = one.region.row; row < last;) {
        const bool shared = is_shared(row);
        std::int64_t end = row;
        while (end < last && is_shared(end) == shared)
            end = std::min(last, (end / one.grid.tile_rows + 1) * one.grid.tile_rows);
        // A rectangle that begins inside a tile has two panels, and all its grid rows exchanged.
        for (const DevicePanel& panel : one.panels)
            quantize_band(one, panel, {row, end}, exchanged, shared, codes);
        row = end;
    }
}

void DeviceQuantizer::quantize_band(const QuantizedEntry& one, const DevicePanel& panel,
                                    const core::RowRange& rows, const ExchangedAmax& exchanged,
                                    bool shared, std::uint8_t* codes) {
    const wire::ParameterMeta& meta = plan_.manifest.parameters[one.entry.parameter];
    const core::Region& region = one.region;
    const std::int64_t first = rows.begin / one.grid.tile_rows;
    const std::size_t word =
        panel.word + static_cast<std::size_t>((first - one.first_grid_row) * panel.panel.tiles);
    const Values from{one.values.data + (rows.begin - region.row) * one.values.stride,
                      one.values.stride};
    kernels::cuda::DeviceBand band;
    band.scaling = scaling_;
    band.band = panel.panel.band(from, rows, region.col, meta.rows(), exchanged.last_element_bits);
    band.codes =
        codes + (rows.begin - region.row) * region.cols + panel.panel.cols.begin - region.col;
    band.code_stride = region.cols;
    band.amax_bits = amax(word);
    band.scale_inv = scales(word);
    if (!shared) {
        queue_.quantize(band);
        return;
    }
    const std::int64_t grid_rows = (rows.end - 1) / one.grid.tile_rows - first + 1;
    const auto tiles = static_cast<std::size_t>(panel.panel.tiles);
    std::vector<std::uint32_t> words(static_cast<std::size_t>(grid_rows) * tiles);
    for (std::int64_t g = 0; g < grid_rows; ++g) {
        exchanged.copy_row(meta, one.grid, first + g, panel.panel.first_tile,
                           std::span(words).subspan(static_cast<std::size_t>(g) * tiles, tiles));
    }
    queue_.upload(band.amax_bits, words.data(), words.size() * sizeof words.front(),
                  DeviceQueue::Purpose::control);
    queue_.encode(band);
}

}  // namespace refit::trainer
