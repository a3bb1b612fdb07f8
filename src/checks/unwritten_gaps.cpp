// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/unwritten_gaps.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>

#include "checks/loaded_part.hpp"

namespace refit::checks {

namespace {

using receiver::LoadSpan;

/// Rectangles of a [rows, cols] matrix that the spans leave open, from top to bottom.
std::vector<core::Region> gaps_between(const std::vector<const LoadSpan*>& spans, std::int64_t rows,
                                       std::int64_t cols) {
    std::set<std::int64_t> cuts = {0, rows};
    for (const LoadSpan* span : spans) {
        cuts.insert(span->dest_row);
        cuts.insert(span->dest_row + span->source.rows);
    }
    std::vector<core::Region> gaps;
    for (auto cut = cuts.begin(); std::next(cut) != cuts.end(); ++cut) {
        const std::int64_t begin = *cut;
        const std::int64_t end = *std::next(cut);
        std::vector<std::pair<std::int64_t, std::int64_t>> covered;
        for (const LoadSpan* span : spans) {
            if (span->dest_row <= begin && span->dest_row + span->source.rows >= end) {
                covered.emplace_back(span->dest_col, span->dest_col + span->source.cols);
            }
        }
        std::sort(covered.begin(), covered.end());
        std::int64_t col = 0;
        for (const auto& [first, last] : covered) {
            if (first > col) gaps.push_back({begin, col, end - begin, first - col});
            col = std::max(col, last);
        }
        if (col < cols) gaps.push_back({begin, col, end - begin, cols - col});
    }
    return gaps;
}

}  // namespace

void append_unwritten_gaps(const receiver::ContractInstance& instance,
                           const std::vector<LoadSpan>& spans,
                           const receiver::LoadedParameters& loaded, int rank,
                           const std::function<void()>& on_progress, core::Findings& findings) {
    std::vector<std::vector<const LoadSpan*>> spans_into(instance.destinations.size());
    for (const LoadSpan& span : spans) spans_into.at(span.destination).push_back(&span);
    for (std::size_t d = 0; d < instance.destinations.size(); ++d) {
        if (instance.destinations[d].is_scale) continue;
        const DestinationView view(instance, loaded, d);
        std::int64_t poisoned = 0;
        std::int64_t first_row = 0;
        std::int64_t first_col = 0;
        for (const core::Region& gap : gaps_between(spans_into[d], view.rows(), view.cols())) {
            for (std::int64_t r = gap.row; r < gap.row + gap.rows; ++r) {
                for (std::int64_t c = gap.col; c < gap.col + gap.cols; ++c) {
                    if (!view.poisoned(r, c) || poisoned++ != 0) continue;
                    first_row = r;
                    first_col = c;
                }
            }
            on_progress();
        }
        if (poisoned == 0) continue;
        core::Finding finding;
        finding.check = "completeness";
        finding.tensor = spans_into[d].empty()
                             ? instance.destinations[d].name
                             : instance.wanted.at(spans_into[d].front()->wanted).name;
        finding.measured = fmt::format("{} elements hold the poison", poisoned);
        finding.limit = "zeros where no tensor is loaded";
        finding.rank = rank;
        finding.remedy = "look at how the loader fills the rows behind the last tensor";
        finding.message = fmt::format(
            "{}: on rank {} {} elements of the engine's {} that no tensor is loaded into still "
            "hold "
            "the poison, the first at [{}, {}] of that parameter; {}.",
            finding.tensor, rank, poisoned, instance.destinations[d].name, first_row, first_col,
            finding.remedy);
        findings.push_back(std::move(finding));
    }
}

}  // namespace refit::checks
