// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What Python's json module takes for JSON, and what it refuses.
#include "model/config_text.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.hpp"

namespace refit::model {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(ConfigText, NumbersOfPythonBecomeNull) {
    EXPECT_EQ(standard_json("f", R"({"a": NaN, "b": [0.0, Infinity, -Infinity], "c": -1})"),
              R"({"a": null, "b": [0.0, null, null], "c": -1})");
}

TEST(ConfigText, StringsStayAsTheyAre) {
    const std::string text =
        R"({"a NaN": "-Infinity", "b": "\"NaN", "c": "\\", "d": "NaN\\\" Infinity"})";
    EXPECT_EQ(standard_json("f", text), text);
    EXPECT_EQ(standard_json("f", R"({"a": "\\", "b": NaN})"), R"({"a": "\\", "b": null})");
    // Broken texts are for the parser to name.
    for (const char* broken : {"", "{\"", "\"\\", "Na", "{\"a\": NaN"}) {
        EXPECT_NO_THROW((void)standard_json("f", broken)) << broken;
    }
}

TEST(ConfigText, AByteOrderMarkIsRefusedAsPythonDoes) {
    for (const char* text : {"\xEF\xBB\xBF{}", "\xFF\xFE{", "\xFE\xFF"}) {
        EXPECT_THAT([&] { (void)standard_json("dir/config.json", text); },
                    ThrowsMessage<core::FileError>(
                        AllOf(HasSubstr("dir/config.json"), HasSubstr("byte order mark"))));
    }
}

TEST(ConfigText, OnlyUtf8IsRead) {
    // Of RFC 3629: a euro sign, a clef beyond the basic plane, the last code point.
    for (const char* right : {"\"\xE2\x82\xAC\"", "\"\xF0\x9D\x84\x9E\"", "\"\xF4\x8F\xBF\xBF\""}) {
        EXPECT_EQ(standard_json("f", right), right);
    }
    // A lone byte, an overlong slash, a surrogate, beyond the last code point, one cut short.
    for (const char* wrong : {"\"\xFF\"", "\"\xC0\xAF\"", "\"\xE0\x80\xAF\"", "\"\xED\xA0\x80\"",
                              "\"\xF4\x90\x80\x80\"", "\"\xE2\x82"}) {
        EXPECT_THAT([&] { (void)standard_json("f", wrong); },
                    ThrowsMessage<core::FileError>(HasSubstr("byte 1 is not UTF-8")));
    }
}

}  // namespace
}  // namespace refit::model
