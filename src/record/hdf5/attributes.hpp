// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Attributes of a group, a dataset or the file (`object`). One that exists already, and what HDF5
// refuses, is a RecordError that names the attribute.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <string>
#include <vector>

namespace refit::record::hdf5 {

/// One value: UTF-8 text of any length, int64, double, or the enumeration that h5py reads as a
/// bool.
void set_text(hid_t object, const std::string& name, const std::string& value);
void set_integer(hid_t object, const std::string& name, std::int64_t value);
void set_real(hid_t object, const std::string& name, double value);
void set_bool(hid_t object, const std::string& name, bool value);

/// A list [values]; it may be empty.
void set_texts(hid_t object, const std::string& name, const std::vector<std::string>& values);
void set_reals(hid_t object, const std::string& name, std::vector<double> values);

}  // namespace refit::record::hdf5
