// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A scenario's keys as a tree that knows where each value was written, and strict readers of its
// values.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace refit::harness {

/// One YAML value. A map has `keys` and `items` of equal length; a list has `items` alone.
struct Node {
    enum class Kind { null, scalar, list, map };
    Kind kind = Kind::null;
    std::string text;  ///< of a scalar
    bool quoted = false;
    std::string where;  ///< "scenarios/a.yaml:7" (lines from 1) or "--set 'key=value'"
    bool from_set =
        false;  ///< written on the command line: its paths are relative to the working directory
    std::vector<std::string> keys;
    std::vector<Node> items;

    /// The value of `key`, or null where this is no map or has no such key.
    [[nodiscard]] const Node* find(std::string_view key) const;
    /// null, none or an empty map from the command line: the key as if it were not written.
    [[nodiscard]] bool is_none() const;
    /// null, or a map or list without entries.
    [[nodiscard]] bool is_empty() const;
};

/// One line of YAML flow style: "[a, b]", "{row: 3}".
[[nodiscard]] std::string flow_text(const Node& node);
/// The same value as JSON text: unquoted null, true, false and decimal numbers keep their type.
[[nodiscard]] std::string json_text(const Node& node);

/// Replaces the value at a dotted path and makes the maps that lead to it. A plain-name `model`
/// becomes {name: ...} first. Throws ScenarioError where the path leads through a scalar or a list.
void set_path(Node& root, const std::string& path, const Node& value);

/// True where `path` is `prefix` or lies under it ("a.b" under "a").
[[nodiscard]] bool path_covers(std::string_view prefix, std::string_view path);

/// Throws ScenarioError "WHERE: PATH: found FOUND; expected EXPECTED".
[[noreturn]] void refuse(const Node& node, const std::string& path, const std::string& expected);

/// Throws ScenarioError "WHERE: MESSAGE".
[[noreturn]] void refuse_at(const std::string& where, const std::string& message);

/// Where a key was written, or the file where it was not.
[[nodiscard]] std::string place(const Node* node, const std::filesystem::path& file);

/// "a, b, c".
[[nodiscard]] std::string joined_names(const std::vector<std::string>& names);

/// Strict decimal: "10" and "-3", never "010", "0x10", "+1" or "1e3". nullopt for anything else and
/// for overflow.
[[nodiscard]] std::optional<std::int64_t> parse_integer(std::string_view text);
[[nodiscard]] std::optional<std::uint64_t> parse_unsigned(std::string_view text);
/// Bytes from an integer with an optional suffix KiB, MiB or GiB.
[[nodiscard]] std::optional<std::uint64_t> parse_size(std::string_view text);
/// A finite decimal fraction such as "0.5" or "1e-3".
[[nodiscard]] std::optional<double> parse_decimal(std::string_view text);
/// true and on, false and off; nullopt for anything else.
[[nodiscard]] std::optional<bool> parse_switch(std::string_view text);

/// Reads the keys of one map and refuses those it does not know.
class MapReader {
 public:
    /// A null `node` reads as an empty map. Throws ScenarioError for a value that is no map and for
    /// unknown keys.
    MapReader(const Node* node, std::string path, const std::vector<std::string>& known);

    /// The node of a key, null where it is absent.
    [[nodiscard]] const Node* get(const std::string& key) const;
    /// "receiver.tp".
    [[nodiscard]] std::string path(const std::string& key) const;

    // Each gives `fallback` where the key is absent or none, and throws ScenarioError for another
    // kind of value.
    [[nodiscard]] std::string string(const std::string& key, const std::string& fallback) const;
    /// A name out of `allowed`; names out of `planned` are refused as "not available yet".
    [[nodiscard]] std::string name(const std::string& key, const std::string& fallback,
                                   const std::string& kind, const std::vector<std::string>& allowed,
                                   const std::vector<std::string>& planned = {}) const;
    [[nodiscard]] std::int64_t integer(const std::string& key, std::int64_t fallback,
                                       std::int64_t least, std::int64_t most) const;
    [[nodiscard]] int count(const std::string& key, int fallback, int least,
                            int most = 65536) const;
    [[nodiscard]] std::uint64_t unsigned_integer(const std::string& key,
                                                 std::uint64_t fallback) const;
    [[nodiscard]] std::uint64_t size_bytes(const std::string& key, std::uint64_t fallback) const;
    [[nodiscard]] double decimal(const std::string& key, double fallback) const;
    [[nodiscard]] bool on_off(const std::string& key, bool fallback) const;
    /// A path relative to the scenario file's folder, or to the working directory where it comes
    /// from --set.
    [[nodiscard]] std::filesystem::path file_path(const std::string& key,
                                                  const std::filesystem::path& folder) const;
    /// The entries of a list; empty where the key is absent or empty.
    [[nodiscard]] const std::vector<Node>& list(const std::string& key) const;

 private:
    [[nodiscard]] const Node* scalar(const std::string& key, const std::string& expected) const;

    const Node* node_;
    std::string path_;
};

/// Throws ScenarioError unless `found` is one of `allowed`; says "not available yet" for one of
/// `planned`.
void require_name(const Node& node, const std::string& path, const std::string& kind,
                  const std::string& found, const std::vector<std::string>& allowed,
                  const std::vector<std::string>& planned);

}  // namespace refit::harness
