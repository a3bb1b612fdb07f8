// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "record/hdf5/file_image.hpp"

#include <cstddef>
#include <map>
#include <string>

#include "record/build_info.hpp"
#include "record/hdf5/attributes.hpp"
#include "record/hdf5/case_group.hpp"
#include "record/hdf5/handles.hpp"
#include "record/hdf5/table.hpp"
#include "record/hdf5_writer.hpp"

namespace refit::record::hdf5 {
namespace {

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

}  // namespace

std::vector<std::uint8_t> file_image(const RunRecord& record) {
    const QuietErrors quiet;
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

}  // namespace refit::record::hdf5
