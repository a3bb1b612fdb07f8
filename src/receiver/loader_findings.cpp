// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/loader_findings.hpp"

#include <utility>
#include <vector>

namespace refit::receiver {
namespace {

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

std::string rows_of(const core::Region& region) {
    return "rows " + range_text(region.row, region.row + region.rows);
}

std::string columns_of(const core::Region& region) {
    return "columns " + range_text(region.col, region.col + region.cols);
}

/// A finding about a cell, without what was found.
core::Finding about(const IncomingCell& cell, const char* check, std::int64_t row,
                    std::int64_t col) {
    core::Finding finding;
    finding.check = check;
    finding.tensor = cell.meta->name;
    finding.index = index_of(cell.meta->shape, row, col);
    return finding;
}

}  // namespace

std::string piece_name(std::uint32_t bucket, std::uint32_t trainer) {
    return "bucket " + std::to_string(bucket) + " of trainer " + std::to_string(trainer);
}

void LoaderFindings::add(std::uint32_t cell, core::Finding finding) {
    failed_ = true;
    if (!reported_.emplace(finding.check, finding.tensor, own_format_ ? cell : 0).second) return;
    finding.message = (finding.tensor.empty() ? std::string() : finding.tensor + ": ") +
                      finding.message + "; " + finding.remedy;
    findings_.push_back(std::move(finding));
}

void LoaderFindings::other_refit(const std::string& tensor, const std::string& piece,
                                 std::uint64_t found, std::uint64_t expected) {
    core::Finding finding;
    finding.check = "version";
    finding.tensor = tensor;
    finding.measured = std::to_string(found);
    finding.limit = std::to_string(expected);
    finding.message = piece + " belongs to another refit";
    finding.remedy = "send every bucket again for each refit";
    add(0, std::move(finding));
}

void LoaderFindings::damaged_header(const std::string& tensor, const std::string& what) {
    core::Finding finding;
    finding.check = "digest";
    finding.tensor = tensor;
    finding.measured = "a damaged piece header";
    finding.limit = "the header of the manifest";
    finding.message = what;
    finding.remedy = "check the transport";
    add(0, std::move(finding));
}

void LoaderFindings::aborted(const std::string& piece) {
    core::Finding finding;
    finding.check = "completeness";
    finding.measured = "aborted";
    finding.limit = "complete";
    finding.message = piece + " was aborted by its trainer";
    finding.remedy = "see the trainer's own finding; nothing of this refit is used";
    add(0, std::move(finding));
}

void LoaderFindings::rows_came_twice(const IncomingCell& cell, const std::string& piece) {
    const core::Region& region = cell.region;
    core::Finding finding = about(cell, "completeness", region.row, region.col);
    finding.measured = rows_of(region) + " twice";
    finding.limit = "each row once";
    finding.message = rows_of(region) + " came again in " + piece;
    finding.remedy = "send each row of a tensor once a refit";
    add(cell.index, std::move(finding));
}

void LoaderFindings::other_digest(const IncomingCell& cell, const wire::Digest& found,
                                  const std::string& piece) {
    const core::Region& region = cell.region;
    core::Finding finding = about(cell, "digest", region.row, region.col);
    finding.measured = wire::to_string(found);
    finding.limit = wire::to_string(cell.record.digest);
    finding.message = "the bytes of " + rows_of(region) + ", " + columns_of(region) +
                      " that came in " + piece + " have digest " + finding.measured +
                      ", the trainer sent " + finding.limit;
    finding.remedy = "check the transport and the sender's buffers";
    add(cell.index, std::move(finding));
}

void LoaderFindings::unusable_scales(const IncomingCell& cell, const BadScales& bad,
                                     const std::string& piece) {
    core::Finding finding = about(cell, "nonfinite", bad.row, bad.col);
    finding.measured = std::to_string(bad.value);
    finding.limit = "finite and above 0";
    finding.message = std::to_string(bad.count) + " of the scales in " + piece +
                      " are not usable, the first is " + finding.measured;
    finding.remedy = "repair the quantizer or its input";
    add(cell.index, std::move(finding));
}

void LoaderFindings::missing(const wire::WantedParameter& wanted, const LoadSpan& span, int tp_rank,
                             std::int64_t row, std::int64_t col) {
    // An index is told in the checkpoint's tensor; these rows are not.
    const std::string of_what = own_format_ ? " of the parameter" : "";
    const std::string which = "row " + std::to_string(row);
    core::Finding finding;
    finding.check = "completeness";
    finding.tensor = wanted.name;
    finding.index = index_of(wanted.shape, row, col);
    finding.measured = which + of_what + " never came";
    finding.limit = rows_of(span.source) + of_what;
    finding.message = "TP rank " + std::to_string(tp_rank) + " wants " + rows_of(span.source) +
                      ", and " + which + " is the first that never came";
    finding.remedy = "send every row of every tensor in each refit";
    add(span.cell, std::move(finding));
}

}  // namespace refit::receiver
