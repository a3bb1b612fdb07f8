// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/matrix_quantizer.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "core/aligned_buffer.hpp"
#include "core/error.hpp"

namespace refit::harness {
namespace {

constexpr std::uint32_t kInfBits = 0x7f800000;
/// Large enough that the time a band takes to start does not show, small enough for every machine.
constexpr std::int64_t kBandValues = std::int64_t{8} << 20;

/// One matrix on its way; holds the buffers that its bands share.
class Bands {
 public:
    Bands(const MatrixSource& source, const numerics::TileScaling& scaling,
          const kernels::Backend& backend)
        : source_(source),
          scaling_(scaling),
          backend_(backend),
          grid_(kernels::tile_grid(scaling, source.rows, source.cols)) {
        const std::int64_t fitting = std::max<std::int64_t>(1, kBandValues / source.cols);
        one_tile_row_ = grid_.grid_rows == 1;
        // A band holds whole tiles, unless there is one row of tiles only and it is too tall.
        const std::int64_t tiles = std::max<std::int64_t>(1, fitting / grid_.tile_rows);
        band_rows_ = one_tile_row_ ? fitting : tiles * grid_.tile_rows;
        band_rows_ = std::min(band_rows_, source.rows);
        values_ = core::AlignedBuffer(static_cast<std::size_t>(band_rows_ * source.cols) * 2);
        codes_ = core::AlignedBuffer(static_cast<std::size_t>(band_rows_ * source.cols));
        std::vector<std::uint16_t> last(static_cast<std::size_t>(source.cols));
        source.read(source.rows - 1, 1, last.data());
        last_bits_ = (std::uint32_t{last.back()} & 0x7fffU) << 16;
    }

    std::vector<float> run(const CodesDone& codes_done) {
        const auto tiles = static_cast<std::size_t>(grid_.grid_rows * grid_.grid_cols);
        std::vector<std::uint32_t> amax(tiles, 0U);
        std::vector<float> scales(tiles, 0.0F);
        if (one_tile_row_ && band_rows_ < source_.rows) {
            each_band([&](const kernels::Band& band) { backend_.tile_amax(scaling_, band, amax); });
            backend_.scales(scaling_, amax, scales);
            each_band([&](const kernels::Band& band) {
                backend_.encode(scaling_, band, amax, codes(), source_.cols, [](auto, auto) {});
                hand_over(band, codes_done);
            });
            return scales;
        }
        each_band([&](const kernels::Band& band) {
            const auto first =
                static_cast<std::size_t>(kernels::first_grid_row(grid_, band) * grid_.grid_cols);
            const auto count =
                static_cast<std::size_t>(kernels::touched_grid_rows(grid_, band) * grid_.grid_cols);
            backend_.quantize(scaling_, band, std::span(amax).subspan(first, count),
                              std::span(scales).subspan(first, count), codes(), source_.cols,
                              [](auto, auto) {});
            hand_over(band, codes_done);
        });
        return scales;
    }

 private:
    void each_band(const std::function<void(const kernels::Band&)>& work) {
        auto* values = reinterpret_cast<std::uint16_t*>(values_.data());
        for (std::int64_t row = 0; row < source_.rows; row += band_rows_) {
            const std::int64_t count = std::min(band_rows_, source_.rows - row);
            source_.read(row, count, values);
            if (backend_.max_abs_bits(values, count * source_.cols) >= kInfBits) {
                const std::span<const std::uint16_t> seen(
                    values, static_cast<std::size_t>(count * source_.cols));
                throw core::Error(core::ExitCode::verdict,
                                  source_.name + " holds " +
                                      describe_nonfinite(seen, source_.cols, row, grid_) +
                                      "; expected finite weights: mend the training checkpoint");
            }
            work({values, source_.cols, row, count, source_.rows, source_.cols, last_bits_});
        }
    }

    [[nodiscard]] std::uint8_t* codes() { return reinterpret_cast<std::uint8_t*>(codes_.data()); }

    void hand_over(const kernels::Band& band, const CodesDone& codes_done) {
        const auto bytes = static_cast<std::size_t>(band.row_count * source_.cols);
        codes_done(band.row_begin, band.row_count, {codes_.data(), bytes});
    }

    const MatrixSource& source_;
    const numerics::TileScaling& scaling_;
    const kernels::Backend& backend_;
    kernels::TileGrid grid_;
    bool one_tile_row_ = false;
    std::int64_t band_rows_ = 0;
    std::uint32_t last_bits_ = 0;
    core::AlignedBuffer values_;
    core::AlignedBuffer codes_;
};

}  // namespace

const kernels::Backend& viable_backend(const std::string& name) {
    const kernels::Backend* backend = kernels::find_backend(name);
    if (backend != nullptr) return *backend;
    for (const kernels::BackendRow& row : kernels::backend_rows()) {
        if (row.name == name) {
            throw core::NotViable("backend " + row.name + " is not viable: " + row.reason);
        }
    }
    throw core::UsageError("unknown backend '" + name + "'; 'refitbench list backends' prints all");
}

std::string describe_nonfinite(std::span<const std::uint16_t> values, std::int64_t cols,
                               std::int64_t first_row, const kernels::TileGrid& grid) {
    std::int64_t nan_count = 0;
    std::int64_t inf_count = 0;
    std::int64_t first = -1;
    for (std::size_t i = 0; i < values.size(); ++i) {
        if ((values[i] & 0x7f80) != 0x7f80) continue;
        if (first < 0) first = static_cast<std::int64_t>(i);
        ((values[i] & 0x7f) != 0 ? nan_count : inf_count) += 1;
    }
    const std::int64_t row = first_row + first / cols;
    const std::int64_t col = first % cols;
    return fmt::format("{} NaN and {} Inf, the first at [{}, {}], tile [{}, {}] of {} x {}",
                       nan_count, inf_count, row, col, row / grid.tile_rows, col / grid.tile_cols,
                       grid.tile_rows, grid.tile_cols);
}

std::vector<float> quantize_matrix(const MatrixSource& source, const numerics::TileScaling& scaling,
                                   const kernels::Backend& backend, const CodesDone& codes_done) {
    if (source.rows == 0 || source.cols == 0) return {};
    return Bands(source, scaling, backend).run(codes_done);
}

}  // namespace refit::harness
