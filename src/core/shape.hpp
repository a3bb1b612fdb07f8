// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Shapes of tensors, and how every tensor is seen as a matrix: rows = first dimension, columns =
// the rest.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace refit::core {

using Shape = std::vector<std::int64_t>;

/// Half-open range of rows [begin, end).
struct RowRange {
    std::int64_t begin = 0;
    std::int64_t end = 0;
    [[nodiscard]] std::int64_t count() const { return end - begin; }
    [[nodiscard]] bool empty() const { return end <= begin; }
    bool operator==(const RowRange&) const = default;
};

/// A rectangle of a tensor seen as a matrix.
struct Region {
    std::int64_t row = 0;
    std::int64_t col = 0;
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    bool operator==(const Region&) const = default;
};

/// (a + b - 1) / b for a >= 0, b > 0.
[[nodiscard]] constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
    return (a + b - 1) / b;
}

/// Product of the dimensions; 1 for a 0-d shape.
[[nodiscard]] std::int64_t element_count(const Shape& shape);
/// First dimension; 1 for a 0-d shape.
[[nodiscard]] std::int64_t matrix_rows(const Shape& shape);
/// Product of all dimensions but the first; 1 for 0-d and 1-d shapes.
[[nodiscard]] std::int64_t matrix_cols(const Shape& shape);
/// "[576, 7168]"; "[]" for 0-d.
[[nodiscard]] std::string to_string(const Shape& shape);

}  // namespace refit::core
