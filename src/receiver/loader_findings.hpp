// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What a loader may find wrong with what comes, told the same by every loader. Private to
// src/receiver.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <tuple>

#include "core/finding.hpp"
#include "receiver/engine_contract.hpp"
#include "receiver/incoming_cell.hpp"

namespace refit::receiver {

/// Check, tensor and, where a parameter is made of several tensors, cell of what has a finding.
using Reported = std::set<std::tuple<std::string, std::string, std::uint32_t>>;

/// Scales of a cell that are not finite and above 0.
struct BadScales {
    std::int64_t count = 0;
    std::int64_t row = 0;  ///< of the first, in its tensor
    std::int64_t col = 0;
    float value = 0.0F;
};

/// "bucket 3 of trainer 1"
[[nodiscard]] std::string piece_name(std::uint32_t bucket, std::uint32_t trainer);

/// Collects findings, one a check and tensor; of an engine's own parameters one a check and cell,
/// which is a part of one tensor. All of them are errors and set `failed`.
class LoaderFindings {
 public:
    /// `own_format`: the parameters are an engine's own. All three references outlive this.
    LoaderFindings(core::Findings& findings, Reported& reported, bool& failed, bool own_format)
        : findings_(findings), reported_(reported), failed_(failed), own_format_(own_format) {}

    // Of a whole piece; `tensor` is its first one.
    void other_refit(const std::string& tensor, const std::string& piece, std::uint64_t found,
                     std::uint64_t expected);
    void damaged_header(const std::string& tensor, const std::string& what);
    void aborted(const std::string& piece);

    // Of a cell that came in `piece`.
    void rows_came_twice(const IncomingCell& cell, const std::string& piece);
    void other_digest(const IncomingCell& cell, const wire::Digest& found,
                      const std::string& piece);
    void unusable_scales(const IncomingCell& cell, const BadScales& bad, const std::string& piece);

    /// Of a span that is not whole at the end: the first element that never came.
    void missing(const wire::WantedParameter& wanted, const LoadSpan& span, int tp_rank,
                 std::int64_t row, std::int64_t col);

 private:
    /// Completes and keeps the finding unless its like was reported before.
    void add(std::uint32_t cell, core::Finding finding);

    core::Findings& findings_;
    Reported& reported_;
    bool& failed_;
    bool own_format_;
};

}  // namespace refit::receiver
