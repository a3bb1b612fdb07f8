// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/device_publisher.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <string>

#include "core/error.hpp"
#include "kernels/numerics/scale.hpp"
#include "trainer/digest_jobs.hpp"
#include "trainer/nonfinite_finding.hpp"

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

/// Whether one of these magnitudes is that of NaN or Inf.
bool is_any_nonfinite(const std::vector<std::uint32_t>& most) {
    return std::ranges::any_of(most, [](std::uint32_t bits) { return bits >= kInfBits; });
}

/// Whether a tile of finite values never has a quotient that is NaN: then it does not matter what
/// the recipe makes of one.
bool quotients_are_numbers(const numerics::TileScaling& scaling) {
    constexpr std::uint32_t kSmallest = 1;
    constexpr std::uint32_t kLargest = 0x7f7f0000;  // of BF16
    return std::ranges::all_of(std::array{0U, kSmallest, kLargest}, [&](std::uint32_t amax) {
        const float operand = numerics::tile_factor(scaling, amax).operand;
        return operand > 0.0F && std::bit_cast<std::uint32_t>(operand) < kInfBits;
    });
}

/// What tiles are quantized with. The policy `sanitize` replaces what is not finite before
/// anything looks at it, as some recipes do themselves.
numerics::TileScaling device_scaling(const Payload& payload) {
    numerics::TileScaling scaling = sent_scaling(payload);
    if (payload.nonfinite == Nonfinite::sanitize)
        scaling.nonfinite_input = numerics::NonfiniteInput::replace;
    return scaling;
}

}  // namespace

std::string why_not_on_device(const Payload& payload) {
    if (payload.recipe == nullptr || payload.nonfinite != Nonfinite::sanitize) return {};
    const numerics::TileScaling& scaling = payload.recipe->scaling;
    if (scaling.nonfinite_input != numerics::NonfiniteInput::drop_nan ||
        quotients_are_numbers(scaling))
        return {};
    return "nonfinite: sanitize with recipe " + std::string(payload.recipe->name) +
           ", which makes codes of quotients that are NaN, replaces values on the host";
}

DevicePublisher::DevicePublisher(const RefitPlan& plan, const Payload& payload,
                                 const TrainerFaults& faults, const DeviceShard& weights,
                                 DeviceQueue& queue, int trainer,
                                 const std::vector<float>* cache_scales)
    : plan_(plan),
      payload_(payload),
      faults_(faults),
      weights_(weights),
      queue_(queue),
      trainer_(static_cast<std::size_t>(trainer)),
      exchange_(plan, trainer_),
      scaling_(device_scaling(payload)),
      quantizer_(plan, scaling_, weights, queue, trainer_),
      cache_scales_(plan, faults, cache_scales) {
    const std::string why_not = why_not_on_device(payload);
    if (!why_not.empty())
        throw core::ShapeError("device publisher: " + why_not + "; use RefitPublisher");
}

void DevicePublisher::begin(std::uint64_t version) {
    version_ = version;
    aborted_ = false;
    findings_.clear();
}

void DevicePublisher::gather(std::size_t bucket, const MaxOverTrainers& max_over_trainers) {
    exchange_.exchange(
        bucket, aborted_,
        [this](const SharedTiles& shared, const core::Region& own) {
            quantizer_.gather(shared, own, exchange_);
        },
        max_over_trainers);
}

void DevicePublisher::look(std::size_t tensor, const core::Region& region,
                           std::vector<std::uint32_t>& most) {
    const Values values = weights_.values(tensor, region);
    // Rows as long as they are held, with zeros between them at most, are one stretch.
    const bool stretch = region.cols == weights_.held(tensor).cols;
    const std::size_t first = most.size();
    most.resize(first + (stretch ? 1 : static_cast<std::size_t>(region.rows)));
    for (std::size_t i = first; i < most.size(); ++i) {
        const auto row = static_cast<std::int64_t>(i - first);
        const std::int64_t count =
            stretch ? (region.rows - 1) * values.stride + region.cols : region.cols;
        queue_.max_abs_bits(values.data + row * values.stride, count, &most[i]);
    }
}

void DevicePublisher::quantize_codes(std::size_t bucket, std::span<std::byte> piece,
                                     std::vector<QuantizedEntry>& all) {
    all = quantizer_.run(bucket, as_bytes(piece.data()), exchange_);
    if (all.empty()) return;
    if (payload_.nonfinite == Nonfinite::propagate) {
        queue_.mark_nonfinite(quantizer_.amax(0), quantizer_.scales(0),
                              static_cast<std::int64_t>(all.back().word + all.back().words));
    }
    std::vector<std::vector<std::uint32_t>> most(all.size());
    for (std::size_t i = 0; payload_.nonfinite == Nonfinite::reject && i < all.size(); ++i) {
        const QuantizedEntry& one = all[i];
        // Its words stay where they are while they are waited for.
        most[i].reserve(1 + static_cast<std::size_t>(one.region.rows));
        most[i].resize(1);
        queue_.max_bits(quantizer_.amax(one.word), static_cast<std::int64_t>(one.words),
                        most[i].data());
        if (numerics::hides_nonfinite(scaling_))
            look(plan_.productions[one.entry.parameter].tensor, one.region, most[i]);
    }
    queue_.wait();
    const auto bad = std::ranges::find_if(most, is_any_nonfinite);
    if (bad != most.end()) report_first(bucket, all[static_cast<std::size_t>(bad - most.begin())]);
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
    if (codes) grid = kernels::tile_grid(scaling_, meta.rows(), meta.cols());
    findings_.push_back(nonfinite_finding(meta, found, codes ? &grid : nullptr));
}

void DevicePublisher::report_first(std::size_t bucket, const QuantizedEntry& bad) {
    for (const wire::PieceEntry& entry : plan_.manifest.buckets[bucket].pieces[trainer_].entries) {
        if (entry.parameter == bad.entry.parameter) break;
        if (!is_raw(entry)) continue;
        const wire::ParameterMeta& meta = plan_.manifest.parameters[entry.parameter];
        const core::Region region = entry.region(meta);
        report_nonfinite(meta, weights_.values(plan_.productions[entry.parameter].tensor, region),
                         region);
        if (!findings_.empty()) return;
    }
    report_nonfinite(plan_.manifest.parameters[bad.entry.parameter], bad.values, bad.region);
}

bool DevicePublisher::is_raw(const wire::PieceEntry& entry) const {
    return plan_.manifest.parameters[entry.parameter].kind == wire::ParameterKind::raw &&
           !plan_.productions[entry.parameter].quantized;
}

/// The scale entry of a piece holds the tiles that begin in the trainer's rectangle.
void DevicePublisher::write_scale(const QuantizedEntry& one, const wire::PieceEntry& entry,
                                  std::byte* out) {
    const wire::ParameterMeta& meta = plan_.manifest.parameters[entry.parameter];
    const bool known = meta.dtype == core::DType::f32 || meta.dtype == core::DType::bf16 ||
                       scaling_.scale_storage == numerics::ScaleStorage::e8m0;
    if (!known) {
        // As RefitPublisher does: only a planted fault announces such a type.
        queue_.set_bytes(out, 0, entry.bytes);
        return;
    }
    const core::Region region = entry.region(meta);
    const DevicePanel& panel = one.last_panel();
    const std::int64_t tiles = panel.panel.tiles;
    kernels::cuda::ValueRectangle values;
    values.from = reinterpret_cast<const std::uint8_t*>(quantizer_.scales(panel.word) +
                                                        (region.row - one.first_grid_row) * tiles +
                                                        region.col - panel.panel.first_tile);
    values.from_stride = tiles * static_cast<std::int64_t>(sizeof(float));
    values.to = as_bytes(out);
    values.to_type = meta.dtype == core::DType::f32    ? ValueType::f32
                     : meta.dtype == core::DType::bf16 ? ValueType::bf16
                                                       : ValueType::e8m0;
    values.to_stride = region.cols * size_of(values.to_type);
    values.rows = region.rows;
    values.cols = region.cols;
    const wire::ParameterMeta& weight = plan_.manifest.parameters[one.entry.parameter];
    if (one.region.row == 0 && one.region.col == 0 &&
        is_scale_doubled(plan_, faults_, weight, plan_.productions[one.entry.parameter])) {
        float* const first = quantizer_.scales(one.word);
        float scale = 0.0F;
        queue_.download(&scale, first, sizeof scale, DeviceQueue::Purpose::control);
        scale *= 2.0F;
        queue_.upload(first, &scale, sizeof scale, DeviceQueue::Purpose::control);
    }
    queue_.convert({&values, 1});
}

void DevicePublisher::write_scales(std::size_t bucket, std::span<std::byte> piece,
                                   const std::vector<QuantizedEntry>& all) {
    for (const QuantizedEntry& one : all) {
        const Production& production = plan_.productions[one.entry.parameter];
        if (production.scale < 0) continue;
        const auto scale = static_cast<std::uint32_t>(production.scale);
        bool sent_here = false;
        for (const wire::PieceEntry& entry :
             plan_.manifest.buckets[bucket].pieces[trainer_].entries) {
            if (entry.parameter != scale) continue;
            write_scale(one, entry, piece.data() + entry.offset);
            sent_here = true;
        }
        // As RefitPublisher does: of several trainers one may have none to send, one alone may send
        // them in another bucket.
        if (sent_here || plan_.manifest.buckets[bucket].pieces.size() > 1) continue;
        const wire::ParameterMeta& meta = plan_.manifest.parameters[scale];
        const auto bytes = static_cast<std::size_t>(meta.rows() * meta.row_bytes());
        auto& kept = kept_scales_[scale];
        if (kept == nullptr) kept = queue_.allocate(bytes);
        write_scale(one, {scale, {0, meta.rows()}, 0, bytes, {}}, kept->data());
    }
}

void DevicePublisher::lay_out(std::size_t bucket, std::span<std::byte> piece,
                              const std::vector<QuantizedEntry>& all) {
    write_scales(bucket, piece, all);
    const std::vector<wire::PieceEntry>& entries =
        plan_.manifest.buckets[bucket].pieces[trainer_].entries;
    std::vector<kernels::cuda::PlacedRectangle> placed;
    const auto add = [&](const void* from, std::int64_t stride, std::int64_t rows,
                         std::int64_t row_bytes, const wire::PieceEntry& entry) {
        placed.push_back({static_cast<const std::uint8_t*>(from), stride,
                          as_bytes(piece.data()) + entry.offset, row_bytes, rows, row_bytes, 0});
    };
    for (const wire::PieceEntry& entry : entries) {
        const auto kept = kept_scales_.find(entry.parameter);
        const auto bytes = static_cast<std::int64_t>(entry.bytes);
        if (kept != kept_scales_.end()) add(kept->second->data(), bytes, 1, bytes, entry);
        if (!is_raw(entry)) continue;
        const core::Region region = entry.region(plan_.manifest.parameters[entry.parameter]);
        const Values values = weights_.values(plan_.productions[entry.parameter].tensor, region);
        add(values.data, 2 * values.stride, region.rows, 2 * region.cols, entry);
    }
    queue_.place(placed);
    for (const wire::PieceEntry& entry : entries) {
        std::byte* const out = piece.data() + entry.offset;
        if (payload_.nonfinite == Nonfinite::sanitize && is_raw(entry))
            queue_.replace_nonfinite(as_bytes(out), static_cast<std::int64_t>(entry.bytes / 2));
        if (!cache_scales_.sends(entry)) continue;
        const std::vector<std::byte> scale = cache_scales_.bytes(entry);
        queue_.upload(out, scale.data(), scale.size(), DeviceQueue::Purpose::control);
    }
}

void DevicePublisher::digest_entries(std::size_t bucket, std::span<std::byte> piece,
                                     const std::function<void()>& on_progress) {
    const std::vector<wire::PieceEntry>& entries =
        plan_.manifest.buckets[bucket].pieces[trainer_].entries;
    std::vector<std::vector<std::uint32_t>> most(entries.size());
    std::vector<kernels::cuda::DigestJob> jobs;
    for (std::size_t i = 0; i < entries.size(); ++i) {
        const wire::PieceEntry& entry = entries[i];
        const wire::ParameterMeta& meta = plan_.manifest.parameters[entry.parameter];
        append_digest_jobs(meta, entry, as_bytes(piece.data()) + entry.offset, jobs, digests_);
        if (payload_.nonfinite == Nonfinite::reject && is_raw(entry))
            look(plan_.productions[entry.parameter].tensor, entry.region(meta), most[i]);
    }
    std::vector<numerics::Xxh128> found(jobs.size());
    queue_.digest(jobs, found.data());
    queue_.wait();
    on_progress();
    for (std::size_t i = 0; i < found.size(); ++i)
        digests_[i].digest = {found[i].low, found[i].high};
    for (std::size_t i = 0; i < entries.size() && !aborted_; ++i) {
        if (!is_any_nonfinite(most[i])) continue;
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
    std::vector<QuantizedEntry> all;
    if (!aborted_) {
        const auto start = Clock::now();
        quantize_codes(bucket, piece, all);
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
