// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "core/dtype.hpp"

#include <gtest/gtest.h>

#include <string>

namespace refit::core {
namespace {

struct Row {
    DType dtype;
    std::string name;
    std::int64_t bytes;
};

// Names and bit widths of the safetensors format.
const Row kFormat[] = {
    {DType::bf16, "BF16", 2},       {DType::f16, "F16", 2},         {DType::f32, "F32", 4},
    {DType::f64, "F64", 8},         {DType::f8_e4m3, "F8_E4M3", 1}, {DType::f8_e5m2, "F8_E5M2", 1},
    {DType::f8_e8m0, "F8_E8M0", 1}, {DType::u8, "U8", 1},           {DType::i8, "I8", 1},
    {DType::i16, "I16", 2},         {DType::u16, "U16", 2},         {DType::i32, "I32", 4},
    {DType::u32, "U32", 4},         {DType::i64, "I64", 8},         {DType::u64, "U64", 8},
    {DType::boolean, "BOOL", 1},
};

TEST(DTypeNames, AreThoseOfTheSafetensorsFormat) {
    for (const Row& row : kFormat) {
        EXPECT_EQ(safetensors_name(row.dtype), row.name);
        EXPECT_EQ(from_safetensors_name(row.name), row.dtype);
        EXPECT_EQ(size_bytes(row.dtype), row.bytes) << row.name;
    }
}

TEST(DTypeNames, GiveNothingForAnUnknownOne) {
    for (const char* name : {"", "bf16", "F8_E4M3FN", "BF16 ", "F4"}) {
        EXPECT_EQ(from_safetensors_name(name), std::nullopt) << name;
    }
}

}  // namespace
}  // namespace refit::core
