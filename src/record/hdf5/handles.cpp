// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "record/hdf5/handles.hpp"

#include <fmt/format.h>

#include <cstdint>

#include "core/error.hpp"
#include "record/hdf5_writer.hpp"

namespace refit::record {

std::string hdf5_version() {
    unsigned major = 0, minor = 0, release = 0;
    H5get_libversion(&major, &minor, &release);
    return fmt::format("{}.{}.{}", major, minor, release);
}

namespace hdf5 {
namespace {

/// Keeps the innermost description of HDF5's error stack: the outer ones only repeat who called
/// whom.
herr_t keep_description(unsigned, const H5E_error2_t* entry, void* text) {
    if (entry->desc != nullptr) *static_cast<std::string*>(text) = entry->desc;
    return 0;
}

}  // namespace

void fail(const std::string& what) {
    std::string description;
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, keep_description, &description);
    throw core::RecordError(fmt::format("{} failed in HDF5 {}: {}", what, hdf5_version(),
                                        description.empty() ? "no description" : description));
}

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

Handle scalar_space() {
    return {H5Screate(H5S_SCALAR), H5Sclose, "making a dataspace"};
}

}  // namespace hdf5
}  // namespace refit::record
