// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Tables with named columns, and the dimension scales that datasets share.
#pragma once

#include <hdf5.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "record/hdf5/handles.hpp"

namespace refit::record::hdf5 {

/// A dimension scale 0, 1, 2 ... of `count` values.
[[nodiscard]] Handle index_scale(hid_t parent, const std::string& name, std::size_t count);

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

    /// Writes the dataset `name` of `parent`, its units as attributes, with `scale` as its
    /// dimension.
    void write(hid_t parent, const std::string& name, const Handle& scale) const;

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

}  // namespace refit::record::hdf5
