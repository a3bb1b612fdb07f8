// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "core/nearest_name.hpp"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace refit::core {
namespace {

std::size_t edit_distance(std::string_view a, std::string_view b) {
    std::vector<std::size_t> row(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        std::size_t diagonal = row[0];
        row[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
        }
    }
    return row[b.size()];
}

}  // namespace

std::vector<std::string> nearest_names(std::string_view unknown,
                                       std::span<const std::string> known) {
    std::vector<std::pair<std::size_t, std::string>> ranked;
    ranked.reserve(known.size());
    for (const std::string& name : known) ranked.emplace_back(edit_distance(unknown, name), name);
    std::stable_sort(ranked.begin(), ranked.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    const std::size_t count = known.size() <= 8 ? known.size() : 3;
    std::vector<std::string> names;
    for (std::size_t i = 0; i < count; ++i) names.push_back(ranked[i].second);
    return names;
}

std::string unknown_name_message(std::string_view kind, std::string_view unknown,
                                 std::span<const std::string> known) {
    std::string text =
        "unknown " + std::string(kind) + " '" + std::string(unknown) + "'; nearest: ";
    bool first = true;
    for (const std::string& name : nearest_names(unknown, known)) {
        if (!first) text += ", ";
        text += name;
        first = false;
    }
    return text;
}

}  // namespace refit::core
