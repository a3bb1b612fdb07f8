// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/cache_scale_audit.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "checks/decode.hpp"
#include "checks/fault_log.hpp"
#include "checks/loaded_part.hpp"
#include "core/error.hpp"

namespace refit::checks {
namespace {

/// The scale that the activations call for: the quotient of two F32 numbers in double, rounded
/// once more to F32, is the F32 quotient (53 bits are more than twice 24 and 2).
float scale_of(const model::TensorSpec& calibration, const weights::WeightSource& source) {
    const std::int64_t rows = core::matrix_rows(calibration.shape);
    const std::int64_t cols = core::matrix_cols(calibration.shape);
    std::vector<std::uint16_t> values(static_cast<std::size_t>(rows * cols));
    source.read(calibration, {0, 0, rows, cols}, values.data(), cols);
    double amax = 0.0;
    for (const std::uint16_t bits : values) {
        const double magnitude = std::fabs(decode_bf16(bits));
        if (std::isnan(magnitude)) return std::numeric_limits<float>::quiet_NaN();
        amax = std::max(amax, magnitude);
    }
    return amax == 0.0 ? 1.0F : static_cast<float>(amax / 448.0);
}

const model::TensorSpec& find_calibration(const CacheTruth& truth, const std::string& name) {
    const auto found = std::find_if(truth.calibrations.begin(), truth.calibrations.end(),
                                    [&](const model::TensorSpec& one) { return one.name == name; });
    if (found != truth.calibrations.end()) return *found;
    throw core::ShapeError("audit: a scale of the KV cache is wanted of " + name +
                           ", which is not among the calibrations; there is nothing to compare it "
                           "with");
}

}  // namespace

void append_cache_scales(const receiver::ContractInstance& instance, int tp_rank,
                         const receiver::LoadedParameters& loaded, const CacheTruth& truth,
                         const std::set<std::string>& enabled, int rank,
                         const std::function<void()>& on_progress, AuditResult& result) {
    for (const receiver::LoadSpan& span : instance.spans.at(static_cast<std::size_t>(tp_rank))) {
        const wire::WantedParameter& wanted = instance.wanted.at(span.wanted);
        if (wanted.calibration.empty()) continue;
        const DestinationView view(instance, loaded, span.destination);
        view.require_inside(span);
        const double found = view.scale_value(span.dest_row, span.dest_col);
        const float expected = scale_of(find_calibration(truth, wanted.calibration), truth.source);
        const bool equal = std::bit_cast<std::uint32_t>(static_cast<float>(found)) ==
                           std::bit_cast<std::uint32_t>(expected);
        FaultLog log(wanted.name, enabled);
        Cause cause = Cause::bits_differ;
        if (is_scale_poison(view.parameter().dtype, found) && log.asks(Cause::scale_unwritten)) {
            cause = Cause::scale_unwritten;
        } else if (!(std::isfinite(found) && found > 0.0) && log.asks(Cause::scale_nonfinite)) {
            cause = Cause::scale_nonfinite;
        }
        TensorAudit audit;
        audit.tensor = wanted.name;
        audit.elements = 1;
        audit.exact = equal ? 1 : 0;
        audit.mismatched = equal ? 0 : 1;
        if ((!equal || cause != Cause::bits_differ) && log.count(cause)) {
            log.describe(cause, global_index(wanted.shape, 0, 0), fmt::format("{:.9g}", found),
                         fmt::format("{:.9g}, amax / 448 of {}", expected, wanted.calibration));
        }
        result.tensors.push_back(std::move(audit));
        log.append_findings(rank, result.findings);
        result.digests.push_back({wanted.name + "|0,0,1,1", part_digest(view, span, on_progress)});
        on_progress();
    }
}

}  // namespace refit::checks
