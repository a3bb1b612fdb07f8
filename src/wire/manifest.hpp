// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// RefitManifest: the ordered list of everything in a refit, and in which bucket each part of it
// travels.
//
// Goals: both sides walk one list in lockstep; receivers never recompute boundaries from their own
// hardware; every byte range is checked before it is used; parameters start at aligned offsets.
// Non-goals: forward compatibility between versions (both ends are the same program), compression.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/dtype.hpp"
#include "core/shape.hpp"

namespace refit::wire {

/// Alignment of every parameter inside a piece.
inline constexpr std::size_t kParameterAlignment = 64;

enum class ParameterKind : std::uint8_t { raw, codes, scale };

struct ParameterMeta {
    std::string name;
    ParameterKind kind = ParameterKind::raw;
    core::DType dtype = core::DType::bf16;
    core::Shape shape;
    std::string recipe;                  ///< of codes and scales
    std::string scale_of;                ///< of a scale: its weight
    std::vector<std::int64_t> row_cuts;  ///< as the receivers asked for
    std::vector<std::int64_t> col_cuts;

    [[nodiscard]] std::int64_t rows() const { return core::matrix_rows(shape); }
    [[nodiscard]] std::int64_t cols() const { return core::matrix_cols(shape); }
    [[nodiscard]] std::int64_t row_bytes() const { return cols() * core::size_bytes(dtype); }
};

/// Rectangle of one parameter that one trainer sends in one bucket, row by row without gaps.
struct PieceEntry {
    std::uint32_t parameter = 0;  ///< index into RefitManifest::parameters
    core::RowRange rows;          ///< global, of the parameter seen as a matrix
    std::uint64_t offset = 0;     ///< from the start of the piece
    std::uint64_t bytes = 0;
    core::RowRange cols = {};  ///< global columns; an empty range means the whole width

    /// The rectangle with its columns written out.
    [[nodiscard]] core::Region region(const ParameterMeta& meta) const {
        if (cols.empty()) return {rows.begin, 0, rows.count(), meta.cols()};
        return {rows.begin, cols.begin, rows.count(), cols.count()};
    }
};

/// What one trainer sends in one bucket: header, digests, entries.
struct PiecePlan {
    std::vector<PieceEntry> entries;
    std::uint64_t bytes =
        0;  ///< whole piece, header and digests included; 0 when it has no entries
    std::uint64_t payload_bytes = 0;
};

struct BucketPlan {
    std::vector<PiecePlan> pieces;  ///< by trainer
};

struct RefitManifest {
    std::vector<ParameterMeta> parameters;
    std::vector<BucketPlan> buckets;

    /// Payload and scales, each once, without headers and digests.
    [[nodiscard]] std::uint64_t payload_bytes() const;
    /// Index of a parameter by name, or -1.
    [[nodiscard]] std::int64_t find(const std::string& name) const;
};

/// A cell of a parameter: the rectangle between neighbouring cuts.
struct Cell {
    std::uint32_t index = 0;  ///< row_cell * col_cells + col_cell
    core::Region region;      ///< global
};
/// The parts of the parameter's cells that lie within `region`, in index order (clipped to it).
[[nodiscard]] std::vector<Cell> cells_in_region(const ParameterMeta& parameter,
                                                const core::Region& region);
/// The same for rows of the whole width.
[[nodiscard]] std::vector<Cell> cells_within(const ParameterMeta& parameter,
                                             const core::RowRange& rows);

[[nodiscard]] std::string to_json(const RefitManifest& manifest);
/// Throws Error when the text is malformed or an entry leaves its piece or its parameter.
[[nodiscard]] RefitManifest manifest_from_json(const std::string& text);

}  // namespace refit::wire
