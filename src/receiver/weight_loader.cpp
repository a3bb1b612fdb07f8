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
#include <set>
#include <tuple>
#include <utility>

#include "core/error.hpp"
#include "receiver/derived_weights.hpp"
#include "receiver/host_scales.hpp"
#include "wire/checksum.hpp"

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

/// Whether an element of `from` can be loaded into a parameter of `to`.
bool can_load(DType from, DType to) {
    if (from == to) return true;
    if (to == DType::f32) {
        return from == DType::bf16 || from == DType::f16 || from == DType::f8_e8m0 ||
               from == DType::u8;
    }
    return to == DType::bf16 && (from == DType::f32 || from == DType::f16);
}

/// The element (row, col) of the matrix view in the tensor's own dimensions.
std::vector<std::int64_t> index_of(const core::Shape& shape, std::int64_t row, std::int64_t col) {
    if (shape.empty()) return {};
    std::vector<std::int64_t> index(shape.size(), 0);
    index[0] = row;
    for (std::size_t i = shape.size(); i-- > 1;) {
        index[i] = col % shape[i];
        col /= shape[i];
    }
    return index;
}

std::string range_text(std::int64_t begin, std::int64_t end) {
    return "[" + std::to_string(begin) + ", " + std::to_string(end) + ")";
}

bool overlap(const core::Region& a, const core::Region& b) {
    return a.row < b.row + b.rows && b.row < a.row + a.rows && a.col < b.col + b.cols &&
           b.col < a.col + a.cols;
}

/// Row and column of the first element of `whole` that none of the disjoint `parts` covers.
std::optional<std::pair<std::int64_t, std::int64_t>> first_missing(
    const core::Region& whole, const std::vector<core::Region>& parts) {
    // The parts lie within the whole and apart from each other: their areas tell of a gap, and only
    // then is it looked for.
    std::int64_t area = 0;
    for (const core::Region& part : parts) area += part.rows * part.cols;
    if (area >= whole.rows * whole.cols) return std::nullopt;
    // Between two neighbouring boundaries all rows are alike.
    std::set<std::int64_t> boundaries = {whole.row};
    for (const core::Region& part : parts) {
        boundaries.insert(part.row);
        boundaries.insert(part.row + part.rows);
    }
    for (const std::int64_t row : boundaries) {
        if (row >= whole.row + whole.rows) break;
        std::map<std::int64_t, std::int64_t> ends;
        for (const core::Region& part : parts) {
            if (part.row <= row && row < part.row + part.rows) {
                ends.emplace(part.col, part.col + part.cols);
            }
        }
        std::int64_t reached = whole.col;
        for (const auto& [begin, end] : ends) {
            if (begin > reached) break;
            reached = end;
        }
        if (reached < whole.col + whole.cols) return std::pair{row, reached};
    }
    return std::nullopt;
}

/// Check, tensor and, where a parameter is made of several tensors, cell of what has a finding.
using Reported = std::set<std::tuple<std::string, std::string, std::uint32_t>>;

}  // namespace

// LoadedParameters
// -----------------------------------------------------------------------------------------------------

LoadedParameters::LoadedParameters(const ContractInstance& instance) {
    std::size_t offset = 0;
    for (const DestinationParameter& parameter : instance.destinations) {
        const auto bytes = static_cast<std::size_t>(core::element_count(parameter.shape) *
                                                    core::size_bytes(parameter.dtype));
        ranges_.emplace_back(offset, bytes);
        offset +=
            (bytes + kDestinationAlignment - 1) / kDestinationAlignment * kDestinationAlignment;
    }
    memory_ = core::AlignedBuffer(offset);
}

std::span<std::byte> LoadedParameters::bytes(std::size_t destination) {
    const auto& [offset, size] = ranges_.at(destination);
    return memory_.span().subspan(offset, size);
}

std::span<const std::byte> LoadedParameters::bytes(std::size_t destination) const {
    const auto& [offset, size] = ranges_.at(destination);
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
    std::uint64_t sum = 0;
    for (const auto& [offset, size] : ranges_) sum += size;
    return sum;
}

// WeightLoader
// ---------------------------------------------------------------------------------------------------------

struct WeightLoader::State {
    /// What this rank does with one parameter of the manifest.
    struct Plan {
        bool is_scale = false;
        bool skip = false;
        bool flip = false;
        std::vector<std::size_t> spans;  ///< indexes into the spans of this rank
    };
    /// One non-finite or non-positive scale, the first of a cell.
    struct BadScale {
        std::int64_t row = 0;
        std::int64_t col = 0;
        float value = 0.0F;
        std::int64_t count = 0;
    };

    const ContractInstance& instance;
    const std::vector<LoadSpan>& spans;
    std::vector<LoadedParameters> copies;
    std::size_t visible = 0;
    DerivedWeights derived;
    HostScales host;
    bool has_derived = false;
    std::vector<Plan> plans;                         ///< by parameter of the manifest
    std::vector<std::vector<core::Region>> written;  ///< by span, disjoint rectangles
    wire::DigestStream digest;
    Reported reported;
    std::uint64_t pending = 0;
    bool begun = false;
    bool finished = false;
    bool failed = false;
    bool flipped = false;
    std::uint64_t loaded_bytes = 0;
    std::int64_t since_progress = 0;

    State(const ContractInstance& contract, const wire::RefitManifest& manifest, std::size_t rank,
          CommitMode mode, const LoadFaults& faults, const std::function<void()>& on_progress)
        : instance(contract),
          spans(contract.spans.at(rank)),
          derived(contract),
          host(contract),
          written(spans.size()) {
        const std::size_t count = mode == CommitMode::staged ? 2 : 1;
        for (std::size_t i = 0; i < count; ++i) {
            copies.emplace_back(contract);
            copies.back().poison(contract, on_progress);
        }
        std::map<std::string, std::vector<std::size_t>> spans_of;
        for (std::size_t i = 0; i < spans.size(); ++i) {
            spans_of[contract.wanted[spans[i].wanted].name].push_back(i);
        }
        for (const wire::ParameterMeta& meta : manifest.parameters) {
            Plan plan;
            const std::string& name = contract.canonical(meta.name);
            const auto it = spans_of.find(name);
            if (it != spans_of.end()) {
                const wire::WantedParameter& wanted =
                    contract.wanted[spans[it->second.front()].wanted];
                const DestinationParameter& target =
                    contract.destinations[spans[it->second.front()].destination];
                plan.is_scale = target.is_scale;
                plan.skip = faults.skip_tensors.contains(name);
                plan.flip = faults.flip_tensors.contains(name);
                // A parameter that does not fit has its finding from check_manifest; here it stays
                // unloaded, so that no byte of it is ever taken for something else.
                const bool fits = meta.rows() == core::matrix_rows(wanted.shape) &&
                                  meta.cols() == core::matrix_cols(wanted.shape) &&
                                  meta.row_cuts == wanted.row_cuts &&
                                  meta.col_cuts == wanted.col_cuts &&
                                  can_load(meta.dtype, target.dtype);
                if (fits) plan.spans = it->second;
            }
            plans.push_back(std::move(plan));
        }
    }

    LoadedParameters& target() { return copies[copies.size() == 1 ? 0 : 1 - visible]; }
};

WeightLoader::WeightLoader(const ContractInstance& instance, const wire::RefitManifest& manifest,
                           int tp_rank, CommitMode mode, LoadFaults faults,
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
    state_ = std::make_shared<State>(instance, manifest, static_cast<std::size_t>(tp_rank), mode,
                                     faults_, on_progress);
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
    state.target().poison(instance_, on_progress);
}

namespace {

/// Collects findings, one a check and tensor; of an engine's own parameters one a check and cell,
/// which is a part of one tensor.
struct Reporter {
    core::Findings& findings;
    Reported& reported;
    bool& failed;
    bool by_cell = false;
    std::uint32_t cell = 0;

    void error(const std::string& check, const std::string& tensor, std::vector<std::int64_t> index,
               const std::string& measured, const std::string& limit, const std::string& message,
               const std::string& remedy) {
        failed = true;
        if (!reported.emplace(check, tensor, by_cell ? cell : 0).second) return;
        core::Finding finding;
        finding.check = check;
        finding.tensor = tensor;
        finding.index = std::move(index);
        finding.measured = measured;
        finding.limit = limit;
        finding.remedy = remedy;
        finding.message =
            (tensor.empty() ? std::string() : tensor + ": ") + message + "; " + remedy;
        findings.push_back(std::move(finding));
    }
};

}  // namespace

void WeightLoader::load_piece(std::uint32_t bucket, std::uint32_t trainer,
                              std::span<const std::byte> piece,
                              const std::function<void()>& on_progress, LoadTimes& times) {
    State& state = *state_;
    if (!state.begun || bucket >= manifest_.buckets.size() ||
        trainer >= manifest_.buckets[bucket].pieces.size()) {
        throw core::ShapeError(
            "weight loader: bucket " + std::to_string(bucket) + " of trainer " +
            std::to_string(trainer) +
            " came outside of a refit or is not in the manifest; call begin first");
    }
    const wire::PiecePlan& plan = manifest_.buckets[bucket].pieces[trainer];
    if (plan.entries.empty() && piece.empty()) return;
    Reporter report{findings_, state.reported, state.failed, instance_.own_format};
    const std::string place =
        "bucket " + std::to_string(bucket) + " of trainer " + std::to_string(trainer);
    const std::string first_tensor =
        plan.entries.empty() ? std::string()
                             : manifest_.parameters[plan.entries.front().parameter].name;
    Clock::time_point now = Clock::now();

    if (piece.size() >= sizeof(wire::PieceHeader)) {
        wire::PieceHeader header;
        std::memcpy(&header, piece.data(), sizeof header);
        if (header.magic == wire::kPieceMagic && header.version != state.pending) {
            report.error("version", first_tensor, {}, std::to_string(header.version),
                         std::to_string(state.pending), place + " belongs to another refit",
                         "send every bucket again for each refit");
            return;
        }
    }
    std::optional<wire::PieceView> view;
    try {
        view.emplace(manifest_, bucket, trainer, state.pending, piece);
    } catch (const core::Error& error) {
        report.error("digest", first_tensor, {}, "a damaged piece header",
                     "the header of the manifest", error.what(), "check the transport");
        return;
    }
    if (view->aborted()) {
        report.error("completeness", "", {}, "aborted", "complete",
                     place + " was aborted by its trainer",
                     "see the trainer's own finding; nothing of this refit is used");
        return;
    }

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
    LoadedParameters& target = state.target();
    for (std::size_t i = 0; i < instance_.destinations.size(); ++i) {
        const DestinationParameter& parameter = instance_.destinations[i];
        if (parameter.padding_rows == 0) continue;
        const std::span<std::byte> bytes = target.bytes(i);
        const auto from = static_cast<std::size_t>(covered[i] * parameter.cols() *
                                                   core::size_bytes(parameter.dtype));
        if (from < bytes.size()) std::memset(bytes.data() + from, 0, bytes.size() - from);
    }
    state.finished = true;
}

bool WeightLoader::commit(bool allowed) {
    State& state = *state_;
    if (!allowed || !state.begun || !state.finished || state.failed) return false;
    state.begun = false;
    if (faults_.forget_commit) return true;
    if (mode_ == CommitMode::staged) state.visible = 1 - state.visible;
    if (!faults_.stale_derived || !state.has_derived) {
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
