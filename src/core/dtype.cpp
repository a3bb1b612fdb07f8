// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "core/dtype.hpp"

#include <array>
#include <cstddef>

namespace refit::core {
namespace {

struct Row {
    DType dtype;
    std::int64_t bytes;
    std::string_view safetensors;
};

// In the order of the enumeration.
constexpr std::array<Row, 16> kRows = {{
    {DType::bf16, 2, "BF16"},
    {DType::f16, 2, "F16"},
    {DType::f32, 4, "F32"},
    {DType::f64, 8, "F64"},
    {DType::f8_e4m3, 1, "F8_E4M3"},
    {DType::f8_e5m2, 1, "F8_E5M2"},
    {DType::f8_e8m0, 1, "F8_E8M0"},
    {DType::u8, 1, "U8"},
    {DType::i8, 1, "I8"},
    {DType::i16, 2, "I16"},
    {DType::u16, 2, "U16"},
    {DType::i32, 4, "I32"},
    {DType::u32, 4, "U32"},
    {DType::i64, 8, "I64"},
    {DType::u64, 8, "U64"},
    {DType::boolean, 1, "BOOL"},
}};

}  // namespace

std::int64_t size_bytes(DType dtype) {
    return kRows[static_cast<std::size_t>(dtype)].bytes;
}

std::string_view safetensors_name(DType dtype) {
    return kRows[static_cast<std::size_t>(dtype)].safetensors;
}

std::optional<DType> from_safetensors_name(std::string_view name) {
    for (const Row& row : kRows) {
        if (row.safetensors == name) return row.dtype;
    }
    return std::nullopt;
}

}  // namespace refit::core
