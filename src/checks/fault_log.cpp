// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/fault_log.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace refit::checks {

namespace {

struct CauseText {
    std::string check;
    std::string what;    ///< "N of its elements <what>"
    std::string remedy;  ///< what to do
};

const CauseText& text_of(Cause cause) {
    static const std::array<CauseText, kCauseCount> kTexts = {{
        {"completeness", "were not written in this refit and still hold the poison",
         "look for a piece that was not sent, not addressed to this rank or not copied"},
        {"completeness", "(scales) were not written in this refit and still hold the poison",
         "look for a scale that was not sent, not addressed to this rank or not copied"},
        {"nonfinite", "are NaN or Inf in the source", "repair the training weights"},
        {"nonfinite", "(scales) are NaN, Inf or not positive",
         "look at the recipe's treatment of zeros and non-finite values, and at the scale's dtype"},
        {"nonfinite", "were loaded as NaN or Inf although the source is finite",
         "look at the recipe's treatment of non-finite values and at the cast to the code"},
        {"round_trip", "differ from the source by more than rounding to E4M3 allows",
         "compare the scale that quantized with the scale that was loaded, the order of fused "
         "parts, and the rows and columns that were copied"},
        {"round_trip", "are not bit for bit those of the source",
         "compare the order of fused parts, and the rows and columns that were copied"},
    }};
    return kTexts[static_cast<std::size_t>(cause)];
}

}  // namespace

const std::string& check_of(Cause cause) {
    return text_of(cause).check;
}

std::vector<std::int64_t> global_index(const core::Shape& shape, std::int64_t row,
                                       std::int64_t col) {
    std::vector<std::int64_t> index(shape.size(), 0);
    if (shape.empty()) return index;
    index[0] = row;
    for (std::size_t d = shape.size() - 1; d > 0; --d) {
        index[d] = col % shape[d];
        col /= shape[d];
    }
    return index;
}

void FaultLog::describe(Cause cause, std::vector<std::int64_t> index, std::string measured,
                        std::string limit) {
    Entry& entry = entries_[static_cast<std::size_t>(cause)];
    entry.index = std::move(index);
    entry.measured = std::move(measured);
    entry.limit = std::move(limit);
}

bool FaultLog::any() const {
    return std::any_of(entries_.begin(), entries_.end(),
                       [](const Entry& entry) { return entry.count != 0; });
}

void FaultLog::append_findings(int rank, core::Findings& findings) const {
    for (std::size_t i = 0; i < kCauseCount; ++i) {
        const Entry& entry = entries_[i];
        const auto cause = static_cast<Cause>(i);
        if (entry.count == 0 || !asks(cause)) continue;
        const CauseText& text = text_of(cause);
        core::Finding finding;
        finding.check = text.check;
        finding.tensor = tensor_;
        finding.index = entry.index;
        finding.measured = entry.measured;
        finding.limit = entry.limit;
        finding.rank = rank;
        finding.remedy = text.remedy;
        finding.message = fmt::format(
            "{}: on rank {} {} of its elements {}, the first at [{}]: found {}, expected {}; {}.",
            tensor_, rank, entry.count, text.what, fmt::join(entry.index, ", "), entry.measured,
            entry.limit, text.remedy);
        findings.push_back(std::move(finding));
    }
}

}  // namespace refit::checks
