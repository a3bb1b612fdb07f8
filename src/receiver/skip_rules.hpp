// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Which modules a quantization_config leaves in BF16, by each engine's own matching rule.
#pragma once

#include <cstdint>
#include <optional>
#include <regex>
#include <string>
#include <unordered_set>
#include <vector>

#include "receiver/engine_contract.hpp"

namespace refit::receiver {

/// What the skip list says of one layer.
struct SkipAnswer {
    bool skipped = false;
    WeightFormat format;  ///< of a layer that is not skipped
    /// Where the list names some parts of a fused layer and the engine cannot follow: what it does
    /// (raises or silently_wrong) with its text. Empty where list and layer agree.
    std::string behaviour;
    std::string engine_message;
};

/// A module, or the parts of a fused layer, as the engine asks for them.
struct SkipQuestion {
    std::string module;              ///< "model.layers.0.self_attn.qkv_proj"
    std::vector<std::string> parts;  ///< "model.layers.0.self_attn.q_proj" ...; one if not fused
    std::string class_name;          ///< of the engine's module: "QKVParallelLinear"
    bool parts_known = false;        ///< of SkipRule::path_endings: see EngineContract::known_parts
};

/// The skip list of one config and what the targets of its groups make of a layer. Sources: vLLM
/// 017e9f4448b7, quantization/utils/quant_utils.py, compressed_tensors/utils.py and modelopt.py;
/// SGLang 8905cbd42f4a, quantization/utils.py and compressed_tensors/utils.py; transformers
/// 33d1bc04, quantizers/quantizers_utils.py.
class SkipRules {
 public:
    /// Throws ScenarioError for an entry that is no regular expression where it must be one.
    SkipRules(const EngineContract& contract, const QuantizationConfig& config);

    [[nodiscard]] SkipAnswer ask(const SkipQuestion& question) const;
    /// The stack of experts "model.layers.0.mlp.experts".
    [[nodiscard]] SkipAnswer ask_experts(const std::string& stack) const;
    /// Whether the list itself names the module, by the rule for a layer of its own.
    [[nodiscard]] bool listed(const std::string& module) const;

 private:
    [[nodiscard]] bool listed_exactly(const std::string& module) const;
    [[nodiscard]] bool matches_dotted(const std::string& module) const;
    [[nodiscard]] bool matches_prefix_or_suffix(const std::string& module) const;
    [[nodiscard]] bool ends_with_entry(const std::string& module) const;
    [[nodiscard]] bool matches_pattern(const std::string& module) const;
    /// A target of the config's groups; its pattern where it has one.
    struct Target {
        TargetFormat of;
        std::optional<std::regex> pattern;
    };
    [[nodiscard]] const Target* named_target(const std::string& module) const;
    [[nodiscard]] const Target* class_target(const std::string& class_name) const;
    [[nodiscard]] const Target* target_of_parts(const SkipQuestion& question) const;
    [[nodiscard]] const Target* target_of(const SkipQuestion& question) const;
    [[nodiscard]] const Target* target_of_expert(const std::string& module) const;
    void find_format(const std::string& module, const Target* target, SkipAnswer& answer) const;
    [[nodiscard]] SkipAnswer skip_of(const SkipQuestion& question) const;
    [[nodiscard]] SkipAnswer by_parts(const SkipQuestion& question) const;
    [[nodiscard]] SkipAnswer by_first_expert(const std::string& stack) const;

    SkipRule rule_;
    std::vector<std::string> entries_;
    std::unordered_set<std::string> exact_;  ///< entries without patterns
    std::vector<std::regex> patterns_;       ///< of "re:" entries, or of every entry as one
    WeightFormat format_;                    ///< where the config has one
    std::vector<Target> targets_;            ///< empty: every linear module
};

}  // namespace refit::receiver
