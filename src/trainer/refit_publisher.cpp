// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/refit_publisher.hpp"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>
#include <limits>
#include <string>

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

std::string value_name(std::uint16_t bits) {
    if ((bits & 0x7f) != 0) return "NaN";
    return (bits & 0x8000) != 0 ? "-Inf" : "Inf";
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

    EntryDigests(const wire::ParameterMeta& meta, const core::RowRange& rows)
        : element_bytes(core::size_bytes(meta.dtype)) {
        for (const wire::Cell& cell : wire::cells_within(meta, rows))
            cells.push_back({cell, wire::DigestStream()});
    }

    /// `data` is the first byte of row `rows.begin`; rows follow each other without gaps.
    void update(const core::RowRange& rows, const std::byte* data, std::int64_t row_bytes) {
        for (OneCell& one : cells) {
            const core::Region& region = one.cell.region;
            const std::int64_t begin = std::max(rows.begin, region.row);
            const std::int64_t end = std::min(rows.end, region.row + region.rows);
            if (begin >= end) continue;
            const std::byte* first =
                data + (begin - rows.begin) * row_bytes + region.col * element_bytes;
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

RefitPublisher::RefitPublisher(const std::vector<model::TensorSpec>& tensors, const RefitPlan& plan,
                               const Payload& payload, const TrainerFaults& faults,
                               const kernels::Backend& backend, const ResidentShard& shard,
                               int trainer)
    : tensors_(tensors),
      plan_(plan),
      payload_(payload),
      faults_(faults),
      backend_(backend),
      shard_(shard),
      trainer_(static_cast<std::size_t>(trainer)) {}

void RefitPublisher::begin(std::uint64_t version) {
    version_ = version;
    aborted_ = false;
    findings_.clear();
}

void RefitPublisher::gather(std::size_t bucket, const MaxOverTrainers& max_over_trainers) {
    exchange_.assign(plan_.exchange_words[bucket], 0);
    if (exchange_.empty()) return;
    for (const SharedTiles& shared : plan_.shared[bucket]) {
        const wire::ParameterMeta& meta = plan_.manifest.parameters[shared.parameter];
        const std::size_t tensor = plan_.productions[shared.parameter].tensor;
        const core::RowRange& own = shard_.rows(tensor);
        const kernels::TileGrid grid =
            kernels::tile_grid(payload_.recipe->scaling, meta.rows(), meta.cols());
        const auto grid_cols = static_cast<std::size_t>(grid.grid_cols);
        std::size_t word = shared.offset;
        for (const std::int64_t grid_row : shared.grid_rows) {
            const std::int64_t begin = std::max(own.begin, grid_row * grid.tile_rows);
            const std::int64_t end = std::min(own.end, (grid_row + 1) * grid.tile_rows);
            if (begin < end) {
                const kernels::Band band{values_to_send(tensor, {begin, end}, meta.cols()),
                                         meta.cols(),
                                         begin,
                                         end - begin,
                                         meta.rows(),
                                         meta.cols(),
                                         0};
                backend_.tile_amax(payload_.recipe->scaling, band,
                                   std::span(exchange_).subspan(word, grid_cols));
            }
            word += grid_cols;
        }
        if (shared.last_element && own.end == meta.rows() && !own.empty()) {
            const core::RowRange row{meta.rows() - 1, meta.rows()};
            const std::uint16_t last = values_to_send(tensor, row, meta.cols())[meta.cols() - 1];
            exchange_[word] = (std::uint32_t{last} & 0x7fffU) << 16;
        }
    }
    max_over_trainers(exchange_);
}

const std::uint16_t* RefitPublisher::values_to_send(std::size_t tensor, const core::RowRange& rows,
                                                    std::int64_t cols) {
    const std::uint16_t* values = shard_.row(tensor, rows.begin);
    if (payload_.nonfinite != Nonfinite::sanitize) return values;
    const std::int64_t count = rows.count() * cols;
    if (backend_.max_abs_bits(values, count) < kInfBits) return values;
    sanitized_.resize(static_cast<std::size_t>(count));
    std::transform(values, values + count, sanitized_.begin(), sanitized);
    return sanitized_.data();
}

std::span<const std::uint32_t> RefitPublisher::shared_amax(std::size_t bucket,
                                                           std::uint32_t parameter,
                                                           std::int64_t grid_row,
                                                           std::int64_t grid_cols) const {
    for (const SharedTiles& shared : plan_.shared[bucket]) {
        if (shared.parameter != parameter) continue;
        const auto found = std::find(shared.grid_rows.begin(), shared.grid_rows.end(), grid_row);
        if (found == shared.grid_rows.end()) return {};
        const auto position = static_cast<std::size_t>(found - shared.grid_rows.begin());
        return std::span(exchange_).subspan(
            shared.offset + position * static_cast<std::size_t>(grid_cols),
            static_cast<std::size_t>(grid_cols));
    }
    return {};
}

std::uint32_t RefitPublisher::last_element_bits(std::size_t bucket, std::uint32_t parameter) const {
    for (const SharedTiles& shared : plan_.shared[bucket]) {
        if (shared.parameter != parameter || !shared.last_element) continue;
        const wire::ParameterMeta& meta = plan_.manifest.parameters[parameter];
        const kernels::TileGrid grid =
            kernels::tile_grid(payload_.recipe->scaling, meta.rows(), meta.cols());
        return exchange_[shared.offset +
                         shared.grid_rows.size() * static_cast<std::size_t>(grid.grid_cols)];
    }
    return 0;
}

void RefitPublisher::report_nonfinite(const wire::ParameterMeta& meta, const std::uint16_t* data,
                                      const core::RowRange& rows, std::int64_t cols,
                                      const char* where) {
    std::int64_t nan_count = 0;
    std::int64_t inf_count = 0;
    std::int64_t first = -1;
    const std::int64_t count = rows.count() * cols;
    for (std::int64_t i = 0; i < count; ++i) {
        if (!is_nonfinite(data[i])) continue;
        if (first < 0) first = i;
        ((data[i] & 0x7f) != 0 ? nan_count : inf_count) += 1;
    }
    if (first < 0) return;
    core::Finding finding;
    finding.check = "nonfinite";
    finding.tensor = meta.name;
    const std::int64_t row = rows.begin + first / cols;
    const std::int64_t col = first % cols;
    finding.index = meta.shape.size() > 1 ? std::vector<std::int64_t>{row, col}
                                          : std::vector<std::int64_t>{row};
    finding.measured = value_name(data[first]);
    finding.limit = "finite";
    std::string tile;
    if (payload_.recipe != nullptr && meta.kind == wire::ParameterKind::codes) {
        const kernels::TileGrid grid =
            kernels::tile_grid(payload_.recipe->scaling, meta.rows(), meta.cols());
        tile = ", tile [" + std::to_string(row / grid.tile_rows) + ", " +
               std::to_string(col / grid.tile_cols) + "]";
    }
    finding.message = meta.name + " holds " + std::to_string(nan_count) + " NaN and " +
                      std::to_string(inf_count) + " Inf in the trainer's " + where +
                      "; the first is " + finding.measured + " at " +
                      core::to_string(finding.index) + tile + "; the refit is rejected";
    finding.remedy =
        "mend the training weights, or choose a policy with nonfinite: recipe | propagate | "
        "sanitize";
    findings_.push_back(std::move(finding));
    aborted_ = true;
}

void RefitPublisher::fill_codes(std::size_t bucket, const wire::PieceEntry& entry,
                                std::span<std::byte> piece,
                                const std::function<void()>& on_progress, PublishTimes& times) {
    const wire::ParameterMeta& meta = plan_.manifest.parameters[entry.parameter];
    const Production& production = plan_.productions[entry.parameter];
    const numerics::TileScaling& scaling = payload_.recipe->scaling;
    const std::int64_t cols = meta.cols();
    const kernels::TileGrid grid = kernels::tile_grid(scaling, meta.rows(), cols);
    const std::uint16_t* values = values_to_send(production.tensor, entry.rows, cols);
    auto* codes = reinterpret_cast<std::uint8_t*>(piece.data() + entry.offset);
    EntryDigests digests(meta, entry.rows);

    const std::int64_t first_grid = entry.rows.begin / grid.tile_rows;
    const std::int64_t last_grid = (entry.rows.end - 1) / grid.tile_rows;
    const auto grid_cols = static_cast<std::size_t>(grid.grid_cols);
    amax_.assign(static_cast<std::size_t>(last_grid - first_grid + 1) * grid_cols, 0);
    scales_.resize(amax_.size());

    auto band_of = [&](std::int64_t begin, std::int64_t end) {
        return kernels::Band{
            values + (begin - entry.rows.begin) * cols, cols, begin, end - begin, meta.rows(), cols,
            last_element_bits(bucket, entry.parameter)};
    };
    auto encode_all = [&]() {
        const auto start = Clock::now();
        double hashing = 0.0;
        const kernels::StripeDone stripe_done = [&](std::int64_t begin, std::int64_t end) {
            const auto hash_start = Clock::now();
            digests.update(
                {begin, end},
                reinterpret_cast<const std::byte*>(codes + (begin - entry.rows.begin) * cols),
                cols);
            on_progress();
            hashing += seconds_since(hash_start);
        };
        std::int64_t row = entry.rows.begin;
        while (row < entry.rows.end) {
            const std::int64_t grid_row = row / grid.tile_rows;
            const auto word = static_cast<std::size_t>(grid_row - first_grid) * grid_cols;
            std::uint8_t* out = codes + (row - entry.rows.begin) * cols;
            const auto shared = shared_amax(bucket, entry.parameter, grid_row, grid.grid_cols);
            if (!shared.empty()) {
                // A tile that other trainers hold parts of: its amax came from the exchange.
                const std::int64_t end = std::min(entry.rows.end, (grid_row + 1) * grid.tile_rows);
                const auto amax = std::span(amax_).subspan(word, grid_cols);
                std::copy(shared.begin(), shared.end(), amax.begin());
                const std::uint32_t last = last_element_bits(bucket, entry.parameter);
                if (last != 0) {
                    for (std::size_t c = 0; c < grid_cols; ++c) {
                        const bool ragged =
                            (grid_row + 1) * grid.tile_rows > meta.rows() ||
                            (static_cast<std::int64_t>(c) + 1) * grid.tile_cols > cols;
                        if (ragged) amax[c] = std::max(amax[c], last);
                    }
                }
                backend_.scales(scaling, amax, std::span(scales_).subspan(word, grid_cols));
                backend_.encode(scaling, band_of(row, end), amax, out, cols, stripe_done);
                row = end;
                continue;
            }
            std::int64_t end = row;
            while (end < entry.rows.end &&
                   shared_amax(bucket, entry.parameter, end / grid.tile_rows, grid.grid_cols)
                       .empty()) {
                end = std::min(entry.rows.end, (end / grid.tile_rows + 1) * grid.tile_rows);
            }
            const auto words =
                static_cast<std::size_t>((end - 1) / grid.tile_rows - grid_row + 1) * grid_cols;
            backend_.quantize(scaling, band_of(row, end), std::span(amax_).subspan(word, words),
                              std::span(scales_).subspan(word, words), out, cols, stripe_done);
            row = end;
        }
        times.quantize_s += seconds_since(start) - hashing;
        times.pack_s += hashing;
    };

    encode_all();
    const bool nonfinite = std::any_of(amax_.begin(), amax_.end(),
                                       [](std::uint32_t bits) { return bits >= kInfBits; });
    if (nonfinite && payload_.nonfinite == Nonfinite::reject) {
        report_nonfinite(meta, values, entry.rows, cols, "weights");
        // A tile shared with another trainer may be non-finite through that trainer's rows alone:
        // it reports them.
        aborted_ = true;
    } else if (nonfinite && payload_.nonfinite == Nonfinite::propagate) {
        for (std::size_t i = 0; i < amax_.size(); ++i) {
            if (amax_[i] >= kInfBits) scales_[i] = std::numeric_limits<float>::quiet_NaN();
        }
    }
    digests.append_to(entry.parameter, digests_);

    // The scale entry of this piece holds the grid rows whose first weight row is this trainer's.
    const auto scale_parameter = static_cast<std::uint32_t>(production.scale);
    // The first scale of the tensor is that of its first row, wherever shards begin.
    if (entry.rows.begin == 0 && !faults_.scale_doubled.empty() &&
        weights::glob_match(faults_.scale_doubled, meta.name)) {
        scales_[0] *= 2.0F;
    }
    for (const wire::PieceEntry& scale : plan_.manifest.buckets[bucket].pieces[trainer_].entries) {
        if (scale.parameter != scale_parameter) continue;
        const wire::ParameterMeta& scale_meta = plan_.manifest.parameters[scale_parameter];
        std::byte* out = piece.data() + scale.offset;
        const float* from =
            scales_.data() + static_cast<std::size_t>(scale.rows.begin - first_grid) * grid_cols;
        const auto count = static_cast<std::size_t>(scale.rows.count()) * grid_cols;
        if (scale_meta.dtype == core::DType::f32) {
            std::memcpy(out, from, count * sizeof(float));
        } else {
            // Only a planted fault announces another dtype; the contract refuses it before anything
            // moves.
            std::memset(out, 0, scale.bytes);
        }
    }
}

void RefitPublisher::fill_raw(const wire::PieceEntry& entry, std::span<std::byte> piece,
                              const std::function<void()>& on_progress, PublishTimes& times) {
    const auto start = Clock::now();
    const wire::ParameterMeta& meta = plan_.manifest.parameters[entry.parameter];
    const Production& production = plan_.productions[entry.parameter];
    const std::int64_t cols = meta.cols();
    std::byte* out = piece.data() + entry.offset;
    EntryDigests digests(meta, entry.rows);
    const std::int64_t step =
        std::clamp<std::int64_t>(kRawChunkBytes / std::max<std::int64_t>(1, meta.row_bytes()), 1,
                                 std::max(kStripeRows, kRawChunkBytes));
    bool nonfinite = false;
    for (std::int64_t r = entry.rows.begin; r < entry.rows.end; r += step) {
        const std::int64_t end = std::min(entry.rows.end, r + step);
        const std::uint16_t* values = shard_.row(production.tensor, r);
        auto* to =
            reinterpret_cast<std::uint16_t*>(out + (r - entry.rows.begin) * meta.row_bytes());
        std::memcpy(to, values, static_cast<std::size_t>((end - r) * cols) * sizeof(std::uint16_t));
        if (payload_.nonfinite != Nonfinite::recipe &&
            backend_.max_abs_bits(to, (end - r) * cols) >= kInfBits) {
            nonfinite = true;
            if (payload_.nonfinite == Nonfinite::sanitize)
                std::transform(to, to + (end - r) * cols, to, sanitized);
        }
        digests.update({r, end}, reinterpret_cast<const std::byte*>(to), meta.row_bytes());
        on_progress();
    }
    if (nonfinite && payload_.nonfinite == Nonfinite::reject) {
        report_nonfinite(meta, shard_.row(production.tensor, entry.rows.begin), entry.rows, cols,
                         "weights");
    }
    digests.append_to(entry.parameter, digests_);
    times.pack_s += seconds_since(start);
}

void RefitPublisher::finish_scale(const wire::PieceEntry& entry, std::span<std::byte> piece) {
    const wire::ParameterMeta& meta = plan_.manifest.parameters[entry.parameter];
    EntryDigests digests(meta, entry.rows);
    digests.update(entry.rows, piece.data() + entry.offset, meta.row_bytes());
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
