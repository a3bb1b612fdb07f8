// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/loader_state.hpp"

#include <algorithm>

namespace refit::receiver {

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

void Reporter::error(const std::string& check, const std::string& tensor,
                     std::vector<std::int64_t> index, const std::string& measured,
                     const std::string& limit, const std::string& message,
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
    finding.message = (tensor.empty() ? std::string() : tensor + ": ") + message + "; " + remedy;
    findings.push_back(std::move(finding));
}

WeightLoader::State::State(const ContractInstance& contract, const wire::RefitManifest& manifest,
                           std::size_t rank, std::size_t host_copies, const LoadFaults& faults,
                           const std::function<void()>& on_progress)
    : instance(contract),
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

}  // namespace refit::receiver
