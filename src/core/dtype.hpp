// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Element types of tensors as they are stored and sent.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace refit::core {

enum class DType : std::uint8_t {
    bf16,
    f16,
    f32,
    f64,
    f8_e4m3,
    f8_e5m2,
    f8_e8m0,
    u8,
    i8,
    i16,
    u16,
    i32,
    u32,
    i64,
    u64,
    boolean,
    // Known to the file format, but no engine's parameter has them.
    f8_e4m3fnuz,  ///< bias 8, 0x80 is the only NaN, no -0
    f8_e5m2fnuz,  ///< bias 16, 0x80 is the only NaN, no -0, no Inf
    f4,           ///< two values a byte
    f6_e2m3,      ///< four values in three bytes
    f6_e3m2,      ///< four values in three bytes
    c64,          ///< two F32, real and imaginary part
};

/// Bytes of one element; 0 for a type of less than a byte, see storage_bits.
[[nodiscard]] std::int64_t size_bytes(DType dtype);
/// Bits of one element. Elements of less than a byte lie without gaps, a tensor of them is whole
/// bytes.
[[nodiscard]] std::int64_t storage_bits(DType dtype);
/// Bytes of `count` elements, the last byte filled up.
[[nodiscard]] std::int64_t storage_bytes(DType dtype, std::int64_t count);
/// Name in a safetensors header: "BF16", "F8_E4M3", "U8" ...
[[nodiscard]] std::string_view safetensors_name(DType dtype);
/// The inverse; nullopt for a name that is not known.
[[nodiscard]] std::optional<DType> from_safetensors_name(std::string_view name);

}  // namespace refit::core
