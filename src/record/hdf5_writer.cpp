// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "record/hdf5_writer.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <hdf5.h>
#include <hdf5_hl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <set>
#include <system_error>
#include <utility>

#include "core/error.hpp"
#include "core/shape.hpp"
#include "record/build_info.hpp"

namespace refit::record {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr int kMostCounters = 1'000'000;
// A name may have 255 bytes; time, counter, and what the temporary file adds, need some of them.
constexpr std::size_t kLongestStem = 180;

// ---------------------------------------------------------------------------------------------
// HDF5 handles and errors

/// Keeps the innermost description of HDF5's error stack: the outer ones only repeat who called
/// whom.
herr_t keep_description(unsigned, const H5E_error2_t* entry, void* text) {
    if (entry->desc != nullptr) *static_cast<std::string*>(text) = entry->desc;
    return 0;
}

[[noreturn]] void fail(const std::string& what) {
    std::string description;
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, keep_description, &description);
    throw core::RecordError(fmt::format("{} failed in HDF5 {}: {}", what, hdf5_version(),
                                        description.empty() ? "no description" : description));
}

template <typename Status>
Status checked(Status status, const std::string& what) {
    if (status < 0) fail(what);
    return status;
}

/// One HDF5 identifier, closed at the end of the scope.
class Handle {
 public:
    using Close = herr_t (*)(hid_t);
    Handle(hid_t id, Close close, const std::string& what)
        : id_(checked(id, what)), close_(close) {}
    Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    Handle& operator=(Handle&&) = delete;
    ~Handle() {
        if (id_ >= 0) close_(id_);
    }
    [[nodiscard]] hid_t get() const { return id_; }

 private:
    hid_t id_;
    Close close_;
};

/// HDF5 prints its error stack by itself unless told not to; errors belong into RecordError.
class QuietErrors {
 public:
    QuietErrors() {
        H5Eget_auto2(H5E_DEFAULT, &function_, &data_);
        H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    }
    QuietErrors(const QuietErrors&) = delete;
    QuietErrors& operator=(const QuietErrors&) = delete;
    ~QuietErrors() { H5Eset_auto2(H5E_DEFAULT, function_, data_); }

 private:
    H5E_auto2_t function_ = nullptr;
    void* data_ = nullptr;
};

/// Tracking the order of attributes gives an object the second header version, the only one that
/// holds attributes above 64 KiB (a long argument list).
void track_attributes(const Handle& properties) {
    checked(H5Pset_attr_creation_order(properties.get(), H5P_CRT_ORDER_TRACKED),
            "tracking the order of attributes");
}

Handle group(hid_t parent, const std::string& name) {
    const Handle properties(H5Pcreate(H5P_GROUP_CREATE), H5Pclose, "making group properties");
    track_attributes(properties);
    return {H5Gcreate2(parent, name.c_str(), H5P_DEFAULT, properties.get(), H5P_DEFAULT), H5Gclose,
            "creating group " + name};
}

Handle string_type() {
    Handle type(H5Tcopy(H5T_C_S1), H5Tclose, "making a string type");
    checked(H5Tset_size(type.get(), H5T_VARIABLE), "making a string type");
    checked(H5Tset_cset(type.get(), H5T_CSET_UTF8), "making a string type");
    return type;
}

/// The enumeration that h5py reads as a bool.
Handle bool_type() {
    Handle type(H5Tenum_create(H5T_NATIVE_INT8), H5Tclose, "making a bool type");
    const std::int8_t values[] = {0, 1};
    checked(H5Tenum_insert(type.get(), "FALSE", &values[0]), "making a bool type");
    checked(H5Tenum_insert(type.get(), "TRUE", &values[1]), "making a bool type");
    return type;
}

Handle simple_space(hsize_t count) {
    return {H5Screate_simple(1, &count, nullptr), H5Sclose, "making a dataspace"};
}

// ---------------------------------------------------------------------------------------------
// Attributes

void write_attribute(hid_t object, const std::string& name, hid_t type, const Handle& space,
                     const void* value) {
    const Handle attribute(
        H5Acreate2(object, name.c_str(), type, space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose,
        "creating attribute " + name);
    checked(H5Awrite(attribute.get(), type, value), "writing attribute " + name);
}

Handle scalar_space() {
    return {H5Screate(H5S_SCALAR), H5Sclose, "making a dataspace"};
}

void set_text(hid_t object, const std::string& name, const std::string& value) {
    const char* pointer = value.c_str();
    write_attribute(object, name, string_type().get(), scalar_space(), &pointer);
}

void set_integer(hid_t object, const std::string& name, std::int64_t value) {
    write_attribute(object, name, H5T_NATIVE_INT64, scalar_space(), &value);
}

void set_real(hid_t object, const std::string& name, double value) {
    write_attribute(object, name, H5T_NATIVE_DOUBLE, scalar_space(), &value);
}

void set_bool(hid_t object, const std::string& name, bool value) {
    const std::int8_t stored = value ? 1 : 0;
    write_attribute(object, name, bool_type().get(), scalar_space(), &stored);
}

void set_texts(hid_t object, const std::string& name, const std::vector<std::string>& values) {
    std::vector<const char*> pointers;
    for (const std::string& value : values) pointers.push_back(value.c_str());
    pointers.push_back(nullptr);  // data() of an empty vector may be null, which H5Awrite refuses
    write_attribute(object, name, string_type().get(), simple_space(values.size()),
                    pointers.data());
}

void set_reals(hid_t object, const std::string& name, std::vector<double> values) {
    const hsize_t count = values.size();
    values.push_back(0.0);
    write_attribute(object, name, H5T_NATIVE_DOUBLE, simple_space(count), values.data());
}

// ---------------------------------------------------------------------------------------------
// Datasets

/// A dimension scale 0, 1, 2 ... of `count` values.
Handle index_scale(hid_t parent, const std::string& name, std::size_t count) {
    std::vector<std::int64_t> values(count + 1);
    for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<std::int64_t>(i);
    const Handle space = simple_space(count);
    Handle dataset(H5Dcreate2(parent, name.c_str(), H5T_NATIVE_INT64, space.get(), H5P_DEFAULT,
                              H5P_DEFAULT, H5P_DEFAULT),
                   H5Dclose, "creating dataset " + name);
    checked(H5Dwrite(dataset.get(), H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()),
            "writing dataset " + name);
    set_text(dataset.get(), "unit", "1");
    checked(H5DSset_scale(dataset.get(), name.c_str()), "making the dimension scale " + name);
    return dataset;
}

/// A compound dataset, column by column. Every cell takes 8 bytes: a pointer, an int64 or a double.
class Table {
 public:
    explicit Table(std::size_t rows) : rows_(rows) {}

    /// `text(i)` returns a string; the table keeps the copy that HDF5 reads from.
    template <typename Text>
    void texts(const std::string& name, Text text) {
        auto& strings = storage_.emplace_back();
        strings.reserve(rows_);
        std::vector<Cell> cells(rows_);
        for (std::size_t i = 0; i < rows_; ++i) {
            strings.push_back(text(i));
            cells[i].pointer = strings.back().c_str();
        }
        columns_.push_back({name, "", Kind::text, std::move(cells)});
    }
    template <typename Value>
    void integers(const std::string& name, const std::string& unit, Value value) {
        std::vector<Cell> cells(rows_);
        for (std::size_t i = 0; i < rows_; ++i) cells[i].integer = value(i);
        columns_.push_back({name, unit, Kind::integer, std::move(cells)});
    }
    template <typename Value>
    void reals(const std::string& name, const std::string& unit, Value value) {
        std::vector<Cell> cells(rows_);
        for (std::size_t i = 0; i < rows_; ++i) cells[i].real = value(i);
        columns_.push_back({name, unit, Kind::real, std::move(cells)});
    }

    void write(hid_t parent, const std::string& name, const Handle& scale) const {
        const Handle text = string_type();
        const Handle type(H5Tcreate(H5T_COMPOUND, columns_.size() * sizeof(Cell)), H5Tclose,
                          "making the row type of " + name);
        for (std::size_t c = 0; c < columns_.size(); ++c) {
            const hid_t cell = columns_[c].kind == Kind::text      ? text.get()
                               : columns_[c].kind == Kind::integer ? H5T_NATIVE_INT64
                                                                   : H5T_NATIVE_DOUBLE;
            checked(H5Tinsert(type.get(), columns_[c].name.c_str(), c * sizeof(Cell), cell),
                    "making the row type of " + name);
        }
        std::vector<Cell> cells;
        cells.reserve(rows_ * columns_.size() + 1);
        for (std::size_t row = 0; row < rows_; ++row) {
            for (const Column& column : columns_) cells.push_back(column.cells[row]);
        }
        cells.push_back({});

        const Handle space = simple_space(rows_);
        const Handle dataset(H5Dcreate2(parent, name.c_str(), type.get(), space.get(), H5P_DEFAULT,
                                        H5P_DEFAULT, H5P_DEFAULT),
                             H5Dclose, "creating table " + name);
        checked(H5Dwrite(dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, cells.data()),
                "writing table " + name);
        set_text(dataset.get(), "unit", "1");
        for (const Column& column : columns_) {
            if (!column.unit.empty()) {
                set_text(dataset.get(), "unit_" + column.name, column.unit);
            }
        }
        checked(H5DSattach_scale(dataset.get(), scale.get(), 0), "attaching the scale of " + name);
    }

 private:
    union Cell {
        const char* pointer = nullptr;
        std::int64_t integer;
        double real;
    };
    static_assert(sizeof(Cell) == 8);
    enum class Kind { text, integer, real };
    struct Column {
        std::string name;
        std::string unit;
        Kind kind;
        std::vector<Cell> cells;
    };
    std::size_t rows_;
    std::vector<Column> columns_;
    std::vector<std::vector<std::string>> storage_;
};

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

// ---------------------------------------------------------------------------------------------
// The parts of a record

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

void write_ranks(hid_t parent, const std::vector<RankRow>& rows) {
    const Handle dimensions = group(parent, "dimensions");
    Table table(rows.size());
    table.integers("rank", "1", [&](std::size_t i) { return rows[i].rank; });
    table.texts("host", [&](std::size_t i) { return rows[i].host; });
    table.texts("role", [&](std::size_t i) { return rows[i].role; });
    table.integers("pid", "1", [&](std::size_t i) { return rows[i].pid; });
    table.texts("device", [&](std::size_t i) { return rows[i].device; });
    table.write(parent, "ranks", index_scale(dimensions.get(), "rank_row", rows.size()));
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

void write_root(hid_t file, const RunRecord& record) {
    set_text(file, "schema", "refitbench.record/1");
    set_text(file, "created_utc", record.created_utc);
    set_texts(file, "argv", record.argv);
    set_text(file, "scenario_text", record.scenario_text);
    set_text(file, "verdict", record.verdict);
    set_integer(file, "exit_code", record.exit_code);
    if (record.verdict == "error") {
        set_integer(file, "error_rank", record.error_rank.value_or(-1));
        set_text(file, "error_stage", record.error_stage);
        set_text(file, "error_message", record.error_message);
    }

    const Handle tool = group(file, "tool");
    set_text(tool.get(), "name", "refitbench");
    set_text(tool.get(), "version", tool_version());
    set_text(tool.get(), "commit", tool_commit());
    set_bool(tool.get(), "dirty", tool_dirty());

    const Handle world = group(file, "world");
    set_integer(world.get(), "size", record.trainers + record.receivers);
    set_integer(world.get(), "trainers", record.trainers);
    set_integer(world.get(), "receivers", record.receivers);

    const Handle environment = group(file, "environment");
    std::map<std::string, std::string> facts = record.environment;
    facts.emplace("commit", tool_commit());
    facts.emplace("dirty", tool_dirty() ? "true" : "false");
    facts.emplace("compiler", compiler());
    facts.emplace("flags", compiler_flags());
    facts.emplace("hdf5", hdf5_version());
    for (const auto& [key, value] : facts) set_text(environment.get(), key, value);

    const Handle ceilings = group(file, "ceilings");
    for (const Ceiling& ceiling : record.ceilings) {
        const Handle space = scalar_space();
        const Handle dataset(H5Dcreate2(ceilings.get(), ceiling.name.c_str(), H5T_NATIVE_DOUBLE,
                                        space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                             H5Dclose, "creating ceiling " + ceiling.name);
        checked(H5Dwrite(dataset.get(), H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT,
                         &ceiling.value),
                "writing ceiling " + ceiling.name);
        set_text(dataset.get(), "unit", ceiling.unit.empty() ? "1" : ceiling.unit);
        set_text(dataset.get(), "how", ceiling.how);
    }

    write_ranks(file, record.ranks);
    const Handle cases = group(file, "cases");
    for (std::size_t i = 0; i < record.cases.size(); ++i) {
        write_case(cases.get(), i, record.cases[i]);
    }
}

/// The bytes of the file. Building it in memory keeps every error of the disk out of HDF5, whose
/// H5Fclose on a full disk leaves identifiers that fail again when the process ends.
std::vector<std::uint8_t> file_image(const RunRecord& record) {
    constexpr std::size_t kGrow = std::size_t{4} << 20;  // memory grows by 4 MiB at a time
    const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "making access properties");
    checked(H5Pset_fapl_core(access.get(), kGrow, 0), "choosing the memory driver");
    // The file format keeps its oldest superblock: up to HDF5 1.14.6 H5Fget_file_image clears the
    // status flags of a newer one without renewing its checksum, and such a file cannot be opened.
    const Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose, "making creation properties");
    track_attributes(creation);
    const Handle file(
        H5Fcreate("refitbench-record-in-memory", H5F_ACC_TRUNC, creation.get(), access.get()),
        H5Fclose, "creating the file in memory");
    write_root(file.get(), record);
    checked(H5Fflush(file.get(), H5F_SCOPE_GLOBAL), "flushing");
    const ssize_t size = checked(H5Fget_file_image(file.get(), nullptr, 0), "sizing the file");
    std::vector<std::uint8_t> image(static_cast<std::size_t>(size));
    checked(H5Fget_file_image(file.get(), image.data(), image.size()), "copying the file");
    return image;
}

// ---------------------------------------------------------------------------------------------
// Onto the disk

[[noreturn]] void fail_on_disk(const std::filesystem::path& path, const std::string& what,
                               int error) {
    std::string remedy;
    switch (error) {
        case ENOSPC:
        case EDQUOT:
            remedy = "free some space or choose another folder with --output";
            break;
        case EFBIG:
            remedy = "raise the limit on file sizes (ulimit -f)";
            break;
        case ENOENT:
            remedy = "create the folder or choose another with --output";
            break;
        case ENOTDIR:
            remedy = "choose a folder with --output";
            break;
        case EACCES:
        case EPERM:
        case EROFS:
            remedy = "choose a folder that can be written to with --output";
            break;
        default:
            remedy = "choose another folder with --output";
    }
    throw core::RecordError(fmt::format("cannot write record {}: {} failed: {}; {}", path.string(),
                                        what, std::generic_category().message(error), remedy));
}

/// Removes the temporary file on every way out but the successful one.
class TemporaryFile {
 public:
    explicit TemporaryFile(std::filesystem::path path) : path_(std::move(path)) {}
    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;
    ~TemporaryFile() {
        if (descriptor_ >= 0) ::close(descriptor_);
        if (exists_) ::unlink(path_.c_str());
    }
    /// 0 or errno.
    int create() {
        descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        exists_ = descriptor_ >= 0;
        return exists_ ? 0 : errno;
    }
    int write(const std::vector<std::uint8_t>& bytes) {
        std::size_t done = 0;
        while (done < bytes.size()) {
            const ssize_t count = ::write(descriptor_, bytes.data() + done, bytes.size() - done);
            if (count < 0 && errno == EINTR) continue;
            if (count < 0) return errno;
            done += static_cast<std::size_t>(count);
        }
        return 0;
    }
    int sync_and_close() {
        if (::fsync(descriptor_) != 0) return errno;
        // Network file systems report a full disk as late as here.
        return ::close(std::exchange(descriptor_, -1)) == 0 ? 0 : errno;
    }
    [[nodiscard]] const std::filesystem::path& path() const { return path_; }
    void renamed() { exists_ = false; }

 private:
    std::filesystem::path path_;
    int descriptor_ = -1;
    bool exists_ = false;
};

/// Gives `from` the name `to` unless that exists. 0, EEXIST or another errno.
int rename_without_overwriting(const std::filesystem::path& from, const std::filesystem::path& to) {
    if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return 0;
    if (errno != EINVAL && errno != ENOSYS) return errno;
    // A file system without that flag (NFS, older FUSE): a hard link does not overwrite either.
    if (::link(from.c_str(), to.c_str()) == 0) {
        ::unlink(from.c_str());
        return 0;
    }
    if (errno != EPERM && errno != EOPNOTSUPP && errno != ENOSYS) return errno;
    // And one without hard links: an exclusive create claims the name, then the rename replaces
    // only the empty file that is ours.
    const int claim = ::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (claim < 0) return errno;
    ::close(claim);
    if (::rename(from.c_str(), to.c_str()) == 0) return 0;
    const int error = errno;
    ::unlink(to.c_str());
    return error;
}

/// "run-20260102T030405Z-1.h5" -> "run-20260102T030405Z-2.h5"; a name without a counter gets one.
std::filesystem::path with_next_counter(const std::filesystem::path& path) {
    std::string stem = path.stem().string();
    std::int64_t counter = 0;
    const std::size_t dash = stem.find_last_of('-');
    // More digits than nine are a date, not a counter of ours.
    if (dash != std::string::npos && dash + 1 < stem.size() && stem.size() - dash <= 10 &&
        std::all_of(stem.begin() + static_cast<std::ptrdiff_t>(dash) + 1, stem.end(),
                    [](char c) { return c >= '0' && c <= '9'; })) {
        counter = std::stoll(stem.substr(dash + 1));
        stem.resize(dash);
    }
    return path.parent_path() /
           fmt::format("{}-{}{}", stem, counter + 1, path.extension().string());
}

/// The new name must survive a power failure as well; a folder that cannot be synced is no error.
void sync_folder(const std::filesystem::path& folder) {
    const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return;
    ::fsync(descriptor);
    ::close(descriptor);
}

}  // namespace

std::filesystem::path new_record_path(const std::filesystem::path& directory,
                                      const std::string& stem, const std::string& created_utc) {
    std::string name;
    for (const char c : stem) name += c == '/' || c == '\0' ? '_' : c;
    if (name.size() > kLongestStem) {
        std::size_t end = kLongestStem;
        // Not between the bytes of one UTF-8 character.
        while (end > 0 && (static_cast<unsigned char>(name[end]) & 0xC0U) == 0x80U) --end;
        name.resize(end);
    }
    std::string time;
    for (const char c : created_utc) {
        if (c == '.') break;
        if ((c >= '0' && c <= '9') || c == 'T') time += c;
    }
    std::filesystem::path path = directory / fmt::format("{}-{}Z-1.h5", name, time);
    std::error_code ignored;  // what cannot be looked at is reported by the write
    while (std::filesystem::exists(std::filesystem::symlink_status(path, ignored))) {
        path = with_next_counter(path);
    }
    return path;
}

std::filesystem::path write_hdf5(const RunRecord& record, const std::filesystem::path& path) {
    std::vector<std::uint8_t> image;
    try {
        const QuietErrors quiet;
        image = file_image(record);
    } catch (const core::RecordError& error) {
        throw core::RecordError(
            fmt::format("cannot build record {}: {}", path.string(), error.what()));
    }

    const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
    TemporaryFile file(folder / fmt::format(".{}.{}.tmp", path.filename().string(), ::getpid()));
    if (const int error = file.create(); error != 0) {
        fail_on_disk(path, "creating a file in its folder", error);
    }
    if (const int error = file.write(image); error != 0) {
        fail_on_disk(path, fmt::format("writing {} bytes", image.size()), error);
    }
    if (const int error = file.sync_and_close(); error != 0) fail_on_disk(path, "syncing", error);

    std::filesystem::path target = path;
    for (int attempt = 0; attempt < kMostCounters; ++attempt) {
        const int error = rename_without_overwriting(file.path(), target);
        if (error == 0) {
            file.renamed();
            sync_folder(folder);
            return target;
        }
        if (error != EEXIST) fail_on_disk(target, "renaming the finished file", error);
        target = with_next_counter(target);
    }
    fail_on_disk(path, "finding a free name", EEXIST);
}

std::string hdf5_version() {
    unsigned major = 0, minor = 0, release = 0;
    H5get_libversion(&major, &minor, &release);
    return fmt::format("{}.{}.{}", major, minor, release);
}

}  // namespace refit::record
