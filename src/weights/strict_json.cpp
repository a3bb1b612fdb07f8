// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "weights/strict_json.hpp"

#include <nlohmann/json.hpp>
#include <unordered_set>
#include <vector>

namespace refit::weights {
namespace {

using Json = nlohmann::json;

/// Looks at the keys of a JSON text and at nothing else. The library's callback could tell too, but
/// nlohmann-json 3.11 walks over all members of an object whenever one of them that is an object
/// ends, which takes minutes for a file of 40,000 tensors.
class KeyCheck final : public nlohmann::json_sax<Json> {
 public:
    bool start_object(std::size_t) override {
        open_objects_.emplace_back();
        return true;
    }
    bool end_object() override {
        open_objects_.pop_back();
        return true;
    }
    bool key(std::string& name) override {
        if (!open_objects_.back().insert(name).second) throw RepeatedKey{name};
        return true;
    }
    bool null() override { return true; }
    bool boolean(bool) override { return true; }
    bool number_integer(Json::number_integer_t) override { return true; }
    bool number_unsigned(Json::number_unsigned_t) override { return true; }
    bool number_float(Json::number_float_t, const std::string&) override { return true; }
    bool string(std::string&) override { return true; }
    bool binary(Json::binary_t&) override { return true; }
    bool start_array(std::size_t) override { return true; }
    bool end_array() override { return true; }
    bool parse_error(std::size_t, const std::string&, const Json::exception&) override {
        return false;  // the parser itself says it better
    }

 private:
    std::vector<std::unordered_set<std::string>> open_objects_;
};

}  // namespace

Json parse_without_repeated_keys(std::string_view text) {
    KeyCheck keys;
    Json::sax_parse(text.begin(), text.end(), &keys);
    return Json::parse(text.begin(), text.end());
}

bool nests_deeper_than(std::string_view text, int limit) {
    int depth = 0;
    bool in_string = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (in_string) {
            if (c == '\\') {
                ++i;
            } else if (c == '"') {
                in_string = false;
            }
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > limit) return true;
        } else if (c == '}' || c == ']') {
            --depth;
        }
    }
    return false;
}

std::string brief(const Json& value) {
    std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
    constexpr std::size_t kLongest = 120;
    if (text.size() > kLongest) text = text.substr(0, kLongest) + "...";
    return text;
}

}  // namespace refit::weights
