// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/device_publisher.hpp"

#include <algorithm>
#include <chrono>

#include "core/error.hpp"
#include "kernels/numerics/bfloat16.hpp"
#include "kernels/numerics/scale.hpp"
#include "trainer/digest_jobs.hpp"
#include "trainer/nonfinite_finding.hpp"
#include "weights/synthetic_weights.hpp"

namespace refit::trainer {
namespace {

constexpr std::uint32_t kInfBits = 0x7f800000;

using Clock = std::chrono::steady_clock;
using kernels::cuda::DeviceQueue;
using kernels::cuda::ValueType;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

std::uint8_t* as_bytes(std::byte* pointer) {
    return reinterpret_cast<std::uint8_t*>(pointer);
}

/// Whether a boundary between the trainers' columns lies within a tile.
bool cuts_columns(const RefitPlan& plan, const Payload& payload) {
    if (payload.recipe == nullptr) return false;
    for (const wire::BucketPlan& bucket : plan.manifest.buckets) {
        for (const wire::PiecePlan& piece : bucket.pieces) {
            for (const wire::PieceEntry& entry : piece.entries) {
                const wire::ParameterMeta& meta = plan.manifest.parameters[entry.parameter];
                if (meta.kind != wire::ParameterKind::codes) continue;
                const kernels::TileGrid grid =
                    kernels::tile_grid(payload.recipe->scaling, meta.rows(), meta.cols());
                if (entry.region(meta).col % grid.tile_cols != 0) return true;
            }
        }
    }
    return false;
}

}  // namespace

std::string why_not_on_device(const RefitPlan& plan, const Payload& payload) {
    if (payload.nonfinite == Nonfinite::propagate || payload.nonfinite == Nonfinite::sanitize)
        return "nonfinite: propagate and sanitize rewrite values or scales on the host";
    if (!payload.calibrations.empty()) return "scales of the KV cache are calibrated on the host";
    if (cuts_columns(plan, payload))
        return "the trainers' shards cut scaling tiles between columns";
    return {};
}

/// One codes entry of a piece, and where its amax and scales lie.
struct DevicePublisher::Quantized {
    wire::PieceEntry entry;
    core::Region region;
    kernels::TileGrid grid;      ///< of the whole parameter
    std::int64_t first_row = 0;  ///< of the grid
    std::int64_t first_col = 0;
    std::int64_t tiles_across = 0;
    Values values;
    std::size_t word = 0;             ///< first of its amax and scales
    std::uint32_t last = 0;           ///< see kernels::Band::last_element_bits
    std::vector<std::uint32_t> most;  ///< largest bits found: >= kInfBits tells NaN or Inf
};

DevicePublisher::DevicePublisher(const std::vector<model::TensorSpec>& tensors,
                                 const RefitPlan& plan, const Payload& payload,
                                 const TrainerFaults& faults, const DeviceShard& weights,
                                 DeviceQueue& queue, int trainer)
    : tensors_(tensors),
      plan_(plan),
      payload_(payload),
      faults_(faults),
      weights_(weights),
      queue_(queue),
      trainer_(static_cast<std::size_t>(trainer)),
      exchange_(plan, trainer_) {
    const std::string why_not = why_not_on_device(plan, payload);
    if (!why_not.empty())
        throw core::ShapeError("device publisher: " + why_not + "; use RefitPublisher");
    std::int64_t most = 1;
    for (const wire::BucketPlan& bucket : plan.manifest.buckets) {
        std::int64_t words = 0;
        for (const wire::PieceEntry& entry : bucket.pieces[trainer_].entries) {
            const wire::ParameterMeta& meta = plan.manifest.parameters[entry.parameter];
            if (meta.kind != wire::ParameterKind::codes) continue;
            const kernels::TileGrid grid =
                kernels::tile_grid(payload.recipe->scaling, meta.rows(), meta.cols());
            const core::Region region = entry.region(meta);
            words += (region.rows / grid.tile_rows + 2) * (region.cols / grid.tile_cols + 2);
        }
        most = std::max(most, words);
    }
    amax_ = queue_.allocate(static_cast<std::size_t>(most) * sizeof(std::uint32_t));
    scales_ = queue_.allocate(static_cast<std::size_t>(most) * sizeof(float));
}

void DevicePublisher::begin(std::uint64_t version) {
    version_ = version;
    aborted_ = false;
    findings_.clear();
}

void DevicePublisher::gather(std::size_t bucket, const MaxOverTrainers& max_over_trainers) {
    exchange_.exchange(
        bucket, aborted_,
        [this](const SharedTiles& shared, const core::Region& own) { gather_tiles(shared, own); },
        max_over_trainers);
}

void DevicePublisher::gather_tiles(const SharedTiles& shared, const core::Region& own) {
    const wire::ParameterMeta& meta = plan_.manifest.parameters[shared.parameter];
    const std::size_t tensor = plan_.productions[shared.parameter].tensor;
    const numerics::TileScaling& scaling = payload_.recipe->scaling;
    const kernels::TileGrid grid = kernels::tile_grid(scaling, meta.rows(), meta.cols());
    for (std::size_t i = 0; i < shared.grid_rows.size(); ++i) {
        const std::int64_t first = shared.grid_rows[i] * grid.tile_rows;
        const core::RowRange rows{std::max(own.row, first),
                                  std::min(own.row + own.rows, first + grid.tile_rows)};
        if (rows.empty()) continue;
        const Values values =
            weights_.values(tensor, {rows.begin, own.col, rows.count(), own.cols});
        kernels::cuda::DeviceBand band;
        band.scaling = scaling;
        band.band = {values.data, values.stride, rows.begin, rows.count(),
                     meta.rows(), own.cols,      0};
        band.amax_bits = reinterpret_cast<std::uint32_t*>(amax_->data());
        queue_.tile_amax(band);
        const std::int64_t tiles = core::ceil_div(own.cols, grid.tile_cols);
        queue_.download(exchange_.row(shared, i, grid).data() + own.col / grid.tile_cols,
                        band.amax_bits, static_cast<std::size_t>(tiles) * sizeof(std::uint32_t),
                        DeviceQueue::Purpose::control);
    }
    const bool owns_last = own.row + own.rows == meta.rows() && own.col + own.cols == meta.cols();
    if (!shared.last_element || !owns_last) return;
    std::uint16_t last = 0;
    queue_.download(&last, weights_.values(tensor, {meta.rows() - 1, meta.cols() - 1, 1, 1}).data,
                    sizeof last, DeviceQueue::Purpose::control);
    exchange_.last_element(shared, grid) =
        numerics::amax_part(scaling, (std::uint32_t{last} & 0x7fffU) << 16);
}

void DevicePublisher::quantize_rows(const Quantized& one, const ExchangedAmax& exchanged,
                                    std::uint8_t* codes) {
    const wire::ParameterMeta& meta = plan_.manifest.parameters[one.entry.parameter];
    const auto is_shared = [&](std::int64_t row) {
        return exchanged.covers(row / one.grid.tile_rows);
    };
    const std::int64_t last_row = one.region.row + one.region.rows;
    for (std::int64_t row = one.region.row; row < last_row;) {
        const bool shared = is_shared(row);
        std::int64_t end = row;
        // A run of whole tiles, or one grid row whose amax came from the exchange.
        do {
            end = std::min(last_row, (end / one.grid.tile_rows + 1) * one.grid.tile_rows);
        } while (!shared && end < last_row && !is_shared(end));
        const std::int64_t local = row - one.region.row;
        const std::size_t word =
            one.word +
            static_cast<std::size_t>((row / one.grid.tile_rows - one.first_row) * one.tiles_across);
        kernels::cuda::DeviceBand band;
        band.scaling = payload_.recipe->scaling;
        // Columns that begin at a tile boundary are a matrix of their own, with the global tiles.
        band.band = {one.values.data + local * one.values.stride,
                     one.values.stride,
                     row,
                     end - row,
                     meta.rows(),
                     one.region.cols,
                     one.last};
        band.codes = codes + local * one.region.cols;
        band.code_stride = one.region.cols;
        band.amax_bits = reinterpret_cast<std::uint32_t*>(amax_->data()) + word;
        band.scale_inv = reinterpret_cast<float*>(scales_->data()) + word;
        if (shared) {
            std::vector<std::uint32_t> amax(static_cast<std::size_t>(one.tiles_across));
            exchanged.copy_row(meta, one.grid, row / one.grid.tile_rows, one.first_col, amax);
            queue_.upload(band.amax_bits, amax.data(), amax.size() * sizeof amax.front(),
                          DeviceQueue::Purpose::control);
            queue_.encode(band);
        } else {
            queue_.quantize(band);
        }
        row = end;
    }
}

void DevicePublisher::quantize_codes(std::size_t bucket, std::span<std::byte> piece,
                                     std::vector<Quantized>& all) {
    const numerics::TileScaling* scaling =
        payload_.recipe != nullptr ? &payload_.recipe->scaling : nullptr;
    std::size_t word = 0;
    for (const wire::PieceEntry& entry : plan_.manifest.buckets[bucket].pieces[trainer_].entries) {
        const wire::ParameterMeta& meta = plan_.manifest.parameters[entry.parameter];
        if (meta.kind != wire::ParameterKind::codes) continue;
        Quantized one;
        one.entry = entry;
        one.region = entry.region(meta);
        one.grid = kernels::tile_grid(*scaling, meta.rows(), meta.cols());
        one.first_row = one.region.row / one.grid.tile_rows;
        one.first_col = one.region.col / one.grid.tile_cols;
        one.tiles_across =
            core::ceil_div(one.region.col + one.region.cols, one.grid.tile_cols) - one.first_col;
        one.values = weights_.values(plan_.productions[entry.parameter].tensor, one.region);
        one.word = word;
        const std::int64_t down =
            core::ceil_div(one.region.row + one.region.rows, one.grid.tile_rows) - one.first_row;
        word += static_cast<std::size_t>(down * one.tiles_across);
        const ExchangedAmax exchanged = exchange_.of(entry.parameter, one.grid);
        one.last = exchanged.last_element_bits;
        quantize_rows(one, exchanged, as_bytes(piece.data()) + entry.offset);
        all.push_back(std::move(one));
    }
    if (payload_.nonfinite != Nonfinite::reject || all.empty()) {
        queue_.wait();
        return;
    }
    for (std::size_t i = 0; i < all.size(); ++i) {
        Quantized& one = all[i];
        const std::size_t end = i + 1 < all.size() ? all[i + 1].word : word;
        one.most.assign(1, 0);
        const bool hides = numerics::hides_nonfinite(*scaling);
        // Rows as long as they are held, with zeros between them at most, are one stretch.
        const std::size_t tensor = plan_.productions[one.entry.parameter].tensor;
        const bool stretch = one.region.cols == weights_.held(tensor).cols;
        if (hides) one.most.resize(1 + (stretch ? 1 : static_cast<std::size_t>(one.region.rows)));
        queue_.max_bits(reinterpret_cast<const std::uint32_t*>(amax_->data()) + one.word,
                        static_cast<std::int64_t>(end - one.word), one.most.data());
        const std::size_t looks = one.most.size() - 1;
        for (std::size_t r = 0; r < looks; ++r) {
            const auto row = static_cast<std::int64_t>(r);
            const std::int64_t count =
                stretch ? (one.region.rows - 1) * one.values.stride + one.region.cols
                        : one.region.cols;
            queue_.max_abs_bits(one.values.data + row * one.values.stride, count, &one.most[r + 1]);
        }
    }
    queue_.wait();
}

void DevicePublisher::report_nonfinite(const wire::ParameterMeta& meta, const Values& values,
                                       const core::Region& region) {
    std::vector<kernels::cuda::NonfiniteCounts> rows(static_cast<std::size_t>(region.rows));
    for (std::size_t r = 0; r < rows.size(); ++r)
        queue_.count_nonfinite(values.data + static_cast<std::int64_t>(r) * values.stride,
                               region.cols, &rows[r]);
    queue_.wait();
    NonfiniteValues found;
    const std::uint16_t* first = nullptr;
    for (std::size_t r = 0; r < rows.size(); ++r) {
        const kernels::cuda::NonfiniteCounts& one = rows[r];
        if (one.nan + one.inf == 0) continue;
        if (first == nullptr) {
            found.row = region.row + static_cast<std::int64_t>(r);
            found.col = region.col + static_cast<std::int64_t>(one.first);
            first = values.data + static_cast<std::int64_t>(r) * values.stride + one.first;
        }
        found.nan_count += static_cast<std::int64_t>(one.nan);
        found.inf_count += static_cast<std::int64_t>(one.inf);
    }
    aborted_ = true;
    if (first == nullptr) return;
    queue_.download(&found.first, first, sizeof found.first, DeviceQueue::Purpose::control);
    kernels::TileGrid grid;
    const bool codes = payload_.recipe != nullptr && meta.kind == wire::ParameterKind::codes;
    if (codes) grid = kernels::tile_grid(payload_.recipe->scaling, meta.rows(), meta.cols());
    findings_.push_back(nonfinite_finding(meta, found, codes ? &grid : nullptr));
}

/// Reports the first entry of the piece that is not finite where one of its codes entries is not;
/// raw entries behind all such are looked at with their digests.
void DevicePublisher::look_for_nonfinite(std::size_t bucket, const std::vector<Quantized>& all) {
    if (payload_.nonfinite != Nonfinite::reject) return;
    const auto bad = std::find_if(all.begin(), all.end(), [](const Quantized& one) {
        return std::any_of(one.most.begin(), one.most.end(),
                           [](std::uint32_t bits) { return bits >= kInfBits; });
    });
    if (bad == all.end()) return;
    for (const wire::PieceEntry& entry : plan_.manifest.buckets[bucket].pieces[trainer_].entries) {
        if (entry.parameter == bad->entry.parameter) break;
        const wire::ParameterMeta& meta = plan_.manifest.parameters[entry.parameter];
        const Production& production = plan_.productions[entry.parameter];
        if (meta.kind != wire::ParameterKind::raw || production.quantized) continue;
        const core::Region region = entry.region(meta);
        report_nonfinite(meta, weights_.values(production.tensor, region), region);
        if (!findings_.empty()) return;
    }
    report_nonfinite(plan_.manifest.parameters[bad->entry.parameter], bad->values, bad->region);
}

/// The scale entry of a piece holds the tiles that begin in the trainer's rectangle.
void DevicePublisher::write_scale(const Quantized& one, const wire::PieceEntry& entry,
                                  std::byte* out) {
    const wire::ParameterMeta& meta = plan_.manifest.parameters[entry.parameter];
    const bool known = meta.dtype == core::DType::f32 || meta.dtype == core::DType::bf16 ||
                       payload_.recipe->scaling.scale_storage == numerics::ScaleStorage::e8m0;
    if (!known) {
        // As RefitPublisher does: only a planted fault announces such a type.
        queue_.set_bytes(out, 0, entry.bytes);
        return;
    }
    const core::Region region = entry.region(meta);
    auto* const scales = reinterpret_cast<float*>(scales_->data()) + one.word;
    kernels::cuda::ValueRectangle values;
    values.from = reinterpret_cast<const std::uint8_t*>(
        scales + (region.row - one.first_row) * one.tiles_across + region.col - one.first_col);
    values.from_stride = one.tiles_across * static_cast<std::int64_t>(sizeof(float));
    values.to = as_bytes(out);
    values.to_type = meta.dtype == core::DType::f32    ? ValueType::f32
                     : meta.dtype == core::DType::bf16 ? ValueType::bf16
                                                       : ValueType::e8m0;
    values.to_stride = region.cols * size_of(values.to_type);
    values.rows = region.rows;
    values.cols = region.cols;
    const std::string& weight = plan_.manifest.parameters[one.entry.parameter].name;
    const bool doubled = one.region.row == 0 && one.region.col == 0 &&
                         !faults_.scale_doubled.empty() &&
                         (weights::glob_match(faults_.scale_doubled, weight) ||
                          weights::glob_match(faults_.scale_doubled, meta.name));
    if (doubled) {
        float scale = 0.0F;
        queue_.download(&scale, scales, sizeof scale, DeviceQueue::Purpose::control);
        scale *= 2.0F;
        queue_.upload(scales, &scale, sizeof scale, DeviceQueue::Purpose::control);
    }
    queue_.convert({&values, 1});
}

void DevicePublisher::lay_out(std::size_t bucket, std::span<std::byte> piece,
                              const std::vector<Quantized>& all) {
    const std::vector<wire::PieceEntry>& entries =
        plan_.manifest.buckets[bucket].pieces[trainer_].entries;
    std::vector<kernels::cuda::PlacedRectangle> placed;
    const auto add = [&](const std::uint8_t* from, std::int64_t stride, std::int64_t rows,
                         std::int64_t row_bytes, const wire::PieceEntry& entry) {
        placed.push_back(
            {from, stride, as_bytes(piece.data()) + entry.offset, row_bytes, rows, row_bytes, 0});
    };
    for (const Quantized& one : all) {
        const auto scale = static_cast<std::uint32_t>(plan_.productions[one.entry.parameter].scale);
        bool sent_here = false;
        for (const wire::PieceEntry& entry : entries) {
            if (entry.parameter != scale) continue;
            write_scale(one, entry, piece.data() + entry.offset);
            sent_here = true;
        }
        if (sent_here || plan_.productions[one.entry.parameter].scale < 0) continue;
        // A framing that cuts between a weight and its scale: kept for the bucket that has it.
        const wire::ParameterMeta& meta = plan_.manifest.parameters[scale];
        const auto bytes = static_cast<std::size_t>(meta.rows() * meta.row_bytes());
        auto& kept = kept_scales_[scale];
        if (kept == nullptr) kept = queue_.allocate(bytes);
        write_scale(one, {scale, {0, meta.rows()}, 0, bytes, {}}, kept->data());
    }
    for (const wire::PieceEntry& entry : entries) {
        const wire::ParameterMeta& meta = plan_.manifest.parameters[entry.parameter];
        const core::Region region = entry.region(meta);
        const auto kept = kept_scales_.find(entry.parameter);
        if (kept != kept_scales_.end() && meta.kind == wire::ParameterKind::scale) {
            const auto bytes = static_cast<std::int64_t>(entry.bytes);
            add(reinterpret_cast<const std::uint8_t*>(kept->second->data()), bytes, 1, bytes,
                entry);
        }
        if (meta.kind != wire::ParameterKind::raw || plan_.productions[entry.parameter].quantized)
            continue;
        const Values values = weights_.values(plan_.productions[entry.parameter].tensor, region);
        add(reinterpret_cast<const std::uint8_t*>(values.data), 2 * values.stride, region.rows,
            2 * region.cols, entry);
    }
    queue_.place(placed);
}

void DevicePublisher::digest_entries(std::size_t bucket, std::span<std::byte> piece,
                                     const std::function<void()>& on_progress) {
    const std::vector<wire::PieceEntry>& entries =
        plan_.manifest.buckets[bucket].pieces[trainer_].entries;
    std::vector<std::uint32_t> most(entries.size(), 0);
    std::vector<kernels::cuda::DigestJob> jobs;
    for (std::size_t i = 0; i < entries.size(); ++i) {
        const wire::PieceEntry& entry = entries[i];
        const wire::ParameterMeta& meta = plan_.manifest.parameters[entry.parameter];
        const core::Region region = entry.region(meta);
        const std::uint8_t* first = as_bytes(piece.data()) + entry.offset;
        append_digest_jobs(meta, entry, first, jobs, digests_);
        const bool raw =
            meta.kind == wire::ParameterKind::raw && !plan_.productions[entry.parameter].quantized;
        if (raw && payload_.nonfinite == Nonfinite::reject) {
            queue_.max_abs_bits(reinterpret_cast<const std::uint16_t*>(first),
                                region.rows * region.cols, &most[i]);
        }
    }
    std::vector<numerics::Xxh128> found(jobs.size());
    queue_.digest(jobs, found.data());
    queue_.wait();
    on_progress();
    for (std::size_t i = 0; i < found.size(); ++i)
        digests_[i].digest = {found[i].low, found[i].high};
    for (std::size_t i = 0; i < entries.size() && !aborted_; ++i) {
        if (most[i] < kInfBits) continue;
        const wire::ParameterMeta& meta = plan_.manifest.parameters[entries[i].parameter];
        const core::Region region = entries[i].region(meta);
        report_nonfinite(
            meta, weights_.values(plan_.productions[entries[i].parameter].tensor, region), region);
    }
}

void DevicePublisher::write_head(std::size_t bucket, std::span<std::byte> piece) {
    const wire::PieceHeader header =
        wire::piece_header(plan_.manifest, bucket, trainer_, version_, aborted_);
    digests_.resize(header.digest_count);
    std::vector<std::byte> head(wire::entries_offset(header.digest_count));
    wire::write_piece_header(head, header, digests_);
    queue_.upload(piece.data(), head.data(), std::min<std::size_t>(head.size(), piece.size()),
                  DeviceQueue::Purpose::control);
}

void DevicePublisher::fill(std::size_t bucket, std::span<std::byte> piece,
                           const std::function<void()>& on_progress, PublishTimes& times) {
    digests_.clear();
    std::vector<Quantized> all;
    if (!aborted_) {
        const auto start = Clock::now();
        quantize_codes(bucket, piece, all);
        look_for_nonfinite(bucket, all);
        if (!all.empty()) times.quantize_s += seconds_since(start);
        on_progress();
    }
    const auto start = Clock::now();
    if (!aborted_) {
        lay_out(bucket, piece, all);
        digest_entries(bucket, piece, on_progress);
    }
    write_head(bucket, piece);
    times.pack_s += seconds_since(start);
}

}  // namespace refit::trainer
