// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/loader_state.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <string>

namespace refit::receiver {

namespace {

using core::DType;

/// Whether an element of `from` can be loaded into a parameter of `to`.
bool can_load(DType from, DType to) {
    if (from == to) return true;
    if (to == DType::f32) {
        return from == DType::bf16 || from == DType::f16 || from == DType::f8_e8m0 ||
               from == DType::u8;
    }
    return to == DType::bf16 && (from == DType::f32 || from == DType::f16);
}

bool overlap(const core::Region& a, const core::Region& b) {
    return a.row < b.row + b.rows && b.row < a.row + a.rows && a.col < b.col + b.cols &&
           b.col < a.col + a.cols;
}

}  // namespace

bool overlaps_any(const core::Region& region, const std::vector<core::Region>& others) {
    return std::any_of(others.begin(), others.end(),
                       [&](const core::Region& other) { return overlap(region, other); });
}

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

WeightLoader::State::State(const ContractInstance& contract, const wire::RefitManifest& sent,
                           std::size_t rank, std::size_t host_copies, const LoadFaults& faults,
                           const std::function<void()>& on_progress)
    : instance(contract),
      manifest(sent),
      spans(contract.spans.at(rank)),
      derived(contract),
      host(contract),
      written(spans.size()) {
    for (std::size_t i = 0; i < host_copies; ++i) {
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
            const wire::WantedParameter& wanted = contract.wanted[spans[it->second.front()].wanted];
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

std::vector<IncomingCell> WeightLoader::State::cells_of(
    const wire::PiecePlan& plan, std::span<const wire::DigestRecord> records) const {
    std::vector<IncomingCell> incoming;
    std::size_t next_record = 0;
    for (const wire::PieceEntry& entry : plan.entries) {
        const wire::ParameterMeta& meta = manifest.parameters[entry.parameter];
        const Plan& own = plans[entry.parameter];
        const core::Region sent = entry.region(meta);
        for (const wire::Cell& cell : wire::cells_in_region(meta, sent)) {
            const wire::DigestRecord& record = records[next_record++];
            for (const std::size_t index : own.spans) {
                if (spans[index].cell != cell.index) continue;
                IncomingCell one;
                one.meta = &meta;
                one.parameter = entry.parameter;
                one.index = cell.index;
                one.region = cell.region;
                one.record = record;
                one.is_scale = own.is_scale;
                one.skip = own.skip;
                one.flip = own.flip;
                one.from_stride = sent.cols * one.from_element();
                one.from_offset = static_cast<std::int64_t>(entry.offset) +
                                  (cell.region.row - sent.row) * one.from_stride +
                                  (cell.region.col - sent.col) * one.from_element();
                set_destination(index, one);
                incoming.push_back(one);
            }
        }
    }
    return incoming;
}

void WeightLoader::State::set_destination(std::size_t index, IncomingCell& cell) const {
    const LoadSpan& span = spans[index];
    const DestinationParameter& target = instance.destinations[span.destination];
    cell.span = index;
    cell.destination = span.destination;
    cell.to = target.dtype;
    cell.to_stride = target.cols() * cell.to_element();
    cell.to_offset = (span.dest_row + cell.region.row - span.source.row) * cell.to_stride +
                     (span.dest_col + cell.region.col - span.source.col) * cell.to_element();
}

}  // namespace refit::receiver
