// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Faulty elements of one tensor, counted by cause: a finding is one tensor and one cause.
#pragma once

#include <array>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "core/finding.hpp"
#include "core/shape.hpp"

namespace refit::checks {

enum class Cause {
    value_unwritten,   ///< poison in codes or raw elements
    scale_unwritten,   ///< poison in scales
    source_nonfinite,  ///< NaN or Inf in the source
    scale_nonfinite,   ///< NaN or Inf in a scale, or a scale that is not positive
    value_nonfinite,   ///< NaN or Inf loaded where the source is finite
    beyond_bound,      ///< a quantized element beyond the legal error
    bits_differ,       ///< a raw element that is not the source's
};
inline constexpr std::size_t kCauseCount = 7;

/// Name of the check that a cause belongs to.
[[nodiscard]] const std::string& check_of(Cause cause);

/// Index of the matrix element (row, col) in a tensor of this shape; rows = first dimension.
[[nodiscard]] std::vector<std::int64_t> global_index(const core::Shape& shape, std::int64_t row,
                                                     std::int64_t col);

class FaultLog {
 public:
    /// enabled : names of the checks that may give findings.
    FaultLog(std::string tensor, const std::set<std::string>& enabled)
        : tensor_(std::move(tensor)), enabled_(&enabled) {}

    /// Whether this cause gives findings.
    [[nodiscard]] bool asks(Cause cause) const { return enabled_->count(check_of(cause)) != 0; }
    /// Counts one element. True for the first one of its cause: call `describe` then.
    bool count(Cause cause) { return ++entries_[static_cast<std::size_t>(cause)].count == 1; }
    void describe(Cause cause, std::vector<std::int64_t> index, std::string measured,
                  std::string limit);
    [[nodiscard]] bool any() const;
    /// Appends one finding for each cause that was counted and whose check is enabled.
    void append_findings(int rank, core::Findings& findings) const;

 private:
    struct Entry {
        std::int64_t count = 0;
        std::vector<std::int64_t> index;
        std::string measured;
        std::string limit;
    };
    std::string tensor_;
    const std::set<std::string>* enabled_;
    std::array<Entry, kCauseCount> entries_;
};

}  // namespace refit::checks
