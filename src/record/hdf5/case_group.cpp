// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "record/hdf5/case_group.hpp"

#include <fmt/format.h>
#include <hdf5_hl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "record/hdf5/attributes.hpp"
#include "record/hdf5/handles.hpp"
#include "record/hdf5/table.hpp"

namespace refit::record::hdf5 {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

void write_samples(hid_t parent, const std::string& name, const Samples& samples,
                   std::size_t iterations, std::size_t ranks, const Handle& iteration_scale,
                   const Handle& rank_scale) {
    std::vector<double> values(iterations * ranks + 1, kNan);  // [iteration, rank]
    for (std::size_t i = 0; i < samples.size(); ++i) {
        std::copy(samples[i].begin(), samples[i].end(),
                  values.begin() + static_cast<std::ptrdiff_t>(i * ranks));
    }
    const std::array<hsize_t, 2> extent = {iterations, ranks};
    const Handle space(H5Screate_simple(2, extent.data(), nullptr), H5Sclose, "making a dataspace");
    const Handle dataset(H5Dcreate2(parent, name.c_str(), H5T_NATIVE_DOUBLE, space.get(),
                                    H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                         H5Dclose, "creating dataset " + name);
    checked(
        H5Dwrite(dataset.get(), H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()),
        "writing dataset " + name);
    set_text(dataset.get(), "unit", "s");
    checked(H5DSattach_scale(dataset.get(), iteration_scale.get(), 0), "attaching a scale");
    checked(H5DSattach_scale(dataset.get(), rank_scale.get(), 1), "attaching a scale");
}

void write_tensors(hid_t parent, const Handle& dimensions, const std::vector<TensorRow>& rows) {
    Table table(rows.size());
    table.texts("name", [&](std::size_t i) { return rows[i].name; });
    table.texts("role", [&](std::size_t i) { return rows[i].role; });
    table.integers("rows", "1", [&](std::size_t i) { return rows[i].rows; });
    table.integers("cols", "1", [&](std::size_t i) { return rows[i].cols; });
    table.integers("bytes", "B", [&](std::size_t i) { return rows[i].bytes; });
    table.texts("recipe", [&](std::size_t i) { return rows[i].recipe; });
    table.reals("sqnr_db", "dB", [&](std::size_t i) { return rows[i].sqnr_db; });
    table.reals("expected_sqnr_db", "dB", [&](std::size_t i) { return rows[i].expected_sqnr_db; });
    table.reals("max_error_over_bound", "1",
                [&](std::size_t i) { return rows[i].max_error_over_bound; });
    table.integers("saturated", "1", [&](std::size_t i) { return rows[i].saturated; });
    table.integers("flushed", "1", [&](std::size_t i) { return rows[i].flushed; });
    table.texts("digest", [&](std::size_t i) { return rows[i].digest; });
    table.integers("exact", "1", [&](std::size_t i) { return rows[i].exact; });
    table.integers("subnormal", "1", [&](std::size_t i) { return rows[i].subnormal; });
    table.reals("relative_error", "1", [&](std::size_t i) { return rows[i].relative_error; });
    table.reals("cosine", "1", [&](std::size_t i) { return rows[i].cosine; });
    table.reals("output_snr_db", "dB", [&](std::size_t i) { return rows[i].output_snr_db; });
    table.reals("expected_output_snr_db", "dB",
                [&](std::size_t i) { return rows[i].expected_output_snr_db; });
    table.write(parent, "tensors", index_scale(dimensions.get(), "tensor", rows.size()));
}

void write_buckets(hid_t parent, const Handle& dimensions, const std::vector<BucketRow>& rows) {
    Table table(rows.size());
    table.integers("index", "1", [&](std::size_t i) { return rows[i].index; });
    table.integers("rank", "1", [&](std::size_t i) { return rows[i].rank; });
    table.integers("bytes", "B", [&](std::size_t i) { return rows[i].bytes; });
    for (const char* stage : kStages) {
        const auto time = [&rows, stage](std::size_t i, bool end) {
            const auto found = rows[i].stage.find(stage);
            if (found == rows[i].stage.end()) return kNan;
            return end ? found->second.second : found->second.first;
        };
        table.reals(std::string(stage) + "_start", "s",
                    [&](std::size_t i) { return time(i, false); });
        table.reals(std::string(stage) + "_end", "s", [&](std::size_t i) { return time(i, true); });
    }
    table.write(parent, "buckets", index_scale(dimensions.get(), "bucket_row", rows.size()));
}

void write_findings(hid_t parent, const Handle& dimensions, const core::Findings& rows) {
    Table table(rows.size());
    table.texts("check", [&](std::size_t i) { return rows[i].check; });
    table.texts("severity", [&](std::size_t i) {
        return std::string(rows[i].severity == core::Severity::warning ? "warning" : "error");
    });
    table.texts("tensor", [&](std::size_t i) { return rows[i].tensor; });
    table.texts("index", [&](std::size_t i) {
        std::string text;
        for (const std::int64_t value : rows[i].index) {
            text += fmt::format("{}{}", text.empty() ? "" : ", ", value);
        }
        return "[" + text + "]";
    });
    table.texts("measured", [&](std::size_t i) { return rows[i].measured; });
    table.texts("limit", [&](std::size_t i) { return rows[i].limit; });
    table.integers("rank", "1", [&](std::size_t i) { return rows[i].rank; });
    table.texts("message", [&](std::size_t i) { return rows[i].message; });
    table.texts("engine_behaviour", [&](std::size_t i) { return rows[i].engine_behaviour; });
    table.texts("engine_message", [&](std::size_t i) { return rows[i].engine_message; });
    table.texts("remedy", [&](std::size_t i) { return rows[i].remedy; });
    table.write(parent, "findings", index_scale(dimensions.get(), "finding", rows.size()));
}

/// A count for each bin, with the bins' positions as its dimension scale.
void write_histogram(hid_t parent, const std::string& name, const std::string& scale_name,
                     std::vector<double> positions, std::vector<std::int64_t> counts) {
    const hsize_t bins = counts.size();
    const Handle space = simple_space(bins);
    positions.push_back(0.0);  // data() of an empty vector may be null, which H5Dwrite refuses
    counts.push_back(0);
    const Handle scale(H5Dcreate2(parent, scale_name.c_str(), H5T_NATIVE_DOUBLE, space.get(),
                                  H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                       H5Dclose, "creating dataset " + scale_name);
    checked(
        H5Dwrite(scale.get(), H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, positions.data()),
        "writing dataset " + scale_name);
    set_text(scale.get(), "unit", "1");
    checked(H5DSset_scale(scale.get(), scale_name.c_str()),
            "making the dimension scale " + scale_name);
    const Handle dataset(H5Dcreate2(parent, name.c_str(), H5T_NATIVE_INT64, space.get(),
                                    H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                         H5Dclose, "creating dataset " + name);
    checked(H5Dwrite(dataset.get(), H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, counts.data()),
            "writing dataset " + name);
    set_text(dataset.get(), "unit", "1");
    checked(H5DSattach_scale(dataset.get(), scale.get(), 0), "attaching the scale of " + name);
}

/// Nothing where no code was loaded.
void write_histograms(hid_t parent, const CaseRecord& record) {
    if (record.code_histogram.empty()) return;
    const Handle folder = group(parent, "histograms");
    std::vector<double> codes(record.code_histogram.size());
    for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<double>(i);
    write_histogram(folder.get(), "codes", "code", std::move(codes), record.code_histogram);
    std::vector<double> edges;
    std::vector<std::int64_t> counts;
    for (const auto& [edge, count] : record.scale_histogram) {
        edges.push_back(edge);
        counts.push_back(count);
    }
    set_real(folder.get(), "scale_bin_width", record.scale_bin_width);
    write_histogram(folder.get(), "scales", "scale_log2", std::move(edges), std::move(counts));
}

void write_all_samples(hid_t parent, const CaseRecord& record) {
    std::size_t iterations = 0;
    std::size_t ranks = 0;
    for (const auto& [name, samples] : record.samples) {
        iterations = std::max(iterations, samples.size());
        for (const std::vector<double>& row : samples) ranks = std::max(ranks, row.size());
    }
    // Readers of the netCDF model look for a dimension in the dataset's group and those above it.
    const Handle iteration_scale = index_scale(parent, "iteration", iterations);
    const Handle rank_scale = index_scale(parent, "rank", ranks);
    const Handle folder = group(parent, "samples");
    for (const auto& [name, samples] : record.samples) {
        write_samples(folder.get(), name, samples, iterations, ranks, iteration_scale, rank_scale);
    }
}

}  // namespace

void write_case(hid_t cases, std::size_t number, const CaseRecord& record) {
    const Handle folder = group(cases, fmt::format("{:03}", number));
    const hid_t id = folder.get();
    const WallSummary wall = wall_of(record);

    set_text(id, "scenario", record.scenario);
    set_text(id, "purpose", record.purpose);
    set_text(id, "case", record.case_name);
    set_text(id, "model", record.model);
    set_text(id, "scheme", record.scheme);
    set_text(id, "recipe", record.recipe);
    set_text(id, "engine", record.engine);
    set_integer(id, "tp", record.tp);
    set_integer(id, "engines", record.engines);
    set_text(id, "transport", record.transport);
    set_text(id, "backend", record.backend);
    set_text(id, "outcome", record.outcome);
    set_text(id, "skip_reason", record.skip_reason);
    set_integer(id, "tensors", record.tensors);
    set_integer(id, "bytes_bf16", record.bytes_bf16);
    set_integer(id, "bytes_wire", record.bytes_wire);
    set_real(id, "byte_ratio", byte_ratio(record));
    set_text(id, "byte_ratio_formula", "bytes_wire / bytes_bf16");
    set_integer(id, "iterations", record.iterations);
    set_real(id, "audit_s", record.audit_s);
    set_integer(id, "cores", record.cores);
    set_real(id, "algbw_bytes_per_s", algbw_bytes_per_s(record));
    set_text(id, "algbw_bytes_per_s_formula", "bytes_wire / wall_s.median");

    const Handle wall_group = group(id, "wall_s");
    set_real(wall_group.get(), "median", wall.median);
    set_real(wall_group.get(), "min", wall.min);
    set_real(wall_group.get(), "max", wall.max);
    set_reals(wall_group.get(), "samples", wall.samples);
    set_text(wall_group.get(), "formula",
             "median, min and max over iterations of the maximum over ranks of samples/wall");

    const Handle stages = group(id, "stages");
    set_text(stages.get(), "formula",
             "median over iterations of the maximum over ranks of samples/<stage>; slowest_rank "
             "has the largest median over iterations");
    const auto summaries = stages_of(record);
    std::set<std::string> names(std::begin(kStages), std::end(kStages));
    for (const auto& [name, summary] : summaries) names.insert(name);
    for (const std::string& name : names) {
        const Handle stage = group(stages.get(), name);
        const auto found = summaries.find(name);
        if (found == summaries.end()) continue;
        set_real(stage.get(), "median_s", found->second.median_s);
        set_integer(stage.get(), "slowest_rank", found->second.slowest_rank);
    }

    const Handle cpu = group(id, "cpu_s");
    set_real(cpu.get(), "sum", record.cpu_s_sum);
    set_bool(cpu.get(), "waiting_excluded", true);

    const Handle link = group(id, "link");
    set_real(link.get(), "bytes_per_s", record.link_bytes_per_s.value_or(kNan));
    set_bool(link.get(), "emulated", record.link_emulated);

    const Handle floor = group(id, "floor");
    const bool has_floor = record.floor_wall_s > 0.0;
    set_real(floor.get(), "wall_s", has_floor ? record.floor_wall_s : kNan);
    set_real(floor.get(), "wall_over_floor", has_floor ? wall.median / record.floor_wall_s : kNan);
    set_text(floor.get(), "formula", record.floor_formula);

    const Handle rss = group(id, "peak_rss_bytes");
    set_integer(rss.get(), "max", record.peak_rss_max_bytes);
    set_integer(rss.get(), "sum", record.peak_rss_sum_bytes);

    const Handle accuracy = group(id, "accuracy");
    set_real(accuracy.get(), "sqnr_db", record.sqnr_db.value_or(kNan));
    set_text(accuracy.get(), "sqnr_db_formula", "10 log10(sum x^2 / sum (x - d)^2)");
    set_real(accuracy.get(), "max_error_over_bound", record.max_error_over_bound);
    set_integer(accuracy.get(), "saturated", record.saturated);
    set_integer(accuracy.get(), "flushed", record.flushed);
    set_integer(accuracy.get(), "exact", record.exact);
    set_integer(accuracy.get(), "subnormal", record.subnormal);
    set_real(accuracy.get(), "output_snr_db", record.output_snr_db.value_or(kNan));
    set_real(accuracy.get(), "expected_output_snr_db",
             record.expected_output_snr_db.value_or(kNan));
    set_text(accuracy.get(), "output_snr_db_formula",
             "-10 log10(mean over tensors of sum (y' - y)^2 / sum y^2)");

    const Handle notes = group(id, "notes");
    for (const auto& [key, value] : record.notes) set_text(notes.get(), key, value);

    const Handle dimensions = group(id, "dimensions");
    write_all_samples(id, record);
    write_histograms(id, record);
    write_tensors(id, dimensions, record.tensor_rows);
    write_buckets(id, dimensions, record.bucket_rows);
    write_findings(id, dimensions, record.findings);
}

}  // namespace refit::record::hdf5
