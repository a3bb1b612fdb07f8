// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/declared_blocks.hpp"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <system_error>

#include "core/error.hpp"
#include "model/config_text.hpp"

namespace refit::harness {

using nlohmann::json;

namespace {

constexpr std::uint64_t kLargestSide = std::uint64_t{1} << 40;

}  // namespace

std::vector<checks::BlockSize> declared_blocks(const std::string& config) {
    std::vector<checks::BlockSize> blocks;
    const json root = json::parse(config, nullptr, false);
    const auto add = [&](const json& object, const char* key) {
        if (!object.is_object()) return;
        const auto value = object.find(key);
        if (value == object.end() || !value->is_array() || value->size() != 2) return;
        if (!(*value)[0].is_number_unsigned() || !(*value)[1].is_number_unsigned()) return;
        const auto rows = (*value)[0].get<std::uint64_t>();
        const auto cols = (*value)[1].get<std::uint64_t>();
        // Larger than any matrix, and sums with such a number overflow.
        if (std::max(rows, cols) > kLargestSide) return;
        blocks.push_back({static_cast<std::int64_t>(rows), static_cast<std::int64_t>(cols)});
    };
    add(root, "weight_block_size");
    if (!root.is_object()) return blocks;
    const auto groups = root.find("config_groups");
    if (groups == root.end() || !groups->is_object()) return blocks;
    for (const auto& [name, group] : groups->items()) {
        if (group.is_object() && group.contains("weights"))
            add(group["weights"], "block_structure");
    }
    return blocks;
}

std::vector<checks::BlockSize> declared_blocks_beside(const std::filesystem::path& weights) {
    const std::filesystem::path config = weights.parent_path() / "config.json";
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(config, ignored)) return {};
    std::ifstream in(config, std::ios::binary);
    if (!in) return {};
    const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    json root;
    try {
        root = json::parse(model::standard_json(config.string(), text), nullptr, false);
    } catch (const core::FileError&) {
        return {};  // no text that engines read either: verify says so
    }
    if (!root.is_object()) return {};
    for (const char* key : {"quantization_config", "compression_config"}) {
        if (root.contains(key) && root[key].is_object()) return declared_blocks(root[key].dump());
    }
    return {};
}

}  // namespace refit::harness
