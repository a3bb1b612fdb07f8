// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "wire/manifest.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.hpp"

namespace refit::wire {
namespace {

using nlohmann::json;

[[noreturn]] void malformed(const std::string& what) {
    throw core::Error(core::ExitCode::environment,
                      "the refit manifest is malformed: " + what +
                          "; trainers and receivers must run the same build");
}

void check_entry(const RefitManifest& manifest, const PieceEntry& entry,
                 std::uint64_t piece_bytes) {
    if (entry.parameter >= manifest.parameters.size())
        malformed("an entry names a parameter that is not listed");
    const ParameterMeta& meta = manifest.parameters[entry.parameter];
    if (entry.rows.begin < 0 || entry.rows.empty() || entry.rows.end > meta.rows() ||
        entry.cols.begin < 0 || entry.cols.empty() || entry.cols.end > meta.cols()) {
        malformed("an entry of " + meta.name + " leaves its parameter");
    }
    if (entry.bytes != static_cast<std::uint64_t>(entry.rows.count() * entry.cols.count() *
                                                  core::size_bytes(meta.dtype))) {
        malformed("an entry of " + meta.name + " has a size that its rectangle does not give");
    }
    if (entry.offset > piece_bytes || entry.bytes > piece_bytes - entry.offset) {
        malformed("an entry of " + meta.name + " leaves its piece");
    }
}

/// Cell boundaries lead from 0 to the extent and never back; a cell outside would be read outside.
bool are_cuts(const std::vector<std::int64_t>& cuts, std::int64_t extent) {
    return cuts.size() >= 2 && cuts.front() == 0 && cuts.back() == extent &&
           std::is_sorted(cuts.begin(), cuts.end());
}

}  // namespace

std::uint64_t RefitManifest::payload_bytes() const {
    std::uint64_t sum = 0;
    for (const BucketPlan& bucket : buckets) {
        for (const PiecePlan& piece : bucket.pieces) sum += piece.payload_bytes;
    }
    return sum;
}

std::int64_t RefitManifest::find(const std::string& name) const {
    for (std::size_t i = 0; i < parameters.size(); ++i) {
        if (parameters[i].name == name) return static_cast<std::int64_t>(i);
    }
    return -1;
}

std::vector<Cell> cells_within(const ParameterMeta& parameter, const core::RowRange& rows) {
    return cells_in_region(parameter, core::Region{rows.begin, 0, rows.count(), parameter.cols()});
}

std::vector<Cell> cells_in_region(const ParameterMeta& parameter, const core::Region& region) {
    std::vector<Cell> cells;
    const auto& row_cuts = parameter.row_cuts;
    const auto& col_cuts = parameter.col_cuts;
    const std::size_t col_cells = col_cuts.size() - 1;
    for (std::size_t i = 0; i + 1 < row_cuts.size(); ++i) {
        const std::int64_t begin = std::max(row_cuts[i], region.row);
        const std::int64_t end = std::min(row_cuts[i + 1], region.row + region.rows);
        if (begin >= end) continue;
        for (std::size_t j = 0; j < col_cells; ++j) {
            const std::int64_t left = std::max(col_cuts[j], region.col);
            const std::int64_t right = std::min(col_cuts[j + 1], region.col + region.cols);
            if (left >= right) continue;
            cells.push_back({static_cast<std::uint32_t>(i * col_cells + j),
                             {begin, left, end - begin, right - left}});
        }
    }
    return cells;
}

std::string to_json(const RefitManifest& manifest) {
    json root;
    root["parameters"] = json::array();
    for (const ParameterMeta& p : manifest.parameters) {
        root["parameters"].push_back({p.name, static_cast<int>(p.kind),
                                      core::safetensors_name(p.dtype), p.shape, p.recipe,
                                      p.scale_of, p.row_cuts, p.col_cuts});
    }
    root["buckets"] = json::array();
    for (const BucketPlan& bucket : manifest.buckets) {
        json pieces = json::array();
        for (const PiecePlan& piece : bucket.pieces) {
            json entries = json::array();
            for (const PieceEntry& e : piece.entries) {
                const core::Region region = e.region(manifest.parameters[e.parameter]);
                entries.push_back({e.parameter, e.rows.begin, e.rows.end, e.offset, e.bytes,
                                   region.col, region.col + region.cols});
            }
            pieces.push_back({piece.bytes, piece.payload_bytes, std::move(entries)});
        }
        root["buckets"].push_back(std::move(pieces));
    }
    return root.dump();
}

RefitManifest manifest_from_json(const std::string& text) {
    RefitManifest manifest;
    try {
        const json root = json::parse(text);
        for (const json& row : root.at("parameters")) {
            ParameterMeta p;
            p.name = row.at(0).get<std::string>();
            const int kind = row.at(1).get<int>();
            if (kind < 0 || kind > static_cast<int>(ParameterKind::scale)) {
                malformed("kind of " + p.name);
            }
            p.kind = static_cast<ParameterKind>(kind);
            const auto dtype = core::from_safetensors_name(row.at(2).get<std::string>());
            if (!dtype) malformed("dtype of " + p.name);
            p.dtype = *dtype;
            p.shape = row.at(3).get<core::Shape>();
            p.recipe = row.at(4).get<std::string>();
            p.scale_of = row.at(5).get<std::string>();
            p.row_cuts = row.at(6).get<std::vector<std::int64_t>>();
            p.col_cuts = row.at(7).get<std::vector<std::int64_t>>();
            if (!are_cuts(p.row_cuts, p.rows()) || !are_cuts(p.col_cuts, p.cols())) {
                malformed("cuts of " + p.name);
            }
            manifest.parameters.push_back(std::move(p));
        }
        for (const json& bucket_row : root.at("buckets")) {
            BucketPlan bucket;
            for (const json& piece_row : bucket_row) {
                PiecePlan piece;
                piece.bytes = piece_row.at(0).get<std::uint64_t>();
                piece.payload_bytes = piece_row.at(1).get<std::uint64_t>();
                for (const json& e : piece_row.at(2)) {
                    PieceEntry entry;
                    entry.parameter = e.at(0).get<std::uint32_t>();
                    entry.rows = {e.at(1).get<std::int64_t>(), e.at(2).get<std::int64_t>()};
                    entry.offset = e.at(3).get<std::uint64_t>();
                    entry.bytes = e.at(4).get<std::uint64_t>();
                    entry.cols = {e.at(5).get<std::int64_t>(), e.at(6).get<std::int64_t>()};
                    check_entry(manifest, entry, piece.bytes);
                    piece.entries.push_back(entry);
                }
                bucket.pieces.push_back(std::move(piece));
            }
            manifest.buckets.push_back(std::move(bucket));
        }
    } catch (const json::exception& error) {
        malformed(error.what());
    }
    return manifest;
}

}  // namespace refit::wire
