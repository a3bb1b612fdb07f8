// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "wire/kernel_layout.hpp"

#include <charconv>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.hpp"

namespace refit::wire {

using nlohmann::json;

namespace {

constexpr std::string_view kRankMark = "@tp";

[[noreturn]] void malformed(const std::string& what) {
    throw core::Error(core::ExitCode::environment,
                      "the kernel layout of the receivers is malformed: " + what);
}

void require_inside(const KernelParameter& parameter, const KernelPart& part) {
    const std::int64_t rows =
        parameter.cols > 0 ? core::element_count(parameter.shape) / parameter.cols : 0;
    const core::Region& region = part.region;
    const bool inside = region.row >= 0 && region.col >= 0 && region.rows > 0 && region.cols > 0 &&
                        part.row >= 0 && part.col >= 0 && part.row + region.rows <= rows &&
                        part.col + region.cols <= parameter.cols;
    if (!inside) malformed("a part of " + part.source + " leaves " + parameter.name);
}

}  // namespace

KernelCuts kernel_cuts(const KernelParameter& parameter) {
    const std::int64_t rows = core::matrix_rows(parameter.shape);
    const std::int64_t cols = core::matrix_cols(parameter.shape);
    std::set<std::int64_t> row_cuts = {0, rows};
    std::set<std::int64_t> col_cuts = {0, cols};
    for (const KernelPart& part : parameter.parts) {
        const std::int64_t end = part.row + part.region.rows;
        if (parameter.cols == cols) {
            row_cuts.insert({part.row, end});
            col_cuts.insert({part.col, part.col + part.region.cols});
        } else if (parameter.shape.size() == 3 && part.region.cols == parameter.cols) {
            const std::int64_t expert_rows = parameter.shape[1];
            for (const std::int64_t row : {part.row, end}) {
                if (row % expert_rows == 0) row_cuts.insert(row / expert_rows);
                col_cuts.insert(row % expert_rows * parameter.cols);
            }
            // What begins within one expert and ends within another touches both.
            row_cuts.insert({part.row / expert_rows, core::ceil_div(end, expert_rows)});
        }
    }
    return {{row_cuts.begin(), row_cuts.end()}, {col_cuts.begin(), col_cuts.end()}};
}

std::string kernel_wire_name(const std::string& name, int tp_rank, int tp) {
    return tp == 1 ? name : name + std::string(kRankMark) + std::to_string(tp_rank);
}

KernelName parse_kernel_wire_name(const std::string& wire_name) {
    const std::size_t at = wire_name.rfind(kRankMark);
    if (at == std::string::npos) return {wire_name, -1};
    int rank = -1;
    const char* first = wire_name.data() + at + kRankMark.size();
    const char* last = wire_name.data() + wire_name.size();
    const auto [end, error] = std::from_chars(first, last, rank);
    if (error != std::errc() || end != last || rank < 0) return {wire_name, -1};
    return {wire_name.substr(0, at), rank};
}

std::string to_json(const KernelLayout& layout) {
    json rows = json::array();
    for (const KernelParameter& p : layout.parameters) {
        json parts = json::array();
        for (const KernelPart& part : p.parts) {
            parts.push_back({part.source, part.region.row, part.region.col, part.region.rows,
                             part.region.cols, part.row, part.col});
        }
        rows.push_back({p.name, p.tp_rank, core::safetensors_name(p.dtype), p.shape, p.cols,
                        p.is_scale, p.scale_of, std::move(parts)});
    }
    return json{{"tp", layout.tp}, {"parameters", std::move(rows)}}.dump();
}

KernelLayout kernel_layout_from_json(const std::string& text) {
    KernelLayout layout;
    try {
        const json root = json::parse(text);
        layout.tp = root.at("tp").get<int>();
        for (const json& row : root.at("parameters")) {
            KernelParameter p;
            p.name = row.at(0).get<std::string>();
            p.tp_rank = row.at(1).get<int>();
            const auto dtype = core::from_safetensors_name(row.at(2).get<std::string>());
            if (!dtype) malformed("dtype of " + p.name);
            p.dtype = *dtype;
            p.shape = row.at(3).get<core::Shape>();
            p.cols = row.at(4).get<std::int64_t>();
            p.is_scale = row.at(5).get<bool>();
            p.scale_of = row.at(6).get<std::string>();
            for (const json& one : row.at(7)) {
                KernelPart part;
                part.source = one.at(0).get<std::string>();
                part.region = {one.at(1).get<std::int64_t>(), one.at(2).get<std::int64_t>(),
                               one.at(3).get<std::int64_t>(), one.at(4).get<std::int64_t>()};
                part.row = one.at(5).get<std::int64_t>();
                part.col = one.at(6).get<std::int64_t>();
                require_inside(p, part);
                p.parts.push_back(std::move(part));
            }
            layout.parameters.push_back(std::move(p));
        }
    } catch (const json::exception& error) {
        malformed(error.what());
    }
    return layout;
}

}  // namespace refit::wire
