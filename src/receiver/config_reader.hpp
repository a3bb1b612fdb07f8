// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Reading the keys of a quantization_config, each with the finding that a wrong one gives; private
// to this folder.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "receiver/engine_contract.hpp"

namespace refit::receiver {

/// What is said about one key.
struct ConfigProblem {
    std::string key;
    std::string found;
    std::string expected;
    std::string remedy;
    /// What the engine does; "" where refitbench alone cannot go on.
    std::string behaviour = "raises";
    std::string engine_message = {};
};

/// Thrown where reading cannot go on, and caught by read_quantization_config.
struct ConfigRefusal {
    core::Finding finding;
};

/// Values of a JSON object under the rules that all formats share.
class ConfigReader {
 public:
    ConfigReader(const EngineContract& contract, ConfigReading& reading)
        : contract_(contract), reading_(reading) {}

    [[nodiscard]] const EngineContract& contract() const { return contract_; }
    [[nodiscard]] QuantizationConfig& config() { return reading_.config; }
    /// Why a scenario cannot use what a checkpoint may hold.
    void not_for_scenarios(const ConfigProblem& problem);
    [[noreturn]] void refuse(const ConfigProblem& problem) const;
    void warn(const ConfigProblem& problem);

    /// The value of `key` unless it is absent or null, which mean the same to the engines.
    [[nodiscard]] static const nlohmann::ordered_json* value_of(
        const nlohmann::ordered_json& object, const char* key);
    [[nodiscard]] static std::string shown(const nlohmann::ordered_json* value);
    [[nodiscard]] std::string text_of(const nlohmann::ordered_json& object, const char* key,
                                      const std::string& where, const std::string& expected,
                                      const std::string& engine_message) const;
    [[nodiscard]] std::vector<std::string> names_of(const nlohmann::ordered_json& object,
                                                    const char* key) const;
    /// Rows and columns of a block, into `format`.
    void read_block(const std::string& key, const nlohmann::ordered_json& value,
                    WeightFormat& format);

 private:
    [[nodiscard]] core::Finding finding_of(const ConfigProblem& problem,
                                           core::Severity severity) const;
    [[nodiscard]] std::string sentence(const ConfigProblem& problem) const;

    const EngineContract& contract_;
    ConfigReading& reading_;
};

/// The parts of the formats: compressed_tensors_config.cpp.
void read_compressed_tensors(ConfigReader& reader, const nlohmann::ordered_json& root);

}  // namespace refit::receiver
