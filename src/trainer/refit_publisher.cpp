// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/refit_publisher.hpp"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>
#include <limits>

#include "core/error.hpp"
#include "kernels/numerics/bfloat16.hpp"
#include "kernels/numerics/float8.hpp"
#include "kernels/numerics/scale.hpp"
#include "trainer/entry_digests.hpp"
#include "trainer/nonfinite_finding.hpp"

namespace refit::trainer {
namespace {

constexpr std::uint32_t kInfBits = 0x7f800000;
/// Raw tensors are copied, scanned and hashed in chunks that stay in the second-level cache.
constexpr std::int64_t kRawChunkBytes = std::int64_t{256} << 10;

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

bool is_nonfinite(std::uint16_t bits) {
    return (bits & 0x7f80) == 0x7f80;
}

}  // namespace

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
      exchange_(plan, trainer_),
      scaling_(sent_scaling(payload)),
      cache_scales_(plan, faults, cache_scales) {}

void RefitPublisher::begin(std::uint64_t version) {
    version_ = version;
    aborted_ = false;
    findings_.clear();
    kept_scales_.clear();
}

void RefitPublisher::gather(std::size_t bucket, const MaxOverTrainers& max_over_trainers) {
    exchange_.exchange(
        bucket, aborted_,
        [this](const SharedTiles& shared, const core::Region& own) { gather_tiles(shared, own); },
        max_over_trainers);
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
                    std::uint32_t* to = exchange_.row(shared, row, grid).data() + panel.first_tile;
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
        exchange_.last_element(shared, grid) =
            numerics::amax_part(scaling_, (std::uint32_t{*last.data} & 0x7fffU) << 16);
    }
}

Values RefitPublisher::values_to_send(std::size_t tensor, const core::Region& region) {
    const Values values = weights_.values(tensor, region);
    if (payload_.nonfinite != Nonfinite::sanitize || !has_nonfinite(values, region)) return values;
    sanitized_.resize(static_cast<std::size_t>(region.rows * region.cols));
    for (std::int64_t r = 0; r < region.rows; ++r) {
        const std::uint16_t* from = values.data + r * values.stride;
        std::transform(from, from + region.cols, sanitized_.begin() + r * region.cols,
                       numerics::without_nonfinite);
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
    const Values values = values_to_send(production.tensor, region);
    auto* codes = reinterpret_cast<std::uint8_t*>(piece.data() + entry.offset);
    EntryDigests digests(meta, region);
    const kernels::TileGrid grid = kernels::tile_grid(scaling_, meta.rows(), meta.cols());
    EntryQuantizer quantizer(backend_, scaling_, {meta, region, values, codes},
                             exchange_.of(entry.parameter, grid), amax_, scales_);
    quantizer.run([&](std::int64_t begin, std::int64_t end) {
        const auto hash_start = Clock::now();
        digests.update({begin, end}, reinterpret_cast<const std::byte*>(
                                         codes + (begin - region.row) * region.cols));
        on_progress();
        hashing += seconds_since(hash_start);
    });
    apply_policy(meta, values, region);
    digests.append_to(entry.parameter, digests_);
    // The first scale of the tensor is that of its first element, wherever shards begin.
    if (region.row == 0 && region.col == 0 && is_scale_doubled(plan_, faults_, meta, production))
        quantizer.first_scale() *= 2.0F;
    send_scales(bucket, production, quantizer, piece);
    const double staged = backend_.staging_seconds() - staged_before;
    times.quantize_s += seconds_since(start) - hashing - staged;
    times.pack_s += hashing;
    times.staging_s += staged;
}

void RefitPublisher::apply_policy(const wire::ParameterMeta& meta, const Values& values,
                                  const core::Region& region) {
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
}

void RefitPublisher::send_scales(std::size_t bucket, const Production& production,
                                 const EntryQuantizer& quantizer, std::span<std::byte> piece) {
    if (production.scale < 0) return;
    const auto scale_parameter = static_cast<std::uint32_t>(production.scale);
    bool sent_here = false;
    for (const wire::PieceEntry& scale : plan_.manifest.buckets[bucket].pieces[trainer_].entries) {
        if (scale.parameter != scale_parameter) continue;
        write_scales(scale, quantizer.first_grid_row(), quantizer.last_panel(), piece);
        sent_here = true;
    }
    // Of several trainers, one whose rectangle begins no tile has no scales to send. One trainer
    // may send them in another bucket, as some framings and the engine's own format do: kept.
    if (!sent_here && plan_.manifest.buckets[bucket].pieces.size() == 1) {
        const wire::ParameterMeta& scale = plan_.manifest.parameters[scale_parameter];
        std::vector<std::byte>& kept = kept_scales_[scale_parameter];
        kept.resize(static_cast<std::size_t>(scale.rows() * scale.row_bytes()));
        const wire::PieceEntry whole{scale_parameter, {0, scale.rows()}, 0, kept.size(), {}};
        write_scales(whole, quantizer.first_grid_row(), quantizer.last_panel(), kept);
    }
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
                std::transform(to, to + count, to, numerics::without_nonfinite);
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
            if (cache_scales_.sends(entry)) {
                const std::vector<std::byte> scale = cache_scales_.bytes(entry);
                std::memcpy(piece.data() + entry.offset, scale.data(), scale.size());
            }
            finish_scale(entry, piece);
            times.pack_s += seconds_since(start);
        }
    }
    const wire::PieceHeader header =
        wire::piece_header(plan_.manifest, bucket, trainer_, version_, aborted_);
    digests_.resize(header.digest_count);
    wire::write_piece_header(piece, header, digests_);
}

}  // namespace refit::trainer
