// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/reference_comparison.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <span>
#include <utility>

#include "checks/audit.hpp"
#include "checks/reference_check.hpp"
#include "core/error.hpp"
#include "harness/recipe_match.hpp"
#include "weights/stored_places.hpp"

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
/// Elements that recipes are tried on, all matrices together.
constexpr std::int64_t kRecipeElements = std::int64_t{1} << 25;

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

std::vector<std::int64_t> index_in(const core::Shape& shape, std::int64_t flat) {
    std::vector<std::int64_t> index(shape.size());
    for (std::size_t i = index.size(); i-- > 0;) {
        index[i] = flat % shape[i];
        flat /= shape[i];
    }
    return index;
}

class ReferenceComparison {
 public:
    ReferenceComparison(const CheckpointSurvey& survey, const std::filesystem::path& directory,
                        const Progress& progress)
        : survey_(survey),
          progress_(progress),
          specs_(model::tensors_of(survey.model())),
          reference_(directory, weights::IndexRule::reported),
          places_(reference_, specs_),
          recipes_(kRecipeElements) {
        for (const model::TensorSpec& spec : specs_) by_name_.emplace(spec.name, &spec);
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

    /// The reference's tensor as rows of its last dimension, with the first row of `name` in it.
    [[nodiscard]] weights::StoredPlaces::Place place_of(const std::string& name) const {
        const auto known = by_name_.find(name);
        if (known != by_name_.end()) return places_.find(*known->second);
        auto at = reference_.find(name);
        // A head that is stored although it is tied is a copy of the embedding.
        if (at.tensor == nullptr && survey_.model().tied_embeddings && name == "lm_head.weight") {
            at = reference_.find("model.embed_tokens.weight");
        }
        return {at.file, at.tensor, 0};
    }

    void compare(const std::string& name) {
        const auto at = survey_.files().find(name);
        const auto wanted = place_of(name);
        if (wanted.tensor == nullptr) {
            not_compared(name, "the reference has no such tensor");
            return;
        }
        if (!is_float(wanted.tensor->dtype)) {
            throw core::FileError(
                wanted.file->path().string() + ": tensor '" + wanted.tensor->name + "' is " +
                std::string(core::safetensors_name(wanted.tensor->dtype)) +
                ", expected BF16, F16 or F32; --reference is the directory before quantization");
        }
        const bool stacked = wanted.tensor->shape.size() > at.tensor->shape.size();
        const core::Shape& shape = at.tensor->shape;
        const core::Shape& source = wanted.tensor->shape;
        if (stacked ? shape.empty() || source.empty() || shape.back() != source.back() ||
                          wanted.first_row + core::matrix_rows(shape) >
                              core::element_count(source) / std::max<std::int64_t>(source.back(), 1)
                    : shape != source) {
            ++result_.not_compared;
            add(finding_of("round_trip", Severity::error, name, {}, core::to_string(shape),
                           core::to_string(source),
                           "has shape " + core::to_string(shape) + ", the reference has " +
                               core::to_string(source)));
            return;
        }
        if (at.tensor->dtype == DType::f8_e4m3) {
            compare_quantized(name, at, wanted);
        } else {
            compare_unquantized(name, at, wanted);
        }
    }

    void compare_quantized(const std::string& name,
                           const weights::CheckpointDirectory::Location& at,
                           const weights::StoredPlaces::Place& wanted) {
        const auto scales = survey_.scales_of(name);
        if (!scales) {
            not_compared(name, "it has no scale of a known shape");
            return;
        }
        const core::Shape& shape = at.tensor->shape;
        const std::int64_t cols = shape[1];
        const std::int64_t source_width = core::size_bytes(wanted.tensor->dtype);
        const auto source_begin = static_cast<std::size_t>(wanted.first_row * cols * source_width);
        const auto source_bytes = static_cast<std::size_t>(shape[0] * cols * source_width);
        const checks::StoredMatrix codes{DType::f8_e4m3, at.file->bytes(*at.tensor), shape[0],
                                         cols};
        const checks::StoredMatrix source{
            wanted.tensor->dtype,
            wanted.file->bytes(*wanted.tensor).subspan(source_begin, source_bytes), shape[0], cols};
        recipes_.add(*scales, codes, source);
        const checks::RoundTrip trip = checks::compare_codes(
            codes, scales->values, scales->layout, source,
            [&](std::int64_t begin, std::int64_t end) {
                const auto first = static_cast<std::size_t>(begin * cols);
                const auto last = static_cast<std::size_t>(end * cols);
                const auto width = static_cast<std::size_t>(source_width);
                at.file->release(*at.tensor, first, last);
                wanted.file->release(*wanted.tensor, source_begin + first * width,
                                     source_begin + last * width);
                progress_((last - first) * (1 + width));
            });
        ++result_.quantized;
        result_.sum_x2 += trip.sum_x2;
        result_.sum_error2 += trip.sum_error2;
        judge(name, shape, trip);
    }

    void judge(const std::string& name, const core::Shape& shape, const checks::RoundTrip& trip) {
        const std::string of = " of " + std::to_string(trip.elements) + " elements ";
        if (trip.beyond > trip.clipped) {
            add(finding_of(
                "round_trip", Severity::error, name, index_in(shape, trip.first_beyond),
                fmt::format("{:.9g}", trip.loaded), fmt::format("{:.9g}", trip.source),
                std::to_string(trip.beyond) + of +
                    "are further from the reference than E4M3 allows, the first at " +
                    core::to_string(index_in(shape, trip.first_beyond)) +
                    fmt::format(" ({:.9g} instead of {:.9g})", trip.loaded, trip.source)));
            return;
        }
        const double sqnr = checks::sqnr_db(trip.sum_x2, trip.sum_error2);
        if (trip.sum_error2 > 0.0 && sqnr < kLeastSqnrDb) {
            add(finding_of("sqnr", Severity::error, name, {}, fmt::format("{:.2f} dB", sqnr),
                           fmt::format(">= {:.0f} dB", kLeastSqnrDb),
                           fmt::format("has an SQNR of {:.2f} dB against the reference", sqnr)));
            return;
        }
        if (trip.clipped > 0) {
            add(finding_of("round_trip", Severity::warning, name, {},
                           std::to_string(trip.clipped) + " clipped", "0",
                           std::to_string(trip.clipped) + of +
                               "are clipped to the largest code, as recipes do that search the "
                               "best range"));
        }
        if (trip.unlike > 0) unlike_.push_back({name, shape, trip});
    }

    /// Whoever rounds otherwise does so in every matrix; one that stands alone is of other weights.
    void judge_unlike() {
        const auto count = static_cast<std::int64_t>(unlike_.size());
        if (count == 0 || count * kFewOf > result_.quantized) return;
        for (const Unlike& one : unlike_) {
            const std::vector<std::int64_t> index = index_in(one.shape, one.trip.first_unlike);
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
                             const weights::StoredPlaces::Place& wanted) {
        const std::span<const std::byte> bytes = at.file->bytes(*at.tensor);
        const auto width = static_cast<std::size_t>(core::size_bytes(at.tensor->dtype));
        const auto source_width = static_cast<std::size_t>(core::size_bytes(wanted.tensor->dtype));
        const std::int64_t last_dimension = at.tensor->shape.empty() ? 1 : at.tensor->shape.back();
        const std::size_t skipped =
            static_cast<std::size_t>(wanted.first_row * last_dimension) * source_width;
        const std::span<const std::byte> source = wanted.file->bytes(*wanted.tensor);
        const std::size_t elements = bytes.size() / width;
        const std::size_t stretch = kScanBytes / std::max(width, source_width);
        checks::RawDifference difference;
        for (std::size_t begin = 0; begin < elements; begin += stretch) {
            const std::size_t count = std::min(stretch, elements - begin);
            const std::size_t from = skipped + begin * source_width;
            checks::compare_raw(at.tensor->dtype, bytes.subspan(begin * width, count * width),
                                wanted.tensor->dtype, source.subspan(from, count * source_width),
                                static_cast<std::int64_t>(begin), difference);
            at.file->release(*at.tensor, begin * width, (begin + count) * width);
            wanted.file->release(*wanted.tensor, from, from + count * source_width);
            progress_(count * (width + source_width));
        }
        ++result_.raw;
        if (difference.differing == 0) return;
        const std::vector<std::int64_t> index = index_in(at.tensor->shape, difference.first);
        add(finding_of("round_trip", Severity::error, name, index,
                       fmt::format("{:.9g}", difference.loaded),
                       fmt::format("{:.9g}", difference.source),
                       std::to_string(difference.differing) + " of " + std::to_string(elements) +
                           " unquantized elements differ from the reference, the first at " +
                           core::to_string(index)));
    }

    struct Unlike {
        std::string name;
        core::Shape shape;
        checks::RoundTrip trip;
    };

    const CheckpointSurvey& survey_;
    const Progress& progress_;
    std::vector<model::TensorSpec> specs_;
    weights::CheckpointDirectory reference_;
    weights::StoredPlaces places_;
    std::map<std::string, const model::TensorSpec*> by_name_;
    RecipeMatch recipes_;
    std::vector<Unlike> unlike_;
    ReferenceResult result_;
};

}  // namespace

ReferenceResult compare_with_reference(const CheckpointSurvey& survey,
                                       const std::filesystem::path& directory,
                                       const Progress& progress) {
    return ReferenceComparison(survey, directory, progress).run();
}

}  // namespace refit::harness
