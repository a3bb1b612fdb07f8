// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// EntryQuantizer over weights that lie on the device: the codes of all entries of a piece, the amax
// and scales of their tiles, and the part of this trainer in tiles that it shares with others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/cuda/device_queue.hpp"
#include "trainer/amax_exchange.hpp"
#include "trainer/device_shard.hpp"
#include "trainer/entry_quantizer.hpp"
#include "trainer/refit_plan.hpp"

namespace refit::trainer {

/// A panel of an entry and where the words of its tiles begin.
struct DevicePanel {
    Panel panel;  ///< its spans stay empty
    std::size_t word = 0;
};

/// One codes entry of a piece, and where its amax and scales lie.
struct QuantizedEntry {
    wire::PieceEntry entry;
    core::Region region;
    kernels::TileGrid grid;           ///< of the whole parameter
    std::int64_t first_grid_row = 0;  ///< that the region touches
    Values values;
    std::vector<DevicePanel> panels;
    std::size_t word = 0;  ///< its panels have the words [word, word + words)
    std::size_t words = 0;

    /// The panel that begins at a tile boundary, where there is one.
    [[nodiscard]] const DevicePanel& last_panel() const { return panels.back(); }
};

class DeviceQuantizer {
 public:
    /// `scaling` is what tiles are quantized with. All references must outlive the quantizer.
    DeviceQuantizer(const RefitPlan& plan, const numerics::TileScaling& scaling,
                    const DeviceShard& weights, kernels::cuda::DeviceQueue& queue,
                    std::size_t trainer);

    /// See AmaxExchange::GatherTiles. Waits for the device.
    void gather(const SharedTiles& shared, const core::Region& own, AmaxExchange& exchange);
    /// Enqueues codes, amax and scales of all codes entries of a piece at `piece`, in their order.
    [[nodiscard]] std::vector<QuantizedEntry> run(std::size_t bucket, std::uint8_t* piece,
                                                  const AmaxExchange& exchange);

    [[nodiscard]] std::uint32_t* amax(std::size_t word) const {
        return reinterpret_cast<std::uint32_t*>(amax_->data()) + word;
    }
    [[nodiscard]] float* scales(std::size_t word) const {
        return reinterpret_cast<float*>(scales_->data()) + word;
    }

 private:
    [[nodiscard]] kernels::TileGrid grid_of(const wire::ParameterMeta& meta) const;
    [[nodiscard]] QuantizedEntry entry_of(const wire::PieceEntry& entry, std::size_t word) const;
    void quantize_rows(const QuantizedEntry& one, const ExchangedAmax& exchanged,
                       std::uint8_t* codes);
    /// Rows of whole tiles, or of tiles whose amax came from the exchange.
    void quantize_band(const QuantizedEntry& one, const DevicePanel& panel,
                       const core::RowRange& rows, const ExchangedAmax& exchanged, bool shared,
                       std::uint8_t* codes);

    const RefitPlan& plan_;
    const numerics::TileScaling& scaling_;
    const DeviceShard& weights_;
    kernels::cuda::DeviceQueue& queue_;
    std::size_t trainer_;
    std::unique_ptr<kernels::cuda::DeviceBlock> amax_;
    std::unique_ptr<kernels::cuda::DeviceBlock> scales_;
};

}  // namespace refit::trainer
