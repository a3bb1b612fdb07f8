// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/refit_publisher.hpp"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>
#include <limits>
#include <string>

#include "core/error.hpp"
#include "kernels/numerics/bfloat16.hpp"
#include "kernels/numerics/float8.hpp"
#include "kernels/numerics/scale.hpp"
#include "trainer/nonfinite_finding.hpp"
#include "weights/synthetic_weights.hpp"

namespace refit::trainer {
namespace {

constexpr std::uint32_t kInfBits = 0x7f800000;
constexpr std::int64_t kStripeRows = 128;
/// Raw tensors are copied, scanned and hashed in chunks that stay in the second-level cache.
constexpr std::int64_t kRawChunkBytes = std::int64_t{256} << 10;

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

bool is_nonfinite(std::uint16_t bits) {
    return (bits & 0x7f80) == 0x7f80;
}

/// What the `sanitize` policy makes of a value: NaN becomes 0, Inf becomes +-448 (as NeMo-RL #2037
/// does).
std::uint16_t sanitized(std::uint16_t bits) {
    if (!is_nonfinite(bits)) return bits;
    if ((bits & 0x7f) != 0) return 0;
    constexpr std::uint16_t k448 =
        0x43e0;  // 448 = 1.75 * 2^8: exponent field 135, mantissa 0b1100000
    return static_cast<std::uint16_t>(k448 | (bits & 0x8000));
}

}  // namespace

/// Digests of the cells of one entry, fed row range by row range.
struct RefitPublisher::EntryDigests {
    struct OneCell {
        wire::Cell cell;
        wire::DigestStream stream;
    };
    std::vector<OneCell> cells;
    std::int64_t element_bytes;
    std::int64_t row_bytes;
    std::int64_t first_col;

    EntryDigests(const wire::ParameterMeta& meta, const core::Region& region)
        : element_bytes(core::size_bytes(meta.dtype)),
          row_bytes(region.cols * element_bytes),
          first_col(region.col) {
        for (const wire::Cell& cell : wire::cells_in_region(meta, region))
            cells.push_back({cell, wire::DigestStream()});
    }

    /// `data` is the first byte of row `rows.begin`; rows follow each other without gaps.
    void update(const core::RowRange& rows, const std::byte* data) {
        for (OneCell& one : cells) {
            const core::Region& region = one.cell.region;
            const std::int64_t begin = std::max(rows.begin, region.row);
            const std::int64_t end = std::min(rows.end, region.row + region.rows);
            if (begin >= end) continue;
            const std::byte* first =
                data + (begin - rows.begin) * row_bytes + (region.col - first_col) * element_bytes;
            const auto width = static_cast<std::size_t>(region.cols * element_bytes);
            if (region.cols * element_bytes == row_bytes) {
                one.stream.update(first, static_cast<std::size_t>((end - begin) * row_bytes));
            } else {
                for (std::int64_t r = begin; r < end; ++r, first += row_bytes)
                    one.stream.update(first, width);
            }
        }
    }

    void append_to(std::uint32_t parameter, std::vector<wire::DigestRecord>& records) const {
        for (const OneCell& one : cells)
            records.push_back({parameter, one.cell.index, one.stream.value()});
    }
};

/// Columns of a rectangle that begin at a tile boundary, or stay within one tile: to a backend a
/// matrix of their own, whose tiles are the global ones.
struct RefitPublisher::Panel {
    core::RowRange cols;          ///< global
    std::int64_t first_tile = 0;  ///< global grid column
    std::int64_t tiles = 0;
    std::span<std::uint32_t> amax;  ///< [touched grid rows, tiles]
    std::span<float> scales;        ///< the same

    /// One panel, or two where the rectangle begins inside a tile and leaves it.
    static std::vector<Panel> of(const core::Region& region, const kernels::TileGrid& grid) {
        std::vector<Panel> panels;
        const std::int64_t end = region.col + region.cols;
        const std::int64_t boundary =
            std::min(end, core::ceil_div(region.col, grid.tile_cols) * grid.tile_cols);
        auto add = [&](std::int64_t from, std::int64_t to) {
            if (from >= to) return;
            const std::int64_t first = from / grid.tile_cols;
            panels.push_back(
                {{from, to}, first, core::ceil_div(to, grid.tile_cols) - first, {}, {}});
        };
        add(region.col, boundary);
        add(boundary, end);
        return panels;
    }

    /// The panel's part of a band whose first element is `values` at (rows.begin, first_col).
    [[nodiscard]] kernels::Band band(const Values& values, const core::RowRange& rows,
                                     std::int64_t first_col, std::int64_t matrix_rows,
                                     std::uint32_t last_element_bits) const {
        return {values.data + cols.begin - first_col,
                values.stride,
                rows.begin,
                rows.count(),
                matrix_rows,
                cols.count(),
                last_element_bits};
    }
};

RefitPublisher::RefitPublisher(const std::vector<model::TensorSpec>& tensors, const RefitPlan& plan,
                               const Payload& payload, const TrainerFaults& faults,
                               const kernels::Backend& backend, const WeightRows& weights,
                               int trainer, const std::vector<float>* cache_scales)
    : tensors_(tensors),
      plan_(plan),
      payload_(payload),
      faults_(faults),
      backend_(backend),
      weights_(weights),
      trainer_(static_cast<std::size_t>(trainer)),
      cache_scales_(cache_scales) {
    if (payload.recipe != nullptr) scaling_ = payload.recipe->scaling;
    // The policy wants every non-finite tile to show, whatever the recipe makes of it.
    if (payload.nonfinite == Nonfinite::propagate)
        scaling_.nonfinite_input = numerics::NonfiniteInput::propagate;
}

void RefitPublisher::begin(std::uint64_t version) {
    version_ = version;
    aborted_ = false;
    findings_.clear();
    kept_scales_.clear();
}

void RefitPublisher::gather(std::size_t bucket, const MaxOverTrainers& max_over_trainers) {
    exchange_.assign(plan_.exchange_words[bucket], 0);
    if (exchange_.empty()) return;
    for (const SharedTiles& shared : plan_.shared[bucket]) {
        if (aborted_) break;
        for (const wire::PieceEntry& entry :
             plan_.manifest.buckets[bucket].pieces[trainer_].entries) {
            if (entry.parameter != shared.parameter) continue;
            gather_tiles(shared, entry.region(plan_.manifest.parameters[entry.parameter]));
        }
    }
    max_over_trainers(exchange_);
}

void RefitPublisher::gather_tiles(const SharedTiles& shared, const core::Region& own) {
    const wire::ParameterMeta& meta = plan_.manifest.parameters[shared.parameter];
    const std::size_t tensor = plan_.productions[shared.parameter].tensor;
    const kernels::TileGrid grid = kernels::tile_grid(scaling_, meta.rows(), meta.cols());
    const std::vector<Panel> panels = Panel::of(own, grid);
    const std::vector<std::int64_t>& all = shared.grid_rows;
    for (std::size_t i = 0; i < all.size();) {
        // Neighbouring grid rows are one band, as far as its maxima stay small.
        std::size_t last = i + 1;
        while (last < all.size() && all[last] == all[last - 1] + 1 &&
               (all[last] - all[i]) * grid.tile_rows < kStripeRows) {
            ++last;
        }
        const core::RowRange rows{
            std::max(own.row, all[i] * grid.tile_rows),
            std::min(own.row + own.rows, (all[last - 1] + 1) * grid.tile_rows)};
        if (!rows.empty()) {
            const Values values =
                values_to_send(tensor, {rows.begin, own.col, rows.count(), own.cols});
            const std::int64_t first = rows.begin / grid.tile_rows;
            const std::int64_t count = (rows.end - 1) / grid.tile_rows - first + 1;
            for (const Panel& panel : panels) {
                amax_.assign(static_cast<std::size_t>(count * panel.tiles), 0);
                backend_.tile_amax(scaling_, panel.band(values, rows, own.col, meta.rows(), 0),
                                   amax_);
                for (std::int64_t g = 0; g < count; ++g) {
                    const std::size_t row = i + static_cast<std::size_t>(first + g - all[i]);
                    std::uint32_t* to = exchange_.data() + shared.offset +
                                        row * static_cast<std::size_t>(grid.grid_cols) +
                                        static_cast<std::size_t>(panel.first_tile);
                    const std::uint32_t* from = amax_.data() + g * panel.tiles;
                    for (std::int64_t t = 0; t < panel.tiles; ++t) to[t] = std::max(to[t], from[t]);
                }
            }
        }
        i = last;
    }
    const bool owns_last = own.row + own.rows == meta.rows() && own.col + own.cols == meta.cols();
    if (shared.last_element && owns_last) {
        const Values last = values_to_send(tensor, {meta.rows() - 1, meta.cols() - 1, 1, 1});
        exchange_[shared.offset + all.size() * static_cast<std::size_t>(grid.grid_cols)] =
            numerics::amax_part(scaling_, (std::uint32_t{*last.data} & 0x7fffU) << 16);
    }
}

Values RefitPublisher::values_to_send(std::size_t tensor, const core::Region& region) {
    const Values values = weights_.values(tensor, region);
    if (payload_.nonfinite != Nonfinite::sanitize || !has_nonfinite(values, region)) return values;
    sanitized_.resize(static_cast<std::size_t>(region.rows * region.cols));
    for (std::int64_t r = 0; r < region.rows; ++r) {
        const std::uint16_t* from = values.data + r * values.stride;
        std::transform(from, from + region.cols, sanitized_.begin() + r * region.cols, sanitized);
    }
    return {sanitized_.data(), region.cols};
}

bool RefitPublisher::has_nonfinite(const Values& values, const core::Region& region) const {
    if (values.stride == region.cols)
        return backend_.max_abs_bits(values.data, region.rows * region.cols) >= kInfBits;
    for (std::int64_t r = 0; r < region.rows; ++r) {
        if (backend_.max_abs_bits(values.data + r * values.stride, region.cols) >= kInfBits)
            return true;
    }
    return false;
}

const SharedTiles* RefitPublisher::shared_tiles(std::size_t bucket, std::uint32_t parameter) const {
    for (const SharedTiles& shared : plan_.shared[bucket]) {
        if (shared.parameter == parameter) return &shared;
    }
    return nullptr;
}

std::uint32_t RefitPublisher::last_element_bits(const SharedTiles* shared) const {
    if (shared == nullptr || !shared->last_element) return 0;
    const wire::ParameterMeta& meta = plan_.manifest.parameters[shared->parameter];
    const kernels::TileGrid grid = kernels::tile_grid(scaling_, meta.rows(), meta.cols());
    return exchange_[shared->offset +
                     shared->grid_rows.size() * static_cast<std::size_t>(grid.grid_cols)];
}

void RefitPublisher::report_nonfinite(const wire::ParameterMeta& meta, const Values& values,
                                      const core::Region& region) {
    std::int64_t nan_count = 0;
    std::int64_t inf_count = 0;
    std::int64_t row = -1;
    std::int64_t col = -1;
    for (std::int64_t r = 0; r < region.rows; ++r) {
        for (std::int64_t c = 0; c < region.cols; ++c) {
            const std::uint16_t bits = values.data[r * values.stride + c];
            if (!is_nonfinite(bits)) continue;
            if (row < 0) {
                row = region.row + r;
                col = region.col + c;
            }
            ((bits & 0x7f) != 0 ? nan_count : inf_count) += 1;
        }
    }
    if (row < 0) return;
    kernels::TileGrid grid;
    const bool codes = payload_.recipe != nullptr && meta.kind == wire::ParameterKind::codes;
    if (codes) grid = kernels::tile_grid(scaling_, meta.rows(), meta.cols());
    const std::uint16_t first = values.data[(row - region.row) * values.stride + col - region.col];
    findings_.push_back(
        nonfinite_finding(meta, {nan_count, inf_count, row, col, first}, codes ? &grid : nullptr));
    aborted_ = true;
}

void RefitPublisher::fill_codes(std::size_t bucket, const wire::PieceEntry& entry,
                                std::span<std::byte> piece,
                                const std::function<void()>& on_progress, PublishTimes& times) {
    const auto start = Clock::now();
    const double staged_before = backend_.staging_seconds();
    double hashing = 0.0;
    const wire::ParameterMeta& meta = plan_.manifest.parameters[entry.parameter];
    const Production& production = plan_.productions[entry.parameter];
    const core::Region region = entry.region(meta);
    const kernels::TileGrid grid = kernels::tile_grid(scaling_, meta.rows(), meta.cols());
    const Values values = values_to_send(production.tensor, region);
    auto* codes = reinterpret_cast<std::uint8_t*>(piece.data() + entry.offset);
    EntryDigests digests(meta, region);

    const std::int64_t first_grid = entry.rows.begin / grid.tile_rows;
    const std::int64_t grid_rows = (entry.rows.end - 1) / grid.tile_rows - first_grid + 1;
    std::vector<Panel> panels = Panel::of(region, grid);
    std::int64_t words = 0;
    for (const Panel& panel : panels) words += grid_rows * panel.tiles;
    amax_.assign(static_cast<std::size_t>(words), 0);
    scales_.resize(amax_.size());
    std::size_t next_word = 0;
    for (Panel& panel : panels) {
        const auto own = static_cast<std::size_t>(grid_rows * panel.tiles);
        panel.amax = std::span(amax_).subspan(next_word, own);
        panel.scales = std::span(scales_).subspan(next_word, own);
        next_word += own;
    }

    const SharedTiles* shared = shared_tiles(bucket, entry.parameter);
    const std::uint32_t last = last_element_bits(shared);
    const auto is_shared = [&](std::int64_t row) {
        return shared != nullptr &&
               std::binary_search(shared->grid_rows.begin(), shared->grid_rows.end(),
                                  row / grid.tile_rows);
    };
    const auto band_of = [&](const Panel& panel, std::int64_t begin, std::int64_t end) {
        const Values from{values.data + (begin - region.row) * values.stride, values.stride};
        return panel.band(from, {begin, end}, region.col, meta.rows(), last);
    };
    const auto codes_of = [&](const Panel& panel, std::int64_t row) {
        return codes + (row - region.row) * region.cols + panel.cols.begin - region.col;
    };
    const kernels::StripeDone stripe_done = [&](std::int64_t begin, std::int64_t end) {
        const auto hash_start = Clock::now();
        digests.update({begin, end}, reinterpret_cast<const std::byte*>(
                                         codes + (begin - region.row) * region.cols));
        on_progress();
        hashing += seconds_since(hash_start);
    };
    // What other trainers hold parts of: the amax came from the exchange.
    const auto take_exchanged = [&](const Panel& panel, std::int64_t grid_row,
                                    std::span<std::uint32_t> amax) {
        const auto found =
            std::lower_bound(shared->grid_rows.begin(), shared->grid_rows.end(), grid_row);
        const auto first = static_cast<std::size_t>(found - shared->grid_rows.begin());
        const std::int64_t rows = static_cast<std::int64_t>(amax.size()) / panel.tiles;
        for (std::int64_t g = 0; g < rows; ++g) {
            const std::uint32_t* from =
                exchange_.data() + shared->offset +
                (first + static_cast<std::size_t>(g)) * static_cast<std::size_t>(grid.grid_cols) +
                static_cast<std::size_t>(panel.first_tile);
            std::uint32_t* to = amax.data() + g * panel.tiles;
            const bool ragged_row = (grid_row + g + 1) * grid.tile_rows > meta.rows();
            for (std::int64_t t = 0; t < panel.tiles; ++t) {
                const bool ragged =
                    ragged_row || (panel.first_tile + t + 1) * grid.tile_cols > meta.cols();
                to[t] = ragged ? std::max(from[t], last) : from[t];
            }
        }
    };

    for (std::int64_t row = entry.rows.begin; row < entry.rows.end;) {
        const bool exchanged = is_shared(row);
        std::int64_t end = row;
        while (end < entry.rows.end && is_shared(end) == exchanged)
            end = std::min(entry.rows.end, (end / grid.tile_rows + 1) * grid.tile_rows);
        const std::int64_t grid_row = row / grid.tile_rows;
        const std::int64_t run_rows = (end - 1) / grid.tile_rows - grid_row + 1;
        const auto run_of = [&](const Panel& panel, auto span, std::int64_t from) {
            return span.subspan(
                static_cast<std::size_t>((from / grid.tile_rows - first_grid) * panel.tiles),
                static_cast<std::size_t>((grid_row + run_rows - from / grid.tile_rows) *
                                         panel.tiles));
        };
        if (!exchanged) {
            // A rectangle that begins inside a tile has all its grid rows exchanged.
            const Panel& panel = panels.front();
            backend_.quantize(scaling_, band_of(panel, row, end), run_of(panel, panel.amax, row),
                              run_of(panel, panel.scales, row), codes_of(panel, row), region.cols,
                              stripe_done);
            row = end;
            continue;
        }
        for (const Panel& panel : panels) {
            take_exchanged(panel, grid_row, run_of(panel, panel.amax, row));
            backend_.scales(scaling_, run_of(panel, panel.amax, row),
                            run_of(panel, panel.scales, row));
        }
        while (row < end) {
            // Both panels of a stripe before the next one, so that it is hashed in cache.
            const std::int64_t stripe_end = std::min(end, (row / kStripeRows + 1) * kStripeRows);
            for (const Panel& panel : panels) {
                backend_.encode(scaling_, band_of(panel, row, stripe_end),
                                run_of(panel, panel.amax, row), codes_of(panel, row), region.cols,
                                [](std::int64_t, std::int64_t) {});
            }
            stripe_done(row, stripe_end);
            row = stripe_end;
        }
    }

    bool nonfinite = std::any_of(amax_.begin(), amax_.end(),
                                 [](std::uint32_t bits) { return bits >= kInfBits; });
    if (payload_.nonfinite == Nonfinite::reject && numerics::hides_nonfinite(scaling_))
        nonfinite = nonfinite || has_nonfinite(values, region);
    if (nonfinite && payload_.nonfinite == Nonfinite::reject) {
        report_nonfinite(meta, values, region);
        // A tile shared with another trainer may be non-finite through that trainer's part alone:
        // it reports it.
        aborted_ = true;
    } else if (nonfinite && payload_.nonfinite == Nonfinite::propagate) {
        for (std::size_t i = 0; i < amax_.size(); ++i) {
            if (amax_[i] >= kInfBits) scales_[i] = std::numeric_limits<float>::quiet_NaN();
        }
    }
    digests.append_to(entry.parameter, digests_);

    // The first scale of the tensor is that of its first element, wherever shards begin.
    const auto scale_parameter = static_cast<std::uint32_t>(production.scale);
    if (region.row == 0 && region.col == 0 && !faults_.scale_doubled.empty() &&
        (weights::glob_match(faults_.scale_doubled, meta.name) ||
         (production.scale >= 0 &&
          weights::glob_match(faults_.scale_doubled,
                              plan_.manifest.parameters[scale_parameter].name)))) {
        panels.front().scales[0] *= 2.0F;
    }
    bool sent_here = false;
    for (const wire::PieceEntry& scale : plan_.manifest.buckets[bucket].pieces[trainer_].entries) {
        if (scale.parameter != scale_parameter) continue;
        write_scales(scale, first_grid, panels.back(), piece);
        sent_here = true;
    }
    if (!sent_here && production.scale >= 0) {
        // A framing that cuts between a weight and its scale: kept for the bucket that has it.
        const wire::ParameterMeta& scale = plan_.manifest.parameters[scale_parameter];
        std::vector<std::byte>& kept = kept_scales_[scale_parameter];
        kept.resize(static_cast<std::size_t>(scale.rows() * scale.row_bytes()));
        const wire::PieceEntry whole{scale_parameter, {0, scale.rows()}, 0, kept.size(), {}};
        write_scales(whole, first_grid, panels.back(), kept);
    }
    const double staged = backend_.staging_seconds() - staged_before;
    times.quantize_s += seconds_since(start) - hashing - staged;
    times.pack_s += hashing;
    times.staging_s += staged;
}

/// The scale entry of a piece holds the tiles that begin in the trainer's rectangle: they are those
/// of the panel that begins at a tile boundary.
void RefitPublisher::write_scales(const wire::PieceEntry& entry, std::int64_t first_grid_row,
                                  const Panel& panel, std::span<std::byte> piece) const {
    const wire::ParameterMeta& meta = plan_.manifest.parameters[entry.parameter];
    std::byte* out = piece.data() + entry.offset;
    // Only a planted fault announces a type that the recipe does not store; the contract refuses it
    // before anything moves.
    const bool known = meta.dtype == core::DType::f32 || meta.dtype == core::DType::bf16 ||
                       scaling_.scale_storage == numerics::ScaleStorage::e8m0;
    if (!known) {
        std::memset(out, 0, entry.bytes);
        return;
    }
    const core::Region region = entry.region(meta);
    for (std::int64_t r = 0; r < region.rows; ++r) {
        const float* from = panel.scales.data() + (region.row + r - first_grid_row) * panel.tiles +
                            region.col - panel.first_tile;
        for (std::int64_t c = 0; c < region.cols; ++c) {
            if (meta.dtype == core::DType::f32) {
                std::memcpy(out, from + c, sizeof(float));
                out += sizeof(float);
            } else if (meta.dtype == core::DType::bf16) {
                const std::uint16_t bits = numerics::f32_to_bf16(from[c]);
                std::memcpy(out, &bits, sizeof bits);
                out += sizeof bits;
            } else {
                *out++ = static_cast<std::byte>(numerics::f32_to_e8m0(from[c]));
            }
        }
    }
}

void RefitPublisher::fill_raw(const wire::PieceEntry& entry, std::span<std::byte> piece,
                              const std::function<void()>& on_progress, PublishTimes& times) {
    const auto start = Clock::now();
    const double staged_before = backend_.staging_seconds();
    const wire::ParameterMeta& meta = plan_.manifest.parameters[entry.parameter];
    const Production& production = plan_.productions[entry.parameter];
    const core::Region region = entry.region(meta);
    std::byte* const out = piece.data() + entry.offset;
    // Framings without alignment put BF16 elements at odd bytes, where they are not written in
    // place.
    const bool aligned = entry.offset % alignof(std::uint16_t) == 0;
    EntryDigests digests(meta, region);
    const std::int64_t step =
        std::clamp<std::int64_t>(kRawChunkBytes / std::max<std::int64_t>(1, 2 * region.cols), 1,
                                 std::max(kStripeRows, kRawChunkBytes));
    bool nonfinite = false;
    for (std::int64_t r = entry.rows.begin; r < entry.rows.end; r += step) {
        const std::int64_t end = std::min(entry.rows.end, r + step);
        const std::int64_t count = (end - r) * region.cols;
        const Values values =
            weights_.values(production.tensor, {r, region.col, end - r, region.cols});
        std::byte* const place = out + (r - entry.rows.begin) * region.cols *
                                           static_cast<std::int64_t>(sizeof(std::uint16_t));
        if (!aligned) unaligned_.resize(static_cast<std::size_t>(count));
        std::uint16_t* const to =
            aligned ? reinterpret_cast<std::uint16_t*>(place) : unaligned_.data();
        if (values.stride == region.cols) {
            std::memcpy(to, values.data, static_cast<std::size_t>(count) * sizeof(std::uint16_t));
        } else {
            for (std::int64_t i = 0; i < end - r; ++i) {
                std::memcpy(to + i * region.cols, values.data + i * values.stride,
                            static_cast<std::size_t>(region.cols) * sizeof(std::uint16_t));
            }
        }
        if (payload_.nonfinite != Nonfinite::recipe &&
            backend_.max_abs_bits(to, count) >= kInfBits) {
            nonfinite = true;
            if (payload_.nonfinite == Nonfinite::sanitize)
                std::transform(to, to + count, to, sanitized);
        }
        if (!aligned) std::memcpy(place, to, static_cast<std::size_t>(count) * sizeof *to);
        digests.update({r, end}, reinterpret_cast<const std::byte*>(to));
        on_progress();
    }
    if (nonfinite && payload_.nonfinite == Nonfinite::reject)
        report_nonfinite(meta, weights_.values(production.tensor, region), region);
    digests.append_to(entry.parameter, digests_);
    // The look for NaN and Inf goes through the backend too.
    const double staged = backend_.staging_seconds() - staged_before;
    times.pack_s += seconds_since(start) - staged;
    times.staging_s += staged;
}

void RefitPublisher::write_cache_scale(const wire::PieceEntry& entry, std::span<std::byte> piece) {
    const wire::ParameterMeta& meta = plan_.manifest.parameters[entry.parameter];
    const auto index = static_cast<std::size_t>(plan_.productions[entry.parameter].calibration);
    if (cache_scales_ == nullptr || index >= cache_scales_->size()) {
        throw core::ShapeError("the trainer was asked for " + meta.name +
                               " and has no value of its calibration; calibrate before the refit");
    }
    float value = (*cache_scales_)[index];
    const auto struck = [&](const std::string& glob) {
        return !glob.empty() && weights::glob_match(glob, meta.name);
    };
    if (struck(faults_.stale_cache_scale))
        value = first_cache_scales_.try_emplace(entry.parameter, value).first->second;
    if (struck(faults_.scale_doubled)) value *= 2.0F;
    if (struck(faults_.cache_scale_value)) value = faults_.cache_scale_replacement;
    std::byte* const out = piece.data() + entry.offset;
    if (meta.dtype == core::DType::f32) {
        std::memcpy(out, &value, sizeof value);
    } else if (meta.dtype == core::DType::bf16) {
        const std::uint16_t bits = numerics::f32_to_bf16(value);
        std::memcpy(out, &bits, sizeof bits);
    } else {
        // A planted type, which the contract refuses before anything moves.
        std::memset(out, 0, entry.bytes);
    }
}

void RefitPublisher::finish_scale(const wire::PieceEntry& entry, std::span<std::byte> piece) {
    const wire::ParameterMeta& meta = plan_.manifest.parameters[entry.parameter];
    EntryDigests digests(meta, entry.region(meta));
    digests.update(entry.rows, piece.data() + entry.offset);
    digests.append_to(entry.parameter, digests_);
}

void RefitPublisher::fill(std::size_t bucket, std::span<std::byte> piece,
                          const std::function<void()>& on_progress, PublishTimes& times) {
    const wire::PiecePlan& plan = plan_.manifest.buckets[bucket].pieces[trainer_];
    digests_.clear();
    // Codes first: they also write the scales, which stand behind them in the same piece.
    for (const wire::PieceEntry& entry : plan.entries) {
        if (aborted_) break;
        const Production& production = plan_.productions[entry.parameter];
        const wire::ParameterKind kind = plan_.manifest.parameters[entry.parameter].kind;
        if (kind == wire::ParameterKind::codes) {
            fill_codes(bucket, entry, piece, on_progress, times);
        } else if (kind == wire::ParameterKind::raw && !production.quantized) {
            fill_raw(entry, piece, on_progress, times);
        } else {
            const auto start = Clock::now();
            const auto kept = kept_scales_.find(entry.parameter);
            if (kept != kept_scales_.end()) {
                std::memcpy(piece.data() + entry.offset, kept->second.data(), entry.bytes);
                kept_scales_.erase(kept);
            }
            if (production.calibration >= 0) write_cache_scale(entry, piece);
            finish_scale(entry, piece);
            times.pack_s += seconds_since(start);
        }
    }
    wire::PieceHeader header;
    header.version = version_;
    header.bucket = static_cast<std::uint32_t>(bucket);
    header.trainer = static_cast<std::uint32_t>(trainer_);
    header.digest_count = wire::digest_count(plan_.manifest, plan.entries);
    header.state = aborted_ ? wire::PieceState::aborted : wire::PieceState::complete;
    header.piece_bytes = plan.bytes;
    header.last_bucket = bucket + 1 == plan_.manifest.buckets.size() ? 1 : 0;
    digests_.resize(header.digest_count);
    wire::write_piece_header(piece, header, digests_);
}

}  // namespace refit::trainer
