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
};

/// Bytes of one element.
[[nodiscard]] std::int64_t size_bytes(DType dtype);
/// Name in a safetensors header: "BF16", "F8_E4M3", "U8" ...
[[nodiscard]] std::string_view safetensors_name(DType dtype);
/// The inverse; nullopt for a name that is not known.
[[nodiscard]] std::optional<DType> from_safetensors_name(std::string_view name);

}  // namespace refit::core
