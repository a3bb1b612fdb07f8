// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The config.json of an exported checkpoint: the source's keys, the engine's quantization_config,
// the user's overrides.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "quant/recipe.hpp"

namespace refit::harness {

class ExportConfig {
 public:
    /// Merges, in this order: the source's config.json, the quantization_config that `engine` needs
    /// for `scheme`, a kv_cache_scheme of the source, and `override_file` ("" for none) as a JSON
    /// merge patch: objects are merged, null removes a key, anything else replaces. Names of the
    /// override's skip lists come on top of those of this program.
    ///
    /// Throws Error with exit code 1 for a source whose weights are quantized, or whose
    /// kv_cache_scheme has no place in this engine's format; UsageError for an override that is not
    /// an object; FileError for a file that cannot be read.
    ExportConfig(const std::filesystem::path& model, const std::string& engine,
                 quant::Scheme scheme, const std::filesystem::path& override_file);

    /// Module names (or patterns) that the override lists.
    [[nodiscard]] const std::vector<std::string>& listed_by_override() const { return listed_; }
    /// Module names that the engine leaves in BF16 unless told otherwise: whole names, or the last
    /// parts of names.
    [[nodiscard]] const std::vector<std::string>& listed_by_engine() const { return by_engine_; }
    /// Key of the skip list in quantization_config: ignore or modules_to_not_convert.
    [[nodiscard]] std::string skip_key() const;

    /// The quantization_config with this skip list, as JSON text.
    [[nodiscard]] std::string quantization_config(const std::vector<std::string>& skipped) const;
    /// The whole config.json with this skip list.
    [[nodiscard]] std::string config_json(const std::vector<std::string>& skipped) const;
    /// hf_quant_config.json, which ModelOpt writes beside config.json and some engines read
    /// instead;
    /// "" for the other formats.
    [[nodiscard]] std::string hf_quant_config(const std::vector<std::string>& skipped) const;

 private:
    [[nodiscard]] std::string method() const;

    std::string text_;   ///< config.json without a skip list
    std::string quant_;  ///< its quantization_config
    std::vector<std::string> listed_;
    std::vector<std::string> by_engine_;
};

}  // namespace refit::harness
