// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/config_reader.hpp"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>

namespace refit::receiver {

using json = nlohmann::ordered_json;

std::string ConfigReader::sentence(const ConfigProblem& problem) const {
    return "quantization_config for " + contract_.name + ": '" + problem.key + "' is " +
           problem.found + ", expected " + problem.expected + "; " + problem.remedy;
}

core::Finding ConfigReader::finding_of(const ConfigProblem& problem,
                                       core::Severity severity) const {
    core::Finding finding;
    finding.check = "shape_contract";
    finding.severity = severity;
    finding.tensor = "quantization_config";
    finding.measured = problem.key + " is " + problem.found;
    finding.limit = problem.expected;
    finding.message =
        sentence(problem) + " (contract of " + contract_.name + ": " + contract_.snapshot + ")";
    finding.engine_behaviour = problem.behaviour;
    finding.engine_message = problem.engine_message;
    finding.remedy = problem.remedy;
    return finding;
}

void ConfigReader::not_for_scenarios(const ConfigProblem& problem) {
    reading_.not_for_scenarios = sentence(problem);
}

void ConfigReader::refuse(const ConfigProblem& problem) const {
    throw ConfigRefusal{finding_of(problem, core::Severity::error)};
}

void ConfigReader::warn(const ConfigProblem& problem) {
    reading_.findings.push_back(finding_of(problem, core::Severity::warning));
}

const json* ConfigReader::value_of(const json& object, const char* key) {
    if (!object.is_object()) return nullptr;
    const auto it = object.find(key);
    return it == object.end() || it->is_null() ? nullptr : &*it;
}

std::string ConfigReader::shown(const json* value) {
    return value == nullptr ? "absent" : value->dump();
}

std::string ConfigReader::text_of(const json& object, const char* key, const std::string& where,
                                  const std::string& expected,
                                  const std::string& engine_message) const {
    const json* value = value_of(object, key);
    if (value == nullptr || !value->is_string()) {
        refuse({.key = where + key,
                .found = shown(value),
                .expected = expected,
                .remedy = "write it as a string",
                .engine_message = engine_message});
    }
    return value->get<std::string>();
}

std::vector<std::string> ConfigReader::names_of(const json& object, const char* key) const {
    const json* value = value_of(object, key);
    if (value == nullptr) return {};
    const bool fits = value->is_array() && std::all_of(value->begin(), value->end(),
                                                       [](const json& v) { return v.is_string(); });
    if (!fits) {
        refuse({.key = key,
                .found = value->dump(),
                .expected = "a list of module names",
                .remedy = "correct the list"});
    }
    return value->get<std::vector<std::string>>();
}

void ConfigReader::read_block(const std::string& key, const json& value, WeightFormat& format) {
    // A block is never larger than a dimension that fits into memory.
    constexpr std::int64_t kLargest = std::int64_t{1} << 40;
    const auto is_size = [](const json& v) {
        return v.is_number_integer() && v >= std::int64_t{1} && v <= kLargest;
    };
    const bool two =
        value.is_array() && value.size() == 2 && is_size(value[0]) && is_size(value[1]);
    if (!two) {
        refuse({.key = key,
                .found = value.dump(),
                .expected = "a list of exactly two integers",
                .remedy = "write [128, 128]",
                .engine_message = "ValueError"});
    }
    format.scheme = quant::Scheme::fp8_blockwise;
    format.block_rows = value[0].get<std::int64_t>();
    format.block_cols = value[1].get<std::int64_t>();
    if (format.block_rows == 128 && format.block_cols == 128) return;
    not_for_scenarios({.key = key,
                       .found = value.dump(),
                       .expected = "[128, 128]",
                       .remedy = "every blockwise recipe of a trainer makes blocks of 128 x 128; "
                                 "checkpoints with other blocks are judged by verify"});
    if (format.block_rows == format.block_cols || !contract_.groups_inputs_by_rows) return;
    warn({.key = key,
          .found = value.dump(),
          .expected = "as many rows as columns",
          .remedy = "requantize in square blocks: the weights load, but the engine quantizes the "
                    "inputs of such a layer in groups of the rows of a block, and its kernels want "
                    "groups of the columns",
          .behaviour = "raises",
          .engine_message = "AssertionError without text, in the first product"});
}

}  // namespace refit::receiver
