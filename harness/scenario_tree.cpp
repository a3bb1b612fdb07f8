// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/scenario_tree.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.hpp"
#include "core/nearest_name.hpp"

namespace refit::harness {
namespace {

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/// "0" or digits without a leading zero.
bool is_plain_decimal(std::string_view text) {
    if (text.empty() || !std::all_of(text.begin(), text.end(), is_digit)) return false;
    return text.size() == 1 || text.front() != '0';
}

template <typename Number>
std::optional<Number> from_digits(std::string_view text) {
    Number value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

/// What was found, for messages.
std::string found_text(const Node& node) {
    switch (node.kind) {
        case Node::Kind::null:
            return "nothing";
        case Node::Kind::scalar:
            return "'" + node.text + "'";
        case Node::Kind::list:
            return "the list " + flow_text(node);
        case Node::Kind::map:
            return "the map " + flow_text(node);
    }
    return "nothing";
}

nlohmann::ordered_json to_json(const Node& node) {
    switch (node.kind) {
        case Node::Kind::null:
            return nullptr;
        case Node::Kind::scalar: {
            if (node.quoted) return node.text;
            if (node.text == "none") return nullptr;
            if (const auto flag = parse_switch(node.text)) return *flag;
            if (const auto integer = parse_integer(node.text)) return *integer;
            if (const auto decimal = parse_decimal(node.text)) return *decimal;
            return node.text;
        }
        case Node::Kind::list: {
            auto array = nlohmann::ordered_json::array();
            for (const Node& item : node.items) array.push_back(to_json(item));
            return array;
        }
        case Node::Kind::map: {
            auto object = nlohmann::ordered_json::object();
            for (std::size_t i = 0; i < node.keys.size(); ++i) {
                object[node.keys[i]] = to_json(node.items[i]);
            }
            return object;
        }
    }
    return nullptr;
}

}  // namespace

const Node* Node::find(std::string_view key) const {
    if (kind != Kind::map) return nullptr;
    for (std::size_t i = 0; i < keys.size(); ++i) {
        if (keys[i] == key) return &items[i];
    }
    return nullptr;
}

bool Node::is_none() const {
    if (kind == Kind::null) return true;
    if (kind == Kind::scalar) return text == "none" || text == "None";
    return kind == Kind::map && items.empty() && from_set;
}

bool Node::is_empty() const {
    return is_none() || ((kind == Kind::map || kind == Kind::list) && items.empty());
}

std::string flow_text(const Node& node) {
    if (node.kind == Node::Kind::null) return "none";
    if (node.kind == Node::Kind::scalar) return node.text;
    const bool map = node.kind == Node::Kind::map;
    std::string text = map ? "{" : "[";
    for (std::size_t i = 0; i < node.items.size(); ++i) {
        if (i != 0) text += ", ";
        if (map) text += node.keys[i] + ": ";
        text += flow_text(node.items[i]);
    }
    return text + (map ? "}" : "]");
}

std::string json_text(const Node& node) {
    return to_json(node).dump();
}

void set_path(Node& root, const std::string& path, const Node& value) {
    Node* node = &root;
    std::size_t begin = 0;
    while (true) {
        const std::size_t dot = path.find('.', begin);
        const std::string key = path.substr(begin, dot == std::string::npos ? dot : dot - begin);
        const std::string parent = begin == 0 ? "the scenario" : path.substr(0, begin - 1);
        if (key.empty()) {
            throw core::ScenarioError(value.where + ": '" + path +
                                      "' is no path of keys; write it as receiver.tp");
        }
        if (node->kind == Node::Kind::scalar && parent == "model" && !node->is_none()) {
            Node named;
            named.kind = Node::Kind::map;
            named.where = node->where;
            named.keys = {"name"};
            named.items = {*node};
            *node = std::move(named);
        }
        if (node->is_none()) {
            const std::string where = node->where;
            *node = Node{};
            node->kind = Node::Kind::map;
            node->where = where.empty() ? value.where : where;
        }
        if (node->kind != Node::Kind::map) {
            throw core::ScenarioError(value.where + ": " + path + ": " + parent + " is " +
                                      found_text(*node) + ", which has no keys; set " + parent +
                                      " as a whole");
        }
        const auto at = std::find(node->keys.begin(), node->keys.end(), key);
        Node* child = nullptr;
        if (at == node->keys.end()) {
            Node fresh;
            fresh.where = value.where;
            node->keys.push_back(key);
            node->items.push_back(std::move(fresh));
            child = &node->items.back();
        } else {
            child = &node->items[static_cast<std::size_t>(at - node->keys.begin())];
        }
        if (dot == std::string::npos) {
            *child = value;
            return;
        }
        node = child;
        begin = dot + 1;
    }
}

bool path_covers(std::string_view prefix, std::string_view path) {
    return path.substr(0, prefix.size()) == prefix &&
           (path.size() == prefix.size() || path[prefix.size()] == '.');
}

void refuse(const Node& node, const std::string& path, const std::string& expected) {
    throw core::ScenarioError(node.where + ": " + path + ": found " + found_text(node) +
                              "; expected " + expected);
}

void refuse_at(const std::string& where, const std::string& message) {
    throw core::ScenarioError(where + ": " + message);
}

std::string place(const Node* node, const std::filesystem::path& file) {
    return node == nullptr ? file.string() : node->where;
}

std::string joined_names(const std::vector<std::string>& names) {
    std::string text;
    for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
    return text;
}

std::optional<std::int64_t> parse_integer(std::string_view text) {
    const bool negative = !text.empty() && text.front() == '-';
    if (!is_plain_decimal(negative ? text.substr(1) : text)) return std::nullopt;
    return from_digits<std::int64_t>(text);
}

std::optional<std::uint64_t> parse_unsigned(std::string_view text) {
    if (!is_plain_decimal(text)) return std::nullopt;
    return from_digits<std::uint64_t>(text);
}

std::optional<std::uint64_t> parse_size(std::string_view text) {
    int shift = 0;
    for (const auto& [suffix, bits] :
         {std::pair<std::string_view, int>{"KiB", 10}, {"MiB", 20}, {"GiB", 30}}) {
        if (text.size() > suffix.size() && text.substr(text.size() - suffix.size()) == suffix) {
            shift = bits;
            text.remove_suffix(suffix.size());
            break;
        }
    }
    const auto value = parse_unsigned(text);
    if (!value || *value > (std::numeric_limits<std::uint64_t>::max() >> shift))
        return std::nullopt;
    return *value << shift;
}

std::optional<double> parse_decimal(std::string_view text) {
    const std::string_view digits = !text.empty() && text.front() == '-' ? text.substr(1) : text;
    // from_chars also reads "inf", "nan" and ".5", and a leading zero would look like octal to
    // YAML.
    if (digits.empty() || !is_digit(digits.front())) return std::nullopt;
    if (digits.size() > 1 && digits[0] == '0' && is_digit(digits[1])) return std::nullopt;
    const auto value = from_digits<double>(text);
    if (!value || !std::isfinite(*value)) return std::nullopt;
    return value;
}

std::optional<bool> parse_switch(std::string_view text) {
    for (const std::string_view yes : {"on", "On", "ON", "true", "True", "TRUE"}) {
        if (text == yes) return true;
    }
    for (const std::string_view no : {"off", "Off", "OFF", "false", "False", "FALSE"}) {
        if (text == no) return false;
    }
    return std::nullopt;
}

void require_name(const Node& node, const std::string& path, const std::string& kind,
                  const std::string& found, const std::vector<std::string>& allowed,
                  const std::vector<std::string>& planned) {
    if (std::find(allowed.begin(), allowed.end(), found) != allowed.end()) return;
    const std::string place = node.where + ": " + path + ": ";
    if (std::find(planned.begin(), planned.end(), found) != planned.end()) {
        throw core::ScenarioError(
            place + kind + " '" + found + "' is not available yet; available: " +
            joined_names(allowed.size() <= 8 ? allowed : core::nearest_names(found, allowed)));
    }
    throw core::ScenarioError(place + core::unknown_name_message(kind, found, allowed));
}

MapReader::MapReader(const Node* node, std::string path, const std::vector<std::string>& known)
    : node_(node), path_(std::move(path)) {
    if (node_ == nullptr) return;
    if (node_->is_none()) {
        node_ = nullptr;
        return;
    }
    const std::string shown = path_.empty() ? "scenario" : path_;
    if (node_->kind != Node::Kind::map)
        refuse(*node_, shown, "a map with the keys " + joined_names(known));
    for (std::size_t i = 0; i < node_->keys.size(); ++i) {
        if (std::find(known.begin(), known.end(), node_->keys[i]) != known.end()) continue;
        const std::string in = path_.empty() ? "" : " in '" + path_ + "'";
        throw core::ScenarioError(node_->items[i].where + ": " +
                                  core::unknown_name_message("key", node_->keys[i], known) + in);
    }
}

const Node* MapReader::get(const std::string& key) const {
    return node_ == nullptr ? nullptr : node_->find(key);
}

std::string MapReader::path(const std::string& key) const {
    return path_.empty() ? key : path_ + "." + key;
}

const Node* MapReader::scalar(const std::string& key, const std::string& expected) const {
    const Node* node = get(key);
    if (node == nullptr || node->is_none()) return nullptr;
    if (node->kind != Node::Kind::scalar) refuse(*node, path(key), expected);
    return node;
}

std::string MapReader::string(const std::string& key, const std::string& fallback) const {
    const Node* node = scalar(key, "a text");
    return node == nullptr ? fallback : node->text;
}

std::string MapReader::name(const std::string& key, const std::string& fallback,
                            const std::string& kind, const std::vector<std::string>& allowed,
                            const std::vector<std::string>& planned) const {
    const Node* node = scalar(key, "one name: " + joined_names(allowed));
    if (node == nullptr) return fallback;
    require_name(*node, path(key), kind, node->text, allowed, planned);
    return node->text;
}

std::int64_t MapReader::integer(const std::string& key, std::int64_t fallback, std::int64_t least,
                                std::int64_t most) const {
    std::string expected = "a decimal integer of at least " + std::to_string(least);
    if (most != std::numeric_limits<std::int64_t>::max())
        expected += " and at most " + std::to_string(most);
    const Node* node = scalar(key, expected);
    if (node == nullptr) return fallback;
    const auto value = parse_integer(node->text);
    if (!value || *value < least || *value > most) refuse(*node, path(key), expected);
    return *value;
}

int MapReader::count(const std::string& key, int fallback, int least, int most) const {
    return static_cast<int>(integer(key, fallback, least, most));
}

std::uint64_t MapReader::unsigned_integer(const std::string& key, std::uint64_t fallback) const {
    const std::string expected = "a decimal integer from 0 to 2^64 - 1";
    const Node* node = scalar(key, expected);
    if (node == nullptr) return fallback;
    const auto value = parse_unsigned(node->text);
    if (!value) refuse(*node, path(key), expected);
    return *value;
}

std::uint64_t MapReader::size_bytes(const std::string& key, std::uint64_t fallback) const {
    const std::string expected =
        "a positive number of bytes: an integer, or one with the suffix KiB, MiB or GiB";
    const Node* node = scalar(key, expected);
    if (node == nullptr) return fallback;
    const auto value = parse_size(node->text);
    if (!value || *value == 0) refuse(*node, path(key), expected);
    return *value;
}

double MapReader::decimal(const std::string& key, double fallback) const {
    const Node* node = scalar(key, "a decimal number");
    if (node == nullptr) return fallback;
    const auto value = parse_decimal(node->text);
    if (!value) refuse(*node, path(key), "a decimal number");
    return *value;
}

bool MapReader::on_off(const std::string& key, bool fallback) const {
    const Node* node = scalar(key, "on or off");
    if (node == nullptr) return fallback;
    const auto value = parse_switch(node->text);
    if (!value) refuse(*node, path(key), "on or off");
    return *value;
}

std::filesystem::path MapReader::file_path(const std::string& key,
                                           const std::filesystem::path& folder) const {
    const Node* node = scalar(key, "a path");
    if (node == nullptr) return {};
    if (node->text.empty()) refuse(*node, path(key), "a path");
    const std::filesystem::path written = node->text;
    return node->from_set || written.is_absolute() ? written
                                                   : (folder / written).lexically_normal();
}

const std::vector<Node>& MapReader::list(const std::string& key) const {
    static const std::vector<Node> kNone;
    const Node* node = get(key);
    if (node == nullptr || node->is_empty()) return kNone;
    if (node->kind != Node::Kind::list) refuse(*node, path(key), "a list");
    return node->items;
}

}  // namespace refit::harness
