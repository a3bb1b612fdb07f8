// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Opaque handles as text: the world carries text without zero bytes. Private to src/transport.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace refit::transport {

/// Two lower-case digits a byte.
[[nodiscard]] std::string to_hex(const void* bytes, std::size_t count);
/// Throws ResourceError unless `text` is exactly `count` bytes in to_hex's form.
void from_hex(std::string_view text, void* bytes, std::size_t count);

}  // namespace refit::transport
