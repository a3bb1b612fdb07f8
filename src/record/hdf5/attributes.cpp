// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "record/hdf5/attributes.hpp"

#include "record/hdf5/handles.hpp"

namespace refit::record::hdf5 {
namespace {

void write_attribute(hid_t object, const std::string& name, hid_t type, const Handle& space,
                     const void* value) {
    const Handle attribute(
        H5Acreate2(object, name.c_str(), type, space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose,
        "creating attribute " + name);
    checked(H5Awrite(attribute.get(), type, value), "writing attribute " + name);
}

}  // namespace

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

}  // namespace refit::record::hdf5
