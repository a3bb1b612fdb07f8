// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/checkpoint_names.hpp"

#include <algorithm>
#include <set>

#include "receiver/kernel_format.hpp"

namespace refit::receiver {
namespace {

/// Names that a message lists before it only counts.
constexpr std::size_t kMostNames = 4;

std::string list(const std::vector<std::string>& names) {
    std::string text;
    const std::size_t shown = std::min(names.size(), kMostNames);
    for (std::size_t i = 0; i < shown; ++i) {
        const bool last = i + 1 == names.size();
        text += (i == 0 ? "" : last ? " and " : ", ") + names[i];
    }
    if (names.size() > shown) {
        text += ", ... and " + names.back() + " (" + std::to_string(names.size()) + " tensors)";
    }
    return text;
}

std::string ranks_text(const std::set<int>& ranks) {
    std::string text;
    for (const int rank : ranks) text += (text.empty() ? "" : ", ") + std::to_string(rank);
    return text;
}

/// The parts from the parameter's first element to its last.
std::vector<wire::KernelPart> in_order(std::vector<wire::KernelPart> parts) {
    std::stable_sort(parts.begin(), parts.end(),
                     [](const wire::KernelPart& a, const wire::KernelPart& b) {
                         return std::pair(a.row, a.col) < std::pair(b.row, b.col);
                     });
    return parts;
}

/// Index of an element of a matrix view in the tensor's own dimensions.
std::vector<std::int64_t> own_index(const core::Shape& shape, std::int64_t row, std::int64_t col) {
    std::vector<std::int64_t> index(shape.size(), 0);
    std::int64_t rest = row * core::matrix_cols(shape) + col;
    for (std::size_t i = shape.size(); i-- > 0;) {
        index[i] = rest % shape[i];
        rest /= shape[i];
    }
    return index;
}

bool within(const std::vector<std::int64_t>& index, const core::Shape& shape) {
    return index.size() == shape.size() &&
           std::equal(index.begin(), index.end(), shape.begin(),
                      [](std::int64_t at, std::int64_t size) { return at >= 0 && at < size; });
}

/// What of a message stands behind "name: ".
std::string behind_name(const core::Finding& finding) {
    const std::string prefix = finding.tensor + ": ";
    return finding.message.starts_with(prefix) ? finding.message.substr(prefix.size())
                                               : finding.message;
}

/// What findings that become one have in common. Those without an index are about a parameter as
/// such, whichever rank it is meant for.
std::vector<std::string> cause_of(const core::Finding& finding, const std::string& parameter) {
    std::vector<std::string> key = {finding.check, finding.tensor, parameter,
                                    std::to_string(finding.rank),
                                    std::to_string(static_cast<int>(finding.severity))};
    if (finding.index.empty()) {
        key.insert(key.end(), {"whole", finding.measured, finding.limit, finding.remedy});
    }
    return key;
}

}  // namespace

CheckpointNames::CheckpointNames(const ContractInstance& instance)
    : layout_(kernel_layout(instance)) {
    for (std::size_t i = 0; i < layout_.parameters.size(); ++i)
        first_rank_.emplace(layout_.parameters[i].name, i);
    for (const wire::WantedParameter& wanted : instance.wanted)
        wanted_.emplace(wanted.name, wanted.shape);
}

bool CheckpointNames::is_a_checkpoint_place(const core::Finding& finding) const {
    const auto found = wanted_.find(finding.tensor);
    return found != wanted_.end() &&
           (finding.index.empty() || within(finding.index, found->second));
}

std::optional<CheckpointNames::Named> CheckpointNames::find(const std::string& wire_name) const {
    const wire::KernelName parsed = wire::parse_kernel_wire_name(wire_name);
    const auto found = first_rank_.find(parsed.name);
    if (found == first_rank_.end() || parsed.tp_rank >= layout_.tp) return std::nullopt;
    Named named;
    const std::size_t first = found->second;
    named.parameter =
        &layout_.parameters[first + static_cast<std::size_t>(std::max(parsed.tp_rank, 0))];
    named.label = parsed.name;
    if (parsed.tp_rank >= 0) named.label += " of TP rank " + std::to_string(parsed.tp_rank);
    const auto add = [&](const wire::KernelParameter& parameter) {
        for (const wire::KernelPart& part : in_order(parameter.parts)) {
            if (std::find(named.sources.begin(), named.sources.end(), part.source) ==
                named.sources.end())
                named.sources.push_back(part.source);
        }
    };
    add(*named.parameter);
    // The last ranks of a short vocabulary hold padding alone.
    for (std::size_t rank = 0; named.sources.empty() && rank < static_cast<std::size_t>(layout_.tp);
         ++rank)
        add(layout_.parameters[first + rank]);
    if (named.sources.empty()) return std::nullopt;
    return named;
}

std::optional<std::pair<std::string, std::vector<std::int64_t>>> CheckpointNames::place(
    const wire::KernelParameter& parameter, const std::vector<std::int64_t>& index) const {
    if (!within(index, parameter.shape)) return std::nullopt;
    std::int64_t element = 0;
    for (std::size_t i = 0; i < index.size(); ++i)
        element = element * parameter.shape[i] + index[i];
    const std::int64_t row = element / parameter.cols;
    const std::int64_t col = element % parameter.cols;
    for (const wire::KernelPart& part : parameter.parts) {
        const std::int64_t r = row - part.row;
        const std::int64_t c = col - part.col;
        if (r < 0 || c < 0 || r >= part.region.rows || c >= part.region.cols) continue;
        return std::pair(part.source, own_index(wanted_.at(part.source), part.region.row + r,
                                                part.region.col + c));
    }
    return std::nullopt;
}

void CheckpointNames::rename(core::Finding& finding, const Named& named) const {
    const std::string rest = behind_name(finding);
    if (!finding.index.empty()) {
        const std::string at = named.label + " at " + core::to_string(finding.index);
        if (auto found = place(*named.parameter, finding.index)) {
            finding.tensor = std::move(found->first);
            finding.index = std::move(found->second);
            finding.message = finding.tensor + ": in the engine's " + at + ": " + rest;
        } else {
            finding.tensor = named.sources.front();
            finding.index.clear();
            finding.message = finding.tensor + ": in the engine's " + at +
                              ", which is padding behind the tensor: " + rest;
        }
        return;
    }
    finding.tensor = named.sources.front();
    finding.message = finding.tensor + ": the engine's " + named.label + ", made of " +
                      list(named.sources) + ", " + rest;
}

core::Findings CheckpointNames::translate(core::Findings findings) const {
    struct Kept {
        std::size_t index = 0;
        std::set<int> tp_ranks;
    };
    core::Findings result;
    std::map<std::vector<std::string>, Kept> kept;
    for (core::Finding& finding : findings) {
        const std::optional<Named> named =
            is_a_checkpoint_place(finding) ? std::nullopt : find(finding.tensor);
        if (!named) {
            result.push_back(std::move(finding));
            continue;
        }
        const int tp_rank = wire::parse_kernel_wire_name(finding.tensor).tp_rank;
        rename(finding, *named);
        const auto [one, is_new] = kept.try_emplace(cause_of(finding, named->parameter->name));
        if (is_new) {
            one->second.index = result.size();
            result.push_back(std::move(finding));
        }
        if (tp_rank >= 0) one->second.tp_ranks.insert(tp_rank);
    }
    for (const auto& [cause, one] : kept) {
        if (one.tp_ranks.size() < 2) continue;
        result[one.index].message += " (the same of TP ranks " + ranks_text(one.tp_ranks) + ")";
    }
    return result;
}

}  // namespace refit::receiver
