// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "record/hdf5/table.hpp"

#include <hdf5_hl.h>

#include "record/hdf5/attributes.hpp"

namespace refit::record::hdf5 {

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

void Table::write(hid_t parent, const std::string& name, const Handle& scale) const {
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

}  // namespace refit::record::hdf5
