// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "core/dtype.hpp"

#include <array>
#include <cstddef>

namespace refit::core {
namespace {

struct Row {
    DType dtype;
    std::int64_t bits;
    std::string_view safetensors;
};

// In the order of the enumeration.
constexpr std::array<Row, 22> kRows = {{
    {DType::bf16, 16, "BF16"},
    {DType::f16, 16, "F16"},
    {DType::f32, 32, "F32"},
    {DType::f64, 64, "F64"},
    {DType::f8_e4m3, 8, "F8_E4M3"},
    {DType::f8_e5m2, 8, "F8_E5M2"},
    {DType::f8_e8m0, 8, "F8_E8M0"},
    {DType::u8, 8, "U8"},
    {DType::i8, 8, "I8"},
    {DType::i16, 16, "I16"},
    {DType::u16, 16, "U16"},
    {DType::i32, 32, "I32"},
    {DType::u32, 32, "U32"},
    {DType::i64, 64, "I64"},
    {DType::u64, 64, "U64"},
    {DType::boolean, 8, "BOOL"},
    {DType::f8_e4m3fnuz, 8, "F8_E4M3FNUZ"},
    {DType::f8_e5m2fnuz, 8, "F8_E5M2FNUZ"},
    {DType::f4, 4, "F4"},
    {DType::f6_e2m3, 6, "F6_E2M3"},
    {DType::f6_e3m2, 6, "F6_E3M2"},
    {DType::c64, 64, "C64"},
}};

}  // namespace

std::int64_t size_bytes(DType dtype) {
    return storage_bits(dtype) / 8;
}

std::int64_t storage_bits(DType dtype) {
    return kRows[static_cast<std::size_t>(dtype)].bits;
}

std::int64_t storage_bytes(DType dtype, std::int64_t count) {
    return (count * storage_bits(dtype) + 7) / 8;
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
