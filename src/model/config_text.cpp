// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "model/config_text.hpp"

#include <array>
#include <cstddef>
#include <string_view>

#include "core/error.hpp"

namespace refit::model {
namespace {

unsigned char byte_at(std::string_view text, std::size_t at) {
    return static_cast<unsigned char>(text[at]);
}

/// Bytes of the UTF-8 sequence that begins at `at`; 0 where none does. RFC 3629, section 4.
std::size_t sequence_at(std::string_view text, std::size_t at) {
    const unsigned char first = byte_at(text, at);
    if (first < 0x80) return 1;
    const std::size_t size = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
    if (first < 0xC2 || first > 0xF4 || at + size > text.size()) return 0;
    for (std::size_t i = 1; i < size; ++i) {
        if ((byte_at(text, at + i) & 0xC0) != 0x80) return 0;
    }
    const unsigned char second = byte_at(text, at + 1);
    const bool overlong = (first == 0xE0 && second < 0xA0) || (first == 0xF0 && second < 0x90);
    const bool beyond = (first == 0xED && second > 0x9F) || (first == 0xF4 && second > 0x8F);
    return overlong || beyond ? 0 : size;
}

void check_encoding(const std::string& file, std::string_view text) {
    const auto refuse = [&](const std::string& found) {
        throw core::FileError(file + ": " + found +
                              ", and the engines read it as UTF-8 without a byte order mark; save "
                              "it so");
    };
    for (const std::string_view mark : {"\xEF\xBB\xBF", "\xFF\xFE", "\xFE\xFF"}) {
        if (text.starts_with(mark)) refuse("begins with a byte order mark");
    }
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t size = sequence_at(text, at);
        if (size == 0) refuse("byte " + std::to_string(at) + " is not UTF-8");
        at += size;
    }
}

}  // namespace

std::string standard_json(const std::string& file, std::string text) {
    check_encoding(file, text);
    constexpr std::array<std::string_view, 3> kNumbers = {"NaN", "-Infinity", "Infinity"};
    std::string result;
    bool inside = false;  // of a string
    for (std::size_t at = 0; at < text.size();) {
        const std::string_view rest = std::string_view(text).substr(at);
        if (inside && rest[0] == '\\' && rest.size() > 1) {
            result += rest.substr(0, 2);
            at += 2;
            continue;
        }
        if (rest[0] == '"') inside = !inside;
        std::string_view number;
        for (const std::string_view one : kNumbers) {
            if (!inside && rest.starts_with(one)) number = one;
        }
        if (number.empty()) {
            result += rest[0];
            ++at;
        } else {
            result += "null";
            at += number.size();
        }
    }
    return result;
}

}  // namespace refit::model
