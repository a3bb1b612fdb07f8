// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/audit.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>

#include "checks/cache_scale_audit.hpp"
#include "checks/decode.hpp"
#include "checks/element_walk.hpp"
#include "checks/fault_log.hpp"
#include "checks/layer_output.hpp"
#include "checks/loaded_part.hpp"
#include "checks/source_tiles.hpp"
#include "checks/unwritten_gaps.hpp"
#include "core/error.hpp"

namespace refit::checks {

namespace {

using receiver::ContractInstance;
using receiver::Granularity;
using receiver::LoadSpan;

/// Rows of a tile that are looked at together.
constexpr std::int64_t kRowsAtOnce = 8;

/// What every step of the audit reads.
struct Scene {
    const ContractInstance& instance;
    const std::vector<LoadSpan>& spans;  ///< of this rank
    const receiver::LoadedParameters& loaded;
    const weights::WeightSource& source;
    const SchemeFacts& facts;
    const std::set<std::string>& enabled;
    int rank;
    const std::function<void()>& on_progress;
    std::map<std::string, std::vector<std::size_t>> spans_of;  ///< wanted name -> indices of spans
};

std::string number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value > 0 ? "Inf" : "-Inf";
    return fmt::format("{:.9g}", value);
}

const std::vector<std::size_t>& spans_of(const Scene& scene, const std::string& name) {
    static const std::vector<std::size_t> kNone;
    const auto found = scene.spans_of.find(name);
    return found == scene.spans_of.end() ? kNone : found->second;
}

void append_digests(const Scene& scene, const std::string& name, AuditResult& result) {
    for (const std::size_t index : spans_of(scene, name)) {
        const LoadSpan& span = scene.spans[index];
        const DestinationView view(scene.instance, scene.loaded, span.destination);
        view.require_inside(span);
        const core::Region& part = span.source;
        result.digests.push_back(
            {fmt::format("{}|{},{},{},{}", name, part.row, part.col, part.rows, part.cols),
             part_digest(view, span, scene.on_progress)});
    }
}

/// What is wrong with a scale by itself, and whether an enabled check asks for it.
std::optional<Cause> fault_of_scale(double value, core::DType dtype, const FaultLog& log) {
    if (is_scale_poison(dtype, value) && log.asks(Cause::scale_unwritten)) {
        return Cause::scale_unwritten;
    }
    const bool usable = std::isfinite(value) && value > 0.0;
    if (!usable && log.asks(Cause::scale_nonfinite)) return Cause::scale_nonfinite;
    return std::nullopt;
}

void count_codes(const std::uint8_t* codes, std::int64_t count, std::int64_t* histogram) {
    for (std::int64_t i = 0; i < count; ++i) ++histogram[codes[i]];
}

/// Bin of a scale in the histogram; a scale that is not a positive number has none.
void count_scale(double value, std::map<int, std::int64_t>& bins) {
    if (!std::isfinite(value) || value <= 0.0) return;
    ++bins[static_cast<int>(std::floor(kScaleBinsPerOctave * std::log2(value)))];
}

void audit_scale_spans(const Scene& scene, const std::string& name, TensorAudit& audit,
                       FaultLog& log) {
    for (const std::size_t index : spans_of(scene, name)) {
        const LoadSpan& span = scene.spans[index];
        const core::Shape& shape = scene.instance.wanted[span.wanted].shape;
        const DestinationView view(scene.instance, scene.loaded, span.destination);
        view.require_inside(span);
        for (std::int64_t r = 0; r < span.source.rows; ++r) {
            for (std::int64_t c = 0; c < span.source.cols; ++c) {
                const double value = view.scale_value(span.dest_row + r, span.dest_col + c);
                count_scale(value, audit.scales);
                const std::optional<Cause> cause =
                    fault_of_scale(value, view.parameter().dtype, log);
                if (!cause || !log.count(*cause)) continue;
                log.describe(*cause, global_index(shape, span.source.row + r, span.source.col + c),
                             number(value), "a finite scale above 0");
            }
        }
        scene.on_progress();
    }
}

/// The audit of one part of a quantized weight.
class QuantizedPart {
 public:
    QuantizedPart(const Scene& scene, const model::TensorSpec& tensor, const LoadSpan& span,
                  const EngineScales& scales, bool scales_reported, TensorAudit& audit,
                  FaultLog& log)
        : scene_(scene),
          tensor_(tensor),
          span_(span),
          view_(scene.instance, scene.loaded, span.destination),
          scales_(scales),
          scales_reported_(scales_reported),
          audit_(audit),
          log_(log) {
        view_.require_inside(span);
        if (scene.enabled.count("layer_output") != 0) {
            output_.emplace(tensor.name, core::matrix_rows(tensor.shape), span.source, scene.facts);
        }
    }

    void run(const TileMaximum& whole) {
        const core::Region& part = span_.source;
        SourceTiles tiles(tensor_, scene_.source, scene_.facts, part, whole);
        const std::int64_t part_end = part.row + part.rows;
        for (std::int64_t stripe = tiles.first_row(); stripe < part_end;
             stripe += tiles.stripe_rows()) {
            tiles.read(stripe);
            const std::int64_t end = std::min(stripe + tiles.stripe_rows(), part_end);
            for (std::int64_t row = std::max(stripe, part.row); row < end;) {
                const std::int64_t rows =
                    std::min({end, tiles.tile_end_row(row), row + kRowsAtOnce}) - row;
                walk_together(tiles, row, rows);
                for (const std::int64_t last = row + rows; row < last; ++row) {
                    walk_row(tiles, row);
                }
            }
            scene_.on_progress();
        }
    }

 private:
    /// A stretch of one row within a tile of the source and of the engine.
    Segment segment_at(SourceTiles& tiles, std::int64_t row, std::int64_t col) {
        const core::Region& part = span_.source;
        const std::int64_t dest_row = span_.dest_row + row - part.row;
        const std::int64_t dest_col = span_.dest_col + col - part.col;
        Segment segment;
        segment.source = tiles.at(row, col);
        segment.codes = reinterpret_cast<const std::uint8_t*>(view_.at(dest_row, dest_col));
        segment.count = std::min({part.col + part.cols, tiles.tile_end(col),
                                  col + scales_.same_scale_columns(dest_col)}) -
                        col;
        segment.loaded_scale = scales_.at(dest_row, dest_col);
        segment.own_scale = tiles.scale(row, col);
        if (scene_.facts.divide_by_bf16_scale) segment.divisor = nearest_bf16(segment.own_scale);
        segment.round_quotient_to_bf16 = scene_.facts.round_quotient_to_bf16;
        segment.source_finite = tiles.finite(row, col);
        if (!segment.round_quotient_to_bf16) {
            segment.nearest = tiles.nearest(row, col, segment.loaded_scale);
        }
        return segment;
    }

    /// Rows of one row of tiles, stretch by stretch; `together_` tells which are done.
    void walk_together(SourceTiles& tiles, std::int64_t row, std::int64_t rows) {
        together_.clear();
        if (rows < 2) return;
        const core::Region& part = span_.source;
        const std::int64_t dest_row = span_.dest_row + row - part.row;
        for (std::int64_t col = part.col; col < part.col + part.cols;) {
            const Segment segment = segment_at(tiles, row, col);
            bool same_scale = true;
            for (std::int64_t r = 1; r < rows && same_scale; ++r) {
                same_scale = scales_.at(dest_row + r, span_.dest_col + col - part.col) ==
                             segment.loaded_scale;
            }
            const SegmentRows all{rows, tiles.row_stride(), view_.cols()};
            const bool done = same_scale && walk_rows(segment, all, scene_.facts.slack, audit_);
            together_.push_back(done ? 1 : 0);
            col += segment.count;
        }
    }

    void walk_row(SourceTiles& tiles, std::int64_t row) {
        const core::Region& part = span_.source;
        const std::int64_t end = part.col + part.cols;
        const bool with_output = output_ && output_->takes(row);
        std::size_t index = 0;
        for (std::int64_t col = part.col; col < end; ++index) {
            const Segment segment = segment_at(tiles, row, col);
            if (index >= together_.size() || together_[index] == 0) {
                walk_segment(segment, scene_.facts.slack, audit_, beyond_, nonfinite_);
                if (!beyond_.empty() || !nonfinite_.empty()) report(segment, row, col);
            }
            count_codes(segment.codes, segment.count, audit_.codes.data());
            if (with_output) output_->add(segment, col);
            col += segment.count;
        }
        if (with_output) output_->finish_row(audit_.output);
    }

    void report(const Segment& segment, std::int64_t row, std::int64_t col) {
        for (const std::int64_t i : nonfinite_) {
            if (log_.count(Cause::source_nonfinite)) {
                log_.describe(Cause::source_nonfinite, global_index(tensor_.shape, row, col + i),
                              number(decode_bf16(segment.source[i])), "a finite value");
            }
            if (segment.codes[i] == 0xffU && log_.asks(Cause::value_unwritten)) {
                count_code(Cause::value_unwritten, segment, i, row, col);
            }
        }
        for (const std::int64_t i : beyond_) {
            const Cause cause = cause_of(segment.codes[i]);
            const bool counted_at_scale =
                cause == Cause::beyond_bound && scales_reported_ &&
                fault_of_scale(segment.loaded_scale, scales_.view().parameter().dtype, log_);
            if (!counted_at_scale) count_code(cause, segment, i, row, col);
        }
    }

    [[nodiscard]] Cause cause_of(std::uint8_t code) const {
        if (code == 0xffU && log_.asks(Cause::value_unwritten)) return Cause::value_unwritten;
        if ((code & 0x7fU) == 0x7fU && log_.asks(Cause::value_nonfinite)) {
            return Cause::value_nonfinite;
        }
        return Cause::beyond_bound;
    }

    void count_code(Cause cause, const Segment& segment, std::int64_t i, std::int64_t row,
                    std::int64_t col) {
        if (!log_.count(cause)) return;
        const double x = decode_bf16(segment.source[i]);
        const double decoded = decode_e4m3(segment.codes[i]) * segment.loaded_scale;
        const std::string code = fmt::format("code 0x{:02x}", segment.codes[i]);
        std::string measured = code;
        std::string limit = fmt::format("a finite code for {}", number(x));
        if (cause == Cause::beyond_bound) {
            measured = fmt::format("{} ({} * scale {}), error {:.4g} times the bound",
                                   number(decoded), code, number(segment.loaded_scale),
                                   error_over_bound(x, decoded, segment.own_scale));
            limit = fmt::format("{} within max(|x| / 17, s / 1024), s = {}", number(x),
                                number(segment.own_scale));
        }
        log_.describe(cause, global_index(tensor_.shape, row, col + i), measured, limit);
    }

    const Scene& scene_;
    const model::TensorSpec& tensor_;
    const LoadSpan& span_;
    DestinationView view_;
    const EngineScales& scales_;
    bool scales_reported_;
    TensorAudit& audit_;
    FaultLog& log_;
    std::optional<LayerOutput> output_;
    std::vector<std::int64_t> beyond_;
    std::vector<std::int64_t> nonfinite_;
    std::vector<char> together_;  ///< of the stretches of a row: already walked with its neighbours
};

/// Slot of the per-tensor scale that belongs to a weight: where the span of its scale was put.
std::int64_t tensor_slot(const Scene& scene, const std::string& scale, std::size_t destination) {
    for (const std::size_t index : spans_of(scene, scale)) {
        const LoadSpan& span = scene.spans[index];
        if (span.destination != destination) continue;
        const std::int64_t cols = scene.instance.destinations.at(destination).cols();
        return span.dest_row * cols + span.dest_col;
    }
    throw core::ShapeError(
        fmt::format("audit of {}: the contract of {} places it nowhere on TP rank of world rank "
                    "{}; a per-tensor "
                    "scale is found by its span",
                    scale, scene.instance.engine, scene.rank));
}

void audit_quantized(const Scene& scene, const model::TensorSpec& tensor,
                     const wire::WantedParameter& wanted, AuditResult& result) {
    TensorAudit audit;
    audit.tensor = tensor.name;
    audit.quantized = true;
    audit.scale = wanted.scale;
    audit.codes.assign(256, 0);
    FaultLog log(tensor.name, scene.enabled);
    FaultLog scale_log(wanted.scale, scene.enabled);
    audit_scale_spans(scene, wanted.scale, audit, scale_log);
    TileMaximum whole;
    if (scene.facts.tile_rows == 0) whole = tensor_maximum(tensor, scene.source, scene.on_progress);
    for (const std::size_t index : spans_of(scene, tensor.name)) {
        const LoadSpan& span = scene.spans[index];
        const receiver::DestinationParameter& destination =
            scene.instance.destinations.at(span.destination);
        if (destination.scale < 0 || destination.granularity == Granularity::none ||
            destination.dtype != core::DType::f8_e4m3) {
            throw core::ShapeError(fmt::format(
                "audit of {}: the contract wants it with scale {}, but its destination {} is {} "
                "without a scale of its own",
                tensor.name, wanted.scale, destination.name,
                core::safetensors_name(destination.dtype)));
        }
        const auto scale_destination = static_cast<std::size_t>(destination.scale);
        const std::int64_t slot = destination.granularity == Granularity::tensor
                                      ? tensor_slot(scene, wanted.scale, scale_destination)
                                      : 0;
        const DestinationView scale_view(scene.instance, scene.loaded, scale_destination);
        const EngineScales scales(scale_view, destination, slot);
        QuantizedPart(scene, tensor, span, scales, scale_log.any(), audit, log).run(whole);
    }
    result.tensors.push_back(audit);
    log.append_findings(scene.rank, result.findings);
    scale_log.append_findings(scene.rank, result.findings);
    append_digests(scene, tensor.name, result);
    append_digests(scene, wanted.scale, result);
}

/// Element `i` of a raw destination row, BF16 or F32, beside its BF16 source.
struct RawElement {
    double value = 0.0;
    bool equal = false;
    bool poisoned = false;
};

RawElement raw_element(core::DType dtype, const std::byte* loaded, std::int64_t i,
                       std::uint16_t source) {
    if (dtype == core::DType::f32) {
        std::uint32_t bits = 0;
        std::memcpy(&bits, loaded + 4 * i, sizeof(bits));
        return {static_cast<double>(std::bit_cast<float>(bits)),
                bits == static_cast<std::uint32_t>(source) << 16, bits == 0xffffffffU};
    }
    std::uint16_t bits = 0;
    std::memcpy(&bits, loaded + 2 * i, sizeof(bits));
    return {decode_bf16(bits), bits == source, bits == 0xffffU};
}

/// One row of a raw part that holds a non-finite source value or differs from the source.
void walk_raw_row(const model::TensorSpec& tensor, core::DType dtype, const std::uint16_t* source,
                  const std::byte* loaded, core::Region row, TensorAudit& audit, FaultLog& log) {
    for (std::int64_t i = 0; i < row.cols; ++i) {
        const RawElement element = raw_element(dtype, loaded, i, source[i]);
        const auto describe = [&](Cause cause, double measured, const std::string& limit) {
            log.describe(cause, global_index(tensor.shape, row.row, row.col + i), number(measured),
                         limit);
        };
        const double x = decode_bf16(source[i]);
        if (!std::isfinite(x) && log.count(Cause::source_nonfinite)) {
            describe(Cause::source_nonfinite, x, "a finite value");
        }
        if (element.equal) {
            audit.exact += 1;
            continue;
        }
        const double d = element.value;
        audit.mismatched += 1;
        if (std::isfinite(x)) audit.sum_error2 += (x - d) * (x - d);
        Cause cause = Cause::bits_differ;
        if (element.poisoned && log.asks(Cause::value_unwritten)) {
            cause = Cause::value_unwritten;
        } else if (std::isfinite(x) && !std::isfinite(d) && log.asks(Cause::value_nonfinite)) {
            cause = Cause::value_nonfinite;
        }
        if (log.count(cause)) {
            describe(cause, d, fmt::format("{} (bits 0x{:04x})", number(x), source[i]));
        }
    }
}

void audit_raw_span(const Scene& scene, const model::TensorSpec& tensor, const LoadSpan& span,
                    TensorAudit& audit, FaultLog& log) {
    const DestinationView view(scene.instance, scene.loaded, span.destination);
    view.require_inside(span);
    const core::DType dtype = view.parameter().dtype;
    if (dtype != core::DType::bf16 && dtype != core::DType::f32) {
        throw core::ShapeError(fmt::format(
            "audit of {}: its destination {} is {}; raw tensors are compared as BF16 or F32",
            tensor.name, view.parameter().name, core::safetensors_name(dtype)));
    }
    constexpr std::int64_t kStripeElements = std::int64_t{1} << 20;
    const core::Region& part = span.source;
    const std::int64_t cols = std::max<std::int64_t>(1, part.cols);
    const std::int64_t step = std::max<std::int64_t>(1, kStripeElements / cols);
    std::vector<std::uint16_t> values(static_cast<std::size_t>(std::min(step, part.rows) * cols));
    for (std::int64_t begin = 0; begin < part.rows && part.cols > 0; begin += step) {
        const std::int64_t rows = std::min(step, part.rows - begin);
        scene.source.read(tensor, {part.row + begin, part.col, rows, part.cols}, values.data(),
                          part.cols);
        // Rows that lie side by side in the destination are one comparison: a vector has one
        // column.
        const bool whole_rows = part.cols == view.cols();
        const std::int64_t at_once = whole_rows ? rows : 1;
        for (std::int64_t r = 0; r < rows; r += at_once) {
            const std::uint16_t* source = values.data() + r * part.cols;
            const std::byte* loaded = view.at(span.dest_row + begin + r, span.dest_col);
            const std::int64_t count = at_once * part.cols;
            audit.elements += count;
            if (dtype == core::DType::bf16 &&
                std::memcmp(source, loaded, static_cast<std::size_t>(2 * count)) == 0 &&
                largest_magnitude(source, count) < 0x7f80U) {
                audit.exact += count;
                continue;
            }
            for (std::int64_t q = 0; q < at_once; ++q) {
                walk_raw_row(tensor, dtype, source + q * part.cols,
                             loaded + view.element_bytes() * q * part.cols,
                             {part.row + begin + r + q, part.col, 1, part.cols}, audit, log);
            }
        }
        scene.on_progress();
    }
}

void audit_raw(const Scene& scene, const model::TensorSpec& tensor, AuditResult& result) {
    TensorAudit audit;
    audit.tensor = tensor.name;
    FaultLog log(tensor.name, scene.enabled);
    for (const std::size_t index : spans_of(scene, tensor.name)) {
        audit_raw_span(scene, tensor, scene.spans[index], audit, log);
    }
    result.tensors.push_back(audit);
    log.append_findings(scene.rank, result.findings);
    append_digests(scene, tensor.name, result);
}

/// Every span must belong to a tensor of the model or to the scale of one: otherwise it would go
/// unaudited.
void require_known_tensors(const Scene& scene, const std::vector<model::TensorSpec>& tensors,
                           bool with_cache) {
    std::set<std::string> names;
    for (const model::TensorSpec& tensor : tensors) names.insert(tensor.name);
    std::set<std::string> scales;
    for (const wire::WantedParameter& wanted : scene.instance.wanted) {
        if (names.count(wanted.name) != 0) scales.insert(wanted.scale);
        // Scales of the KV cache have an audit of their own.
        if (with_cache && !wanted.calibration.empty()) scales.insert(wanted.name);
    }
    for (const auto& [name, indices] : scene.spans_of) {
        if (names.count(name) == 0 && scales.count(name) == 0) {
            throw core::ShapeError(
                fmt::format("audit: the contract of {} wants {}, which is neither a tensor of the "
                            "model nor the "
                            "scale of one; there is nothing to compare it with",
                            scene.instance.engine, name));
        }
    }
}

}  // namespace

AuditResult audit_parameters(const ContractInstance& instance, int tp_rank,
                             const receiver::LoadedParameters& loaded,
                             const std::vector<model::TensorSpec>& tensors,
                             const weights::WeightSource& source, const SchemeFacts& facts,
                             const std::set<std::string>& enabled, int rank,
                             const std::function<void()>& on_progress, const CacheTruth* cache) {
    const std::function<void()> progress = on_progress ? on_progress : [] {};
    if (tp_rank < 0 || static_cast<std::size_t>(tp_rank) >= instance.spans.size()) {
        throw core::ShapeError(
            fmt::format("audit: TP rank {} of {}", tp_rank, instance.spans.size()));
    }
    const std::vector<LoadSpan>& spans = instance.spans[static_cast<std::size_t>(tp_rank)];
    Scene scene{instance, spans, loaded, source, facts, enabled, rank, progress, {}};
    for (std::size_t i = 0; i < spans.size(); ++i) {
        scene.spans_of[instance.wanted.at(spans[i].wanted).name].push_back(i);
    }
    require_known_tensors(scene, tensors, cache != nullptr);
    AuditResult result;
    for (const model::TensorSpec& tensor : tensors) {
        const std::vector<std::size_t>& indices = spans_of(scene, tensor.name);
        if (indices.empty()) continue;
        const wire::WantedParameter& wanted = instance.wanted[spans[indices.front()].wanted];
        if (wanted.scale.empty()) {
            audit_raw(scene, tensor, result);
        } else {
            audit_quantized(scene, tensor, wanted, result);
        }
    }
    if (cache != nullptr) {
        append_cache_scales(instance, tp_rank, loaded, *cache, enabled, rank, progress, result);
    }
    if (enabled.count("completeness") != 0) {
        append_unwritten_gaps(instance, spans, loaded, rank, progress, result.findings);
    }
    return result;
}

AuditResult audit_loaded(const receiver::WeightLoader& loader,
                         const std::vector<model::TensorSpec>& tensors,
                         const weights::WeightSource& source, const SchemeFacts& facts,
                         const std::set<std::string>& enabled, int rank,
                         const std::function<void()>& on_progress) {
    return audit_parameters(loader.instance(), loader.tp_rank(), loader.loaded(), tensors, source,
                            facts, enabled, rank, on_progress);
}

}  // namespace refit::checks
