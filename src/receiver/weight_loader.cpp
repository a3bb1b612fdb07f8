// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/weight_loader.hpp"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "core/error.hpp"
#include "receiver/loader_state.hpp"

namespace refit::receiver {
namespace {

using Clock = std::chrono::steady_clock;
using core::DType;

/// Copied and hashed at a time, small enough to stay in the cache between the two.
constexpr std::int64_t kStripeBytes = 128 * 1024;
constexpr std::int64_t kProgressBytes = 512 * 1024;
constexpr std::size_t kDestinationAlignment = 64;
constexpr std::size_t kPoisonStep_bytes = std::size_t{16} << 20;

double seconds(Clock::time_point from, Clock::time_point to) {
    return std::chrono::duration<double>(to - from).count();
}

float half_value(std::uint16_t bits) {
    const int exponent = (bits >> 10) & 0x1F;
    const int mantissa = bits & 0x3FF;
    const float sign = (bits & 0x8000) != 0 ? -1.0F : 1.0F;
    if (exponent == 0x1F) {
        return mantissa != 0 ? std::numeric_limits<float>::quiet_NaN()
                             : sign * std::numeric_limits<float>::infinity();
    }
    if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
    return sign * std::ldexp(static_cast<float>(mantissa + 0x400), exponent - 25);
}

/// One wire element as F32; exact for all types. Bytes are exponents of E8M0, 255 is NaN.
float read_value(const std::byte* at, DType dtype) {
    if (dtype == DType::f8_e8m0 || dtype == DType::u8) {
        const auto code = std::to_integer<int>(*at);
        return code == 255 ? std::numeric_limits<float>::quiet_NaN() : std::ldexp(1.0F, code - 127);
    }
    if (dtype == DType::f32) {
        float value;
        std::memcpy(&value, at, sizeof value);
        return value;
    }
    std::uint16_t bits;
    std::memcpy(&bits, at, sizeof bits);
    if (dtype == DType::f16) return half_value(bits);
    return std::bit_cast<float>(std::uint32_t{bits} << 16);
}

/// To nearest, ties to even; NaN stays NaN.
std::uint16_t bf16_bits(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if (std::isnan(value)) return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
    return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

void write_value(std::byte* at, DType dtype, float value) {
    if (dtype == DType::f32) {
        std::memcpy(at, &value, sizeof value);
    } else {
        const std::uint16_t bits = bf16_bits(value);
        std::memcpy(at, &bits, sizeof bits);
    }
}

}  // namespace

// LoadedParameters
// -----------------------------------------------------------------------------------------------------

DestinationPlaces::DestinationPlaces(const ContractInstance& instance) {
    for (const DestinationParameter& parameter : instance.destinations) {
        const auto bytes = static_cast<std::size_t>(core::element_count(parameter.shape) *
                                                    core::size_bytes(parameter.dtype));
        ranges_.push_back({total_, bytes});
        total_ +=
            (bytes + kDestinationAlignment - 1) / kDestinationAlignment * kDestinationAlignment;
    }
}

std::uint64_t DestinationPlaces::used_bytes() const {
    std::uint64_t sum = 0;
    for (const Range& range : ranges_) sum += range.bytes;
    return sum;
}

LoadedParameters::LoadedParameters(const ContractInstance& instance)
    : places_(instance), memory_(places_.total_bytes()) {}

std::span<std::byte> LoadedParameters::bytes(std::size_t destination) {
    const auto [offset, size] = places_.range(destination);
    return memory_.span().subspan(offset, size);
}

std::span<const std::byte> LoadedParameters::bytes(std::size_t destination) const {
    const auto [offset, size] = places_.range(destination);
    return memory_.span().subspan(offset, size);
}

void LoadedParameters::poison(const ContractInstance& instance,
                              const std::function<void()>& on_progress) {
    for (std::size_t at = 0; at < memory_.size(); at += kPoisonStep_bytes) {
        std::memset(memory_.data() + at, 0xFF, std::min(kPoisonStep_bytes, memory_.size() - at));
        if (on_progress) on_progress();
    }
    for (std::size_t i = 0; i < instance.destinations.size(); ++i) {
        if (!instance.destinations[i].is_scale) continue;
        const std::span<std::byte> range = bytes(i);
        for (std::size_t at = 0; at + sizeof(float) <= range.size(); at += sizeof(float)) {
            write_value(range.data() + at, DType::f32, std::numeric_limits<float>::lowest());
        }
    }
}

std::uint64_t LoadedParameters::size_bytes() const {
    return places_.used_bytes();
}

// WeightLoader
// ---------------------------------------------------------------------------------------------------------

WeightLoader::WeightLoader(const ContractInstance& instance, const wire::RefitManifest& manifest,
                           int tp_rank, CommitMode mode, LoadFaults faults,
                           const std::function<void()>& on_progress)
    : WeightLoader(instance, manifest, tp_rank, mode, std::move(faults),
                   mode == CommitMode::staged ? 2 : 1, on_progress) {}

WeightLoader::WeightLoader(const ContractInstance& instance, const wire::RefitManifest& manifest,
                           int tp_rank, CommitMode mode, LoadFaults faults, std::size_t host_copies,
                           const std::function<void()>& on_progress)
    : instance_(instance),
      manifest_(manifest),
      tp_rank_(tp_rank),
      mode_(mode),
      faults_(std::move(faults)) {
    if (tp_rank < 0 || tp_rank >= instance.tp) {
        throw core::ShapeError("weight loader of " + instance.engine + ": TP rank " +
                               std::to_string(tp_rank) + " was asked for, expected 0 to " +
                               std::to_string(instance.tp - 1));
    }
    state_ = std::make_shared<State>(instance, manifest, static_cast<std::size_t>(tp_rank),
                                     host_copies, faults_, on_progress);
}

void WeightLoader::begin(std::uint64_t version, const std::function<void()>& on_progress) {
    State& state = *state_;
    findings_.clear();
    state.reported.clear();
    for (auto& ranges : state.written) ranges.clear();
    state.pending = version;
    state.begun = true;
    state.finished = false;
    state.failed = false;
    state.flipped = false;
    state.loaded_bytes = 0;
    state.since_progress = 0;
    if (mode_ == CommitMode::in_place) torn_ = true;
    poison(on_progress);
}

void WeightLoader::poison(const std::function<void()>& on_progress) {
    state_->target().poison(instance_, on_progress);
}

void WeightLoader::zero_padding(std::size_t destination, std::size_t from) {
    const std::span<std::byte> bytes = state_->target().bytes(destination);
    if (from < bytes.size()) std::memset(bytes.data() + from, 0, bytes.size() - from);
}

const wire::PiecePlan& WeightLoader::plan_of(std::uint32_t bucket, std::uint32_t trainer) const {
    if (!state_->begun || bucket >= manifest_.buckets.size() ||
        trainer >= manifest_.buckets[bucket].pieces.size()) {
        throw core::ShapeError(
            "weight loader: bucket " + std::to_string(bucket) + " of trainer " +
            std::to_string(trainer) +
            " came outside of a refit or is not in the manifest; call begin first");
    }
    return manifest_.buckets[bucket].pieces[trainer];
}

std::optional<wire::PieceView> WeightLoader::opened(std::uint32_t bucket, std::uint32_t trainer,
                                                    std::span<const std::byte> bytes,
                                                    std::size_t piece_bytes) {
    State& state = *state_;
    Reporter report{findings_, state.reported, state.failed, instance_.own_format};
    const wire::PiecePlan& plan = plan_of(bucket, trainer);
    const std::string place =
        "bucket " + std::to_string(bucket) + " of trainer " + std::to_string(trainer);
    const std::string first_tensor =
        plan.entries.empty() ? std::string()
                             : manifest_.parameters[plan.entries.front().parameter].name;
    if (bytes.size() >= sizeof(wire::PieceHeader)) {
        wire::PieceHeader header;
        std::memcpy(&header, bytes.data(), sizeof header);
        if (header.magic == wire::kPieceMagic && header.version != state.pending) {
            report.error("version", first_tensor, {}, std::to_string(header.version),
                         std::to_string(state.pending), place + " belongs to another refit",
                         "send every bucket again for each refit");
            return std::nullopt;
        }
    }
    std::optional<wire::PieceView> view;
    try {
        view.emplace(manifest_, bucket, trainer, state.pending, bytes, piece_bytes);
    } catch (const core::Error& error) {
        report.error("digest", first_tensor, {}, "a damaged piece header",
                     "the header of the manifest", error.what(), "check the transport");
        return std::nullopt;
    }
    if (view->aborted()) {
        report.error("completeness", "", {}, "aborted", "complete",
                     place + " was aborted by its trainer",
                     "see the trainer's own finding; nothing of this refit is used");
        return std::nullopt;
    }
    return view;
}

void WeightLoader::load_piece(std::uint32_t bucket, std::uint32_t trainer,
                              std::span<const std::byte> piece,
                              const std::function<void()>& on_progress, LoadTimes& times) {
    State& state = *state_;
    const wire::PiecePlan& plan = plan_of(bucket, trainer);
    if (plan.entries.empty() && piece.empty()) return;
    Reporter report{findings_, state.reported, state.failed, instance_.own_format};
    const std::string place =
        "bucket " + std::to_string(bucket) + " of trainer " + std::to_string(trainer);
    Clock::time_point now = Clock::now();
    const std::optional<wire::PieceView> view = opened(bucket, trainer, piece, piece.size());
    if (!view) return;

    LoadedParameters& target = state.target();
    std::size_t next_digest = 0;
    for (const wire::PieceEntry& entry : plan.entries) {
        const wire::ParameterMeta& meta = manifest_.parameters[entry.parameter];
        const State::Plan& work = state.plans[entry.parameter];
        const core::Region sent = entry.region(meta);
        const std::vector<wire::Cell> cells = wire::cells_in_region(meta, sent);
        const std::size_t first_digest = next_digest;
        next_digest += cells.size();
        if (work.spans.empty()) continue;
        const std::span<const std::byte> bytes = view->entry(entry);
        const std::int64_t wire_size = core::size_bytes(meta.dtype);
        const std::int64_t row_bytes = sent.cols * wire_size;

        for (std::size_t k = 0; k < cells.size(); ++k) {
            const wire::Cell& cell = cells[k];
            report.cell = cell.index;
            const wire::DigestRecord& record = view->digests()[first_digest + k];
            for (const std::size_t span_index : work.spans) {
                const LoadSpan& span = state.spans[span_index];
                if (span.cell != cell.index) continue;
                const DestinationParameter& parameter = instance_.destinations[span.destination];
                const std::int64_t element = core::size_bytes(parameter.dtype);
                const std::int64_t dest_row_bytes = parameter.cols() * element;
                const core::RowRange rows{cell.region.row, cell.region.row + cell.region.rows};

                std::vector<core::Region>& written = state.written[span_index];
                const bool repeated = std::any_of(
                    written.begin(), written.end(),
                    [&](const core::Region& other) { return overlap(cell.region, other); });
                if (repeated) {
                    report.error(
                        "completeness", meta.name,
                        index_of(meta.shape, rows.begin, cell.region.col),
                        "rows " + range_text(rows.begin, rows.end) + " twice", "each row once",
                        "rows " + range_text(rows.begin, rows.end) + " came again in " + place,
                        "send each row of a tensor once a refit");
                    continue;
                }
                const bool copies = !state.failed && !work.skip;
                if (copies) written.push_back(cell.region);

                const bool converts = meta.dtype != parameter.dtype;
                const bool by_value = converts || work.is_scale;
                const std::int64_t width = cell.region.cols * wire_size;
                const std::byte* source = bytes.data() +
                                          (rows.begin - entry.rows.begin) * row_bytes +
                                          (cell.region.col - sent.col) * wire_size;
                std::byte* dest = target.bytes(span.destination).data() +
                                  (span.dest_row + rows.begin - span.source.row) * dest_row_bytes +
                                  (span.dest_col + cell.region.col - span.source.col) * element;
                std::byte* const first_dest = dest;
                const bool source_whole = width == row_bytes;
                const bool dest_whole = cell.region.cols * element == dest_row_bytes;
                // The copy is hashed where it is contiguous and the source is not: one call a
                // stripe instead of one a row.
                const bool hash_copy = copies && !by_value && dest_whole && !source_whole;
                const std::int64_t stripe =
                    std::max<std::int64_t>(1, kStripeBytes / std::max<std::int64_t>(1, width));
                State::BadScale bad;

                state.digest.reset();
                for (std::int64_t row = 0; row < cell.region.rows; row += stripe) {
                    const std::int64_t count = std::min(stripe, cell.region.rows - row);
                    if (by_value) {
                        for (std::int64_t r = 0; r < count; ++r) {
                            for (std::int64_t c = 0; c < cell.region.cols; ++c) {
                                const float value =
                                    read_value(source + r * row_bytes + c * wire_size, meta.dtype);
                                if (work.is_scale && !(std::isfinite(value) && value > 0.0F)) {
                                    if (bad.count++ == 0) {
                                        bad.row = rows.begin + row + r;
                                        bad.col = cell.region.col + c;
                                        bad.value = value;
                                    }
                                }
                                if (copies) {
                                    write_value(dest + r * dest_row_bytes + c * element,
                                                parameter.dtype, value);
                                }
                            }
                        }
                    } else if (copies && source_whole && dest_whole) {
                        std::memcpy(dest, source, static_cast<std::size_t>(count * width));
                    } else if (copies) {
                        for (std::int64_t r = 0; r < count; ++r) {
                            std::memcpy(dest + r * dest_row_bytes, source + r * row_bytes,
                                        static_cast<std::size_t>(width));
                        }
                    }
                    const Clock::time_point copied = Clock::now();
                    times.load_s += seconds(now, copied);
                    if (hash_copy) {
                        state.digest.update(dest, static_cast<std::size_t>(count * width));
                    } else if (source_whole) {
                        state.digest.update(source, static_cast<std::size_t>(count * width));
                    } else {
                        for (std::int64_t r = 0; r < count; ++r) {
                            state.digest.update(source + r * row_bytes,
                                                static_cast<std::size_t>(width));
                        }
                    }
                    source += count * row_bytes;
                    dest += count * dest_row_bytes;
                    now = Clock::now();
                    times.check_s += seconds(copied, now);
                    state.since_progress += count * width;
                    if (state.since_progress >= kProgressBytes) {
                        state.since_progress = 0;
                        if (on_progress) on_progress();
                        // What the callback takes belongs to neither figure.
                        now = Clock::now();
                    }
                }
                if (copies) {
                    state.loaded_bytes += static_cast<std::uint64_t>(
                        cell.region.rows * cell.region.cols * (wire_size + element));
                }
                const wire::Digest found = state.digest.value();
                if (record.parameter != entry.parameter || record.cell != cell.index ||
                    !(record.digest == found)) {
                    report.error(
                        "digest", meta.name, index_of(meta.shape, rows.begin, cell.region.col),
                        wire::to_string(found), wire::to_string(record.digest),
                        "the bytes of rows " + range_text(rows.begin, rows.end) + ", columns " +
                            range_text(cell.region.col, cell.region.col + cell.region.cols) +
                            " that came in " + place + " have digest " + wire::to_string(found) +
                            ", the trainer sent " + wire::to_string(record.digest),
                        "check the transport and the sender's buffers");
                } else if (bad.count > 0) {
                    report.error("nonfinite", meta.name, index_of(meta.shape, bad.row, bad.col),
                                 std::to_string(bad.value), "finite and above 0",
                                 std::to_string(bad.count) + " of the scales in " + place +
                                     " are not usable, the first is " + std::to_string(bad.value),
                                 "repair the quantizer or its input");
                }
                if (work.flip && copies && !state.flipped) {
                    // The planted bit is in the most significant byte of the first element, where
                    // every kind of element changes by more than a rounding.
                    state.flipped = true;
                    first_dest[element - 1] ^= std::byte{0x10};
                }
            }
        }
    }
}

void WeightLoader::finish_stream() {
    State& state = *state_;
    if (!state.begun) {
        throw core::ShapeError("weight loader: finish_stream without begin; begin a refit first");
    }
    Reporter report{findings_, state.reported, state.failed, instance_.own_format};
    std::vector<std::int64_t> covered(instance_.destinations.size(), 0);
    // An index is told in the checkpoint's tensor; these rows are not.
    const std::string of_what = instance_.own_format ? " of the parameter" : "";
    const bool was_failed = state.failed;
    for (std::size_t i = 0; i < state.spans.size(); ++i) {
        const LoadSpan& span = state.spans[i];
        covered[span.destination] =
            std::max(covered[span.destination], span.dest_row + span.source.rows);
        // After an error nothing more is copied, so that gaps say nothing about the stream.
        if (was_failed) continue;
        const std::optional<std::pair<std::int64_t, std::int64_t>> missing =
            first_missing(span.source, state.written[i]);
        if (!missing) continue;
        const auto& [reached, column] = *missing;
        const std::int64_t end = span.source.row + span.source.rows;
        const wire::WantedParameter& wanted = instance_.wanted[span.wanted];
        report.cell = span.cell;
        report.error("completeness", wanted.name, index_of(wanted.shape, reached, column),
                     "row " + std::to_string(reached) + of_what + " never came",
                     "rows " + range_text(span.source.row, end) + of_what,
                     "TP rank " + std::to_string(tp_rank_) + " wants rows " +
                         range_text(span.source.row, end) + ", and row " + std::to_string(reached) +
                         " is the first that never came",
                     "send every row of every tensor in each refit");
    }
    for (std::size_t i = 0; i < instance_.destinations.size(); ++i) {
        const DestinationParameter& parameter = instance_.destinations[i];
        if (parameter.padding_rows == 0) continue;
        zero_padding(i, static_cast<std::size_t>(covered[i] * parameter.cols() *
                                                 core::size_bytes(parameter.dtype)));
    }
    state.finished = true;
}

bool WeightLoader::commit(bool allowed) {
    State& state = *state_;
    if (!allowed || !state.begun || !state.finished || state.failed) return false;
    state.begun = false;
    if (faults_.forget_commit) return true;
    if (mode_ == CommitMode::staged) state.visible = 1 - state.visible;
    const bool derives = !instance_.latent.empty() || !state.host.copies().empty();
    if (derives && (!faults_.stale_derived || !state.has_derived)) {
        state.derived.update(loaded());
        state.host.update(loaded());
    }
    state.has_derived = true;
    version_ = state.pending;
    torn_ = false;
    return true;
}

const LoadedParameters& WeightLoader::loaded() const {
    return state_->copies[state_->visible];
}

const void* WeightLoader::address() const {
    return loaded().bytes(0).data();
}

const DerivedWeights& WeightLoader::derived() const {
    return state_->derived;
}

const HostScales& WeightLoader::host_scales() const {
    return state_->host;
}

std::uint64_t WeightLoader::loaded_bytes() const {
    return state_->loaded_bytes;
}

}  // namespace refit::receiver
