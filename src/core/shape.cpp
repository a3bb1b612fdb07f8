// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "core/shape.hpp"

namespace refit::core {

std::int64_t element_count(const Shape& shape) {
    std::int64_t count = 1;
    for (const std::int64_t extent : shape) count *= extent;
    return count;
}

std::int64_t matrix_rows(const Shape& shape) {
    return shape.empty() ? 1 : shape.front();
}

std::int64_t matrix_cols(const Shape& shape) {
    std::int64_t count = 1;
    for (std::size_t d = 1; d < shape.size(); ++d) count *= shape[d];
    return count;
}

std::string to_string(const Shape& shape) {
    std::string text = "[";
    for (std::size_t d = 0; d < shape.size(); ++d) {
        if (d != 0) text += ", ";
        text += std::to_string(shape[d]);
    }
    return text + "]";
}

}  // namespace refit::core
