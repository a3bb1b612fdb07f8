// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What a loader has to know of one cell to load it, wherever its bytes lie. Private to
// src/receiver.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.hpp"
#include "wire/manifest.hpp"
#include "wire/piece.hpp"

namespace refit::receiver {

/// One cell of a piece on its way into one destination of this rank. A cell that several
/// destinations want has one of these for each.
struct IncomingCell {
    const wire::ParameterMeta* meta = nullptr;
    std::uint32_t parameter = 0;  ///< index of `meta` in the manifest
    std::uint32_t index = 0;      ///< of the cell in its parameter
    core::Region region;          ///< of the cell in its tensor, as far as the piece has it
    wire::DigestRecord record;    ///< what the trainer says of its bytes

    std::size_t span = 0;         ///< of this rank's spans the one that it falls into
    std::size_t destination = 0;  ///< of the contract's destinations
    core::DType to = core::DType::bf16;
    bool is_scale = false;
    bool skip = false;  ///< planted: it is looked at, but not loaded
    bool flip = false;  ///< planted: a bit of it changes once it is loaded

    std::int64_t from_offset = 0;  ///< in bytes, from the begin of the piece
    std::int64_t from_stride = 0;  ///< bytes from row to row
    std::int64_t to_offset = 0;    ///< in bytes, from the begin of the destination
    std::int64_t to_stride = 0;    ///< bytes from row to row

    [[nodiscard]] std::int64_t from_element() const { return core::size_bytes(meta->dtype); }
    [[nodiscard]] std::int64_t to_element() const { return core::size_bytes(to); }
    [[nodiscard]] std::int64_t row_bytes() const { return region.cols * from_element(); }
    [[nodiscard]] bool converts() const { return meta->dtype != to; }
    /// Bytes that are read and written when it is loaded.
    [[nodiscard]] std::uint64_t traffic_bytes() const {
        return static_cast<std::uint64_t>(region.rows * region.cols *
                                          (from_element() + to_element()));
    }
    /// Whether the trainer's record is of this cell and of these bytes.
    [[nodiscard]] bool is_recorded_as(const wire::Digest& found) const {
        return record.parameter == parameter && record.cell == index && record.digest == found;
    }
};

}  // namespace refit::receiver
