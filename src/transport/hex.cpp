// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/hex.hpp"

#include <charconv>

#include "core/error.hpp"

namespace refit::transport {

std::string to_hex(const void* bytes, std::size_t count) {
    constexpr const char* kDigits = "0123456789abcdef";
    std::string text;
    const auto* from = static_cast<const unsigned char*>(bytes);
    for (std::size_t i = 0; i < count; ++i) {
        text += kDigits[from[i] >> 4];
        text += kDigits[from[i] & 15];
    }
    return text;
}

void from_hex(std::string_view text, void* bytes, std::size_t count) {
    auto* to = static_cast<unsigned char*>(bytes);
    bool good = text.size() == 2 * count;
    for (std::size_t i = 0; good && i < count; ++i) {
        const char* pair = text.data() + 2 * i;
        const auto [end, error] = std::from_chars(pair, pair + 2, to[i], 16);
        good = error == std::errc{} && end == pair + 2;
    }
    if (!good) {
        throw core::ResourceError("a handle of " + std::to_string(count) +
                                  " bytes came as the text '" + std::string(text) +
                                  "'; the ranks run different versions of refitbench");
    }
}

}  // namespace refit::transport
