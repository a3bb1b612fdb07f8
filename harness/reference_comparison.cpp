// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/reference_comparison.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <span>
#include <utility>

#include "checks/audit.hpp"
#include "checks/reference_check.hpp"
#include "core/error.hpp"
#include "harness/recipe_match.hpp"
#include "harness/reference_source.hpp"
#include "harness/value_finding.hpp"

namespace refit::harness {
namespace {

using core::DType;
using core::Finding;
using core::Severity;

/// Below it something other than rounding to E4M3 happened: 23.5 dB is what is left when every
/// element is off by the whole legal error.
constexpr double kLeastSqnrDb = 23.0;
/// A matrix that is not the nearest is judged by the others where at most one in three is like it.
constexpr std::int64_t kFewOf = 3;
constexpr const char* kRemedy =
    "quantize it anew from the reference, or name the reference that it was made from";

bool is_float(DType dtype) {
    return dtype == DType::bf16 || dtype == DType::f16 || dtype == DType::f32 ||
           dtype == DType::f64;
}

Finding finding_of(const std::string& check, Severity severity, const std::string& tensor,
                   std::vector<std::int64_t> index, std::string measured, std::string limit,
                   const std::string& sentence) {
    Finding finding;
    finding.check = check;
    finding.severity = severity;
    finding.tensor = tensor;
    finding.index = std::move(index);
    finding.measured = std::move(measured);
    finding.limit = std::move(limit);
    if (severity == Severity::error) finding.engine_behaviour = "silently_wrong";
    finding.remedy = kRemedy;
    finding.message = tensor + ": " + sentence + "; " + kRemedy;
    return finding;
}

/// Types that a quantizer writes, and training weights do not have.
bool is_quantizers(DType dtype) {
    return core::size_bytes(dtype) == 0 || dtype == DType::f8_e4m3 || dtype == DType::f8_e5m2 ||
           dtype == DType::f8_e8m0 || dtype == DType::f8_e4m3fnuz || dtype == DType::f8_e5m2fnuz;
}

class ReferenceComparison {
 public:
    ReferenceComparison(const CheckpointSurvey& survey, const std::filesystem::path& directory,
                        const Progress& progress)
        : survey_(survey),
          progress_(progress),
          specs_(model::tensors_of(survey.model())),
          reference_(directory, weights::IndexRule::reported),
          source_(reference_, specs_, survey.model().tied_embeddings) {
        for (const auto& [kept, other] : reference_.duplicates()) {
            throw core::FileError(other.file->path().string() + ": tensor '" + other.tensor->name +
                                  "' is also in " + kept.file->path().string() +
                                  "; nothing says which of the two the checkpoint was made from: "
                                  "leave out one");
        }
    }

    ReferenceResult run() {
        for (const std::string& name : survey_.names()) {
            if (!checks::is_scale_name(name)) compare(name);
        }
        judge_unlike();
        result_.recipes = recipes_.exact();
        result_.recipe_matrices = recipes_.matrices();
        return std::move(result_);
    }

 private:
    void add(Finding finding) { result_.findings.push_back(std::move(finding)); }

    void not_compared(const std::string& name, const std::string& why) {
        ++result_.not_compared;
        add(finding_of("round_trip", Severity::warning, name, {}, why, "a tensor to compare with",
                       "is not compared: " + why));
    }

    void compare(const std::string& name) {
        const auto at = survey_.files().find(name);
        const SourceRows rows = source_.of(name, *at.tensor);
        if (rows.parts.empty()) {
            not_compared(name, "the reference has no such tensor");
            return;
        }
        for (const SourceRows::Part& part : rows.parts) {
            const weights::StoredTensor& stored = *part.at.tensor;
            const bool raw = stored.dtype == at.tensor->dtype && !is_quantizers(stored.dtype);
            if (is_float(stored.dtype) || raw) continue;
            throw core::FileError(
                part.at.file->path().string() + ": tensor '" + stored.name + "' is " +
                std::string(core::safetensors_name(stored.dtype)) +
                ", expected BF16, F16 or F32; --reference is the directory before quantization");
        }
        if (!rows.mismatch.empty()) {
            ++result_.not_compared;
            const std::string shape = core::to_string(at.tensor->shape);
            add(finding_of("round_trip", Severity::error, name, {}, shape, rows.mismatch,
                           "has shape " + shape + ", the reference has " + rows.mismatch));
            return;
        }
        if (at.tensor->dtype == DType::f8_e4m3) {
            compare_quantized(name, at, rows);
        } else if (is_quantizers(at.tensor->dtype)) {
            not_compared(name, "it is " + std::string(core::safetensors_name(at.tensor->dtype)) +
                                   ", and only F8_E4M3 is decoded here");
        } else {
            compare_unquantized(name, at, rows);
        }
    }

    void compare_quantized(const std::string& name,
                           const weights::CheckpointDirectory::Location& at,
                           const SourceRows& rows) {
        const auto scales = survey_.scales_of(name);
        if (!scales) {
            not_compared(name, "it has no scale of a known shape");
            return;
        }
        if (!rows.of_one_dtype()) {
            not_compared(name, "the reference has its experts in several dtypes");
            return;
        }
        bool faithful = true;
        for (std::int64_t matrix = 0; matrix < scales->matrices; ++matrix) {
            faithful = compare_matrix(name, at, rows, *scales, matrix) && faithful;
        }
        if (faithful) result_.faithful.insert(name);
    }

    /// One matrix of a tensor that may be a stack of them; true where nothing is wrong with it.
    bool compare_matrix(const std::string& name, const weights::CheckpointDirectory::Location& at,
                        const SourceRows& rows, const CheckpointSurvey::Scales& scales,
                        std::int64_t matrix) {
        const core::Shape& shape = at.tensor->shape;
        const std::int64_t height = shape[shape.size() - 2];
        const std::int64_t cols = shape.back();
        const std::int64_t top = matrix * height;
        const auto begin = static_cast<std::size_t>(top * cols);
        const auto count = static_cast<std::size_t>(height * cols);
        const checks::StoredMatrix codes{
            DType::f8_e4m3, at.file->bytes(*at.tensor).subspan(begin, count), height, cols};
        std::vector<std::byte> joined;
        const checks::StoredMatrix source = rows.matrix(top, height, cols, joined);
        const auto source_width = static_cast<std::size_t>(core::size_bytes(source.dtype));
        const auto release = [&](std::int64_t first, std::int64_t last) {
            at.file->release(*at.tensor, begin + static_cast<std::size_t>(first * cols),
                             begin + static_cast<std::size_t>(last * cols));
            rows.release(top + first, top + last, cols);
        };
        recipes_.add(scales, scales.of_matrix(matrix), codes, source, release);
        const checks::RoundTrip trip = checks::compare_codes(
            codes, scales.of_matrix(matrix), scales.layout, source,
            [&](std::int64_t first, std::int64_t last) {
                release(first, last);
                progress_(static_cast<std::size_t>((last - first) * cols) * (1 + source_width));
            });
        ++result_.quantized;
        result_.sum_x2 += trip.sum_x2;
        result_.sum_error2 += trip.sum_error2;
        return judge({name, shape, static_cast<std::int64_t>(begin), trip});
    }

    /// What one matrix became.
    struct Matrix {
        std::string name;
        core::Shape shape;        ///< of its tensor
        std::int64_t before = 0;  ///< elements of the tensor before this matrix
        checks::RoundTrip trip;

        [[nodiscard]] std::vector<std::int64_t> index(std::int64_t flat) const {
            return index_in(shape, before + flat);
        }
    };

    bool judge(const Matrix& matrix) {
        const checks::RoundTrip& trip = matrix.trip;
        const std::string of = " of " + std::to_string(trip.elements) + " elements ";
        if (trip.beyond > trip.clipped) {
            const std::vector<std::int64_t> index = matrix.index(trip.first_beyond);
            add(finding_of(
                "round_trip", Severity::error, matrix.name, index,
                fmt::format("{:.9g}", trip.loaded), fmt::format("{:.9g}", trip.source),
                std::to_string(trip.beyond) + of +
                    "are further from the reference than E4M3 allows, the first at " +
                    core::to_string(index) +
                    fmt::format(" ({:.9g} instead of {:.9g})", trip.loaded, trip.source)));
            return false;
        }
        const double sqnr = checks::sqnr_db(trip.sum_x2, trip.sum_error2);
        if (trip.sum_error2 > 0.0 && sqnr < kLeastSqnrDb) {
            add(finding_of("sqnr", Severity::error, matrix.name, {}, fmt::format("{:.2f} dB", sqnr),
                           fmt::format(">= {:.0f} dB", kLeastSqnrDb),
                           fmt::format("has an SQNR of {:.2f} dB against the reference", sqnr)));
            return false;
        }
        if (trip.clipped > 0) {
            add(finding_of("round_trip", Severity::warning, matrix.name, {},
                           std::to_string(trip.clipped) + " clipped", "0",
                           std::to_string(trip.clipped) + of +
                               "are clipped to the largest code, as recipes do that search the "
                               "best range"));
        }
        if (trip.unlike > 0) unlike_.push_back(matrix);
        return true;
    }

    /// Whoever rounds otherwise does so in every matrix; one that stands alone is of other weights.
    void judge_unlike() {
        const auto count = static_cast<std::int64_t>(unlike_.size());
        if (count == 0 || count * kFewOf > result_.quantized) return;
        for (const Matrix& one : unlike_) {
            const std::vector<std::int64_t> index = one.index(one.trip.first_unlike);
            add(finding_of(
                "round_trip", Severity::error, one.name, index,
                fmt::format("{:.9g}", one.trip.loaded), fmt::format("{:.9g}", one.trip.source),
                std::to_string(one.trip.unlike) + " of " + std::to_string(one.trip.elements) +
                    " codes are not the nearest to the reference, the first at " +
                    core::to_string(index) + ", while those of " +
                    std::to_string(result_.quantized - count) +
                    " other matrices are: it was made from other weights"));
        }
    }

    void compare_unquantized(const std::string& name,
                             const weights::CheckpointDirectory::Location& at,
                             const SourceRows& rows) {
        const core::Shape& shape = at.tensor->shape;
        const std::int64_t cols = shape.empty() ? 1 : shape.back();
        checks::RawDifference difference;
        std::int64_t done = 0;
        for (const SourceRows::Part& part : rows.parts) {
            compare_part(at, part, done, part.rows * cols, cols, difference);
            done += part.rows * cols;
        }
        ++result_.raw;
        if (difference.differing == 0) return;
        const std::vector<std::int64_t> index = index_in(shape, difference.first);
        add(finding_of("round_trip", Severity::error, name, index,
                       fmt::format("{:.9g}", difference.loaded),
                       fmt::format("{:.9g}", difference.source),
                       std::to_string(difference.differing) + " of " +
                           std::to_string(core::element_count(shape)) +
                           " unquantized elements differ from the reference, the first at " +
                           core::to_string(index)));
    }

    /// `count` elements of the tensor from element `first` on, against a part of the reference.
    void compare_part(const weights::CheckpointDirectory::Location& at,
                      const SourceRows::Part& part, std::int64_t first, std::int64_t count,
                      std::int64_t cols, checks::RawDifference& difference) {
        const auto width = static_cast<std::size_t>(core::size_bytes(at.tensor->dtype));
        const auto source_width = static_cast<std::size_t>(core::size_bytes(part.at.tensor->dtype));
        const std::span<const std::byte> bytes = at.file->bytes(*at.tensor);
        const std::span<const std::byte> source = part.at.file->bytes(*part.at.tensor);
        const auto before = static_cast<std::size_t>(first);
        const auto skipped = static_cast<std::size_t>(part.at.first_row * cols);
        const auto elements = static_cast<std::size_t>(count);
        const std::size_t stretch = kScanBytes / std::max(width, source_width);
        for (std::size_t begin = 0; begin < elements; begin += stretch) {
            const std::size_t some = std::min(stretch, elements - begin);
            const std::size_t to = (before + begin) * width;
            const std::size_t from = (skipped + begin) * source_width;
            checks::compare_raw(at.tensor->dtype, bytes.subspan(to, some * width),
                                part.at.tensor->dtype, source.subspan(from, some * source_width),
                                static_cast<std::int64_t>(before + begin), difference);
            at.file->release(*at.tensor, to, to + some * width);
            part.at.file->release(*part.at.tensor, from, from + some * source_width);
            progress_(some * (width + source_width));
        }
    }

    const CheckpointSurvey& survey_;
    const Progress& progress_;
    std::vector<model::TensorSpec> specs_;
    weights::CheckpointDirectory reference_;
    ReferenceSource source_;
    RecipeMatch recipes_;
    std::vector<Matrix> unlike_;
    ReferenceResult result_;
};

}  // namespace

ReferenceResult compare_with_reference(const CheckpointSurvey& survey,
                                       const std::filesystem::path& directory,
                                       const Progress& progress) {
    return ReferenceComparison(survey, directory, progress).run();
}

}  // namespace refit::harness
