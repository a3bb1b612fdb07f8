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
    {DType::bf16, "BF16", 2},
    {DType::f16, "F16", 2},
    {DType::f32, "F32", 4},
    {DType::f64, "F64", 8},
    {DType::f8_e4m3, "F8_E4M3", 1},
    {DType::f8_e5m2, "F8_E5M2", 1},
    {DType::f8_e8m0, "F8_E8M0", 1},
    {DType::u8, "U8", 1},
    {DType::i8, "I8", 1},
    {DType::i16, "I16", 2},
    {DType::u16, "U16", 2},
    {DType::i32, "I32", 4},
    {DType::u32, "U32", 4},
    {DType::i64, "I64", 8},
    {DType::u64, "U64", 8},
    {DType::boolean, "BOOL", 1},
    {DType::f8_e4m3fnuz, "F8_E4M3FNUZ", 1},
    {DType::f8_e5m2fnuz, "F8_E5M2FNUZ", 1},
    {DType::c64, "C64", 8},
};

TEST(DTypeNames, AreThoseOfTheSafetensorsFormat) {
    for (const Row& row : kFormat) {
        EXPECT_EQ(safetensors_name(row.dtype), row.name);
        EXPECT_EQ(from_safetensors_name(row.name), row.dtype);
        EXPECT_EQ(size_bytes(row.dtype), row.bytes) << row.name;
    }
}

// safetensors/src/tensor.rs: bits of the types that share bytes.
TEST(DTypeNames, CountTypesOfLessThanAByteInBits) {
    const struct {
        DType dtype;
        const char* name;
        std::int64_t bits;
    } packed[] = {
        {DType::f4, "F4", 4}, {DType::f6_e2m3, "F6_E2M3", 6}, {DType::f6_e3m2, "F6_E3M2", 6}};
    for (const auto& row : packed) {
        EXPECT_EQ(from_safetensors_name(row.name), row.dtype);
        EXPECT_EQ(storage_bits(row.dtype), row.bits);
        EXPECT_EQ(size_bytes(row.dtype), 0);
        EXPECT_EQ(storage_bytes(row.dtype, 8), row.bits);
        EXPECT_EQ(storage_bytes(row.dtype, 0), 0);
    }
    EXPECT_EQ(storage_bytes(DType::f6_e2m3, 3), 3);  // 18 bits
    EXPECT_EQ(storage_bytes(DType::f32, 3), 12);
}

TEST(DTypeNames, GiveNothingForAnUnknownOne) {
    for (const char* name : {"", "bf16", "F8_E4M3FN", "BF16 ", "F9_E4M3", "F4_E2M1"}) {
        EXPECT_EQ(from_safetensors_name(name), std::nullopt) << name;
    }
}

}  // namespace
}  // namespace refit::core
