// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/value_finding.hpp"

#include <fmt/core.h>

#include <utility>

namespace refit::harness {

std::vector<std::int64_t> index_in(const core::Shape& shape, std::int64_t flat) {
    std::vector<std::int64_t> index(shape.size());
    for (std::size_t i = index.size(); i-- > 0;) {
        index[i] = flat % shape[i];
        flat /= shape[i];
    }
    return index;
}

/// "NaN", "Inf", "-Inf" or the number.
std::string shown(double value) {
    if (value != value) return "NaN";
    if (value > 1.7e308) return "Inf";
    if (value < -1.7e308) return "-Inf";
    return fmt::format("{:.9g}", value);
}

core::Finding value_finding(const std::string& tensor, std::vector<std::int64_t> index,
                            const std::string& measured, const std::string& limit,
                            const std::string& sentence, const std::string& remedy) {
    core::Finding finding;
    finding.check = "nonfinite";
    finding.severity = core::Severity::error;
    finding.tensor = tensor;
    finding.index = std::move(index);
    finding.measured = measured;
    finding.limit = limit;
    finding.engine_behaviour = "silently_wrong";
    finding.remedy = remedy;
    finding.message = tensor + ": " + sentence + "; " + remedy;
    return finding;
}

}  // namespace refit::harness
