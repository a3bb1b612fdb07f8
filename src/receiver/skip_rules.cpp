// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/skip_rules.hpp"

#include <algorithm>
#include <cctype>
#include <optional>

#include "core/error.hpp"

namespace refit::receiver {
namespace {

std::string lower(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return text;
}

std::string leaf_of(const std::string& module) {
    return module.substr(module.rfind('.') + 1);
}

/// An entry whose only character with a meaning in regular expressions is the dot.
bool is_plain(const std::string& entry) {
    return std::all_of(entry.begin(), entry.end(), [](unsigned char c) {
        return std::isalnum(c) != 0 || c == '_' || c == '-' || c == '.';
    });
}

/// A match of a plain entry from the start on, a dot standing for any character.
bool plain_match(const std::string& text, const std::string& entry) {
    if (text.size() < entry.size()) return false;
    for (std::size_t i = 0; i < entry.size(); ++i) {
        if (entry[i] != '.' && entry[i] != text[i]) return false;
    }
    return true;
}

bool matches_from_start(const std::string& text, const std::regex& pattern) {
    return std::regex_search(text, pattern, std::regex_constants::match_continuous);
}

/// Shell pattern of '*' and '?'; other characters stand for themselves.
bool shell_match(const std::string& text, const std::string& pattern) {
    std::size_t t = 0;
    std::size_t p = 0;
    std::optional<std::pair<std::size_t, std::size_t>> star;
    while (t < text.size()) {
        if (p < pattern.size() && pattern[p] == '*') {
            star = {p++, t};
        } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
            ++p;
            ++t;
        } else if (star) {
            p = star->first + 1;
            t = ++star->second;
        } else {
            return false;
        }
    }
    while (p < pattern.size() && pattern[p] == '*') ++p;
    return p == pattern.size();
}

std::string some_shards_text(const std::string& module) {
    return "ValueError: Detected some but not all shards of " + module +
           " are quantized. All shards of fused layers to have the same precision.";
}

std::string schemes_text(const SkipQuestion& question) {
    std::string names;
    for (const std::string& part : question.parts) {
        names += (names.empty() ? "'" : ", '") + leaf_of(part) + "'";
    }
    return "ValueError: Found a different quantization schemes for [" + names + "] in " +
           question.module + ". vLLM requires all to use the same scheme.";
}

}  // namespace

SkipRules::SkipRules(const EngineContract& contract, const QuantizationConfig& config)
    : rule_(contract.skip_rule), entries_(config.skip_list), targets_(config.targets) {
    // An engine that reads several kinds of config matches each as its writers mean it.
    if (config.quant_method == "compressed-tensors" && rule_ != SkipRule::fused_containment) {
        rule_ = SkipRule::patterns;
    }
    const auto bad = [&](const std::string& entry) {
        throw core::ScenarioError("quantization_config for " + contract.name + ": the entry '" +
                                  entry + "' is not a regular expression; correct it");
    };
    const bool marked = rule_ == SkipRule::patterns || rule_ == SkipRule::fused_containment;
    for (const std::string& entry : entries_) {
        const bool pattern = marked ? entry.starts_with("re:")
                                    : rule_ == SkipRule::prefix_or_suffix && !is_plain(entry);
        if (!pattern) {
            exact_.insert(entry);
            continue;
        }
        try {
            patterns_.emplace_back(marked ? entry.substr(3) : entry);
        } catch (const std::regex_error&) {
            bad(entry);
        }
    }
    for (const std::string& target : targets_) {
        if (!target.starts_with("re:")) continue;
        try {
            target_patterns_.emplace_back(target, std::regex(target.substr(3)));
        } catch (const std::regex_error&) {
            bad(target);
        }
    }
}

bool SkipRules::matches_pattern(const std::string& module) const {
    return std::any_of(patterns_.begin(), patterns_.end(), [&](const std::regex& pattern) {
        return matches_from_start(module, pattern);
    });
}

bool SkipRules::listed_exactly(const std::string& module) const {
    return exact_.count(module) != 0 || matches_pattern(module);
}

/// The entry, with or without "model.", is the path, its beginning or whole components within it.
bool SkipRules::matches_dotted(const std::string& module) const {
    const std::string inside = "." + module + ".";
    return std::any_of(entries_.begin(), entries_.end(), [&](const std::string& entry) {
        if (entry.empty()) return false;
        const std::string bare = entry.starts_with("model.") ? entry.substr(6) : entry;
        return inside.find("." + entry + ".") != std::string::npos ||
               (!bare.empty() && inside.find("." + bare + ".") != std::string::npos);
    });
}

bool SkipRules::matches_prefix_or_suffix(const std::string& module) const {
    if (matches_pattern(module)) return true;
    return std::any_of(entries_.begin(), entries_.end(), [&](const std::string& entry) {
        if (module.ends_with(entry)) return true;
        return is_plain(entry) && plain_match(module, entry);
    });
}

/// The entry stands anywhere in the path, whatever the case of its letters.
bool SkipRules::contains_entry(const std::string& module) const {
    const std::string text = lower(module);
    return std::any_of(entries_.begin(), entries_.end(), [&](const std::string& entry) {
        return !entry.starts_with("re:") && text.find(lower(entry)) != std::string::npos;
    });
}

bool SkipRules::listed(const std::string& module) const {
    switch (rule_) {
        case SkipRule::exact:
        case SkipRule::patterns:
            return listed_exactly(module);
        case SkipRule::dotted:
            return matches_dotted(module);
        case SkipRule::prefix_or_suffix:
            return matches_prefix_or_suffix(module);
        case SkipRule::fused_containment:
            return contains_entry(module) || matches_pattern(module);
        case SkipRule::wildcards:
            return std::any_of(entries_.begin(), entries_.end(), [&](const std::string& entry) {
                return module.find(entry) != std::string::npos || shell_match(module, entry);
            });
    }
    return false;
}

/// Whether a group of the config quantizes the layer: by path, by pattern or by the class of the
/// engine's module, in which the target may stand anywhere.
bool SkipRules::targeted(const SkipQuestion& question) const {
    if (targets_.empty()) return true;
    const std::string class_name = lower(question.class_name);
    for (const std::string& target : targets_) {
        if (target == question.module) return true;
        if (!target.starts_with("re:") && class_name.find(lower(target)) != std::string::npos) {
            return true;
        }
    }
    const auto fits = [&](const std::string& module) {
        if (std::find(targets_.begin(), targets_.end(), module) != targets_.end()) return true;
        return std::any_of(target_patterns_.begin(), target_patterns_.end(),
                           [&](const auto& one) { return matches_from_start(module, one.second); });
    };
    if (fits(question.module)) return true;
    const bool follows_parts = rule_ != SkipRule::fused_containment;
    return follows_parts && std::all_of(question.parts.begin(), question.parts.end(), fits);
}

/// Rules that expand a fused layer into its parts and ask for each.
SkipAnswer SkipRules::by_parts(const SkipQuestion& question) const {
    SkipAnswer answer;
    const bool patterns = rule_ == SkipRule::patterns;
    const bool exact = rule_ == SkipRule::exact || rule_ == SkipRule::wildcards;
    const auto named = [&](const std::string& module) {
        return exact ? exact_.count(module) != 0 : listed(module);
    };
    // A pattern is tried on the parts only, a path on the fused layer too.
    if (patterns ? exact_.count(question.module) != 0 : named(question.module)) {
        answer.skipped = true;
        return answer;
    }
    const auto count = static_cast<std::size_t>(
        std::count_if(question.parts.begin(), question.parts.end(), named));
    answer.skipped = count == question.parts.size();
    if (count == 0 || answer.skipped) return answer;
    answer.behaviour = "raises";
    answer.engine_message = patterns ? schemes_text(question) : some_shards_text(question.module);
    return answer;
}

SkipAnswer SkipRules::ask(const SkipQuestion& question) const {
    SkipAnswer answer;
    if (!targeted(question)) {
        answer.skipped = true;
        return answer;
    }
    switch (rule_) {
        case SkipRule::exact:
        case SkipRule::dotted:
        case SkipRule::patterns:
            return by_parts(question);
        case SkipRule::prefix_or_suffix:
            answer.skipped = listed(question.module);
            return answer;
        case SkipRule::wildcards:
            answer = by_parts(question);
            if (answer.behaviour.empty() && !answer.skipped) {
                answer.skipped = listed(question.module);
            }
            return answer;
        case SkipRule::fused_containment:
            // The engine does not know the parts of its fused layers.
            answer.skipped = listed(question.module);
            if (answer.skipped || question.parts.size() < 2) return answer;
            if (std::any_of(question.parts.begin(), question.parts.end(),
                            [&](const std::string& part) { return listed_exactly(part); })) {
                answer.behaviour = "silently_wrong";
            }
            return answer;
    }
    return answer;
}

SkipAnswer SkipRules::ask_experts(const std::string& stack, std::int64_t experts) const {
    SkipAnswer answer;
    SkipQuestion question{stack, {stack + ".0.gate_proj", stack + ".0.up_proj"}, "Linear"};
    if (!targeted(question)) {
        answer.skipped = true;
        return answer;
    }
    // One entry below the stack is enough for the whole of it: these engines look for their own
    // name within the entries, not the other way round.
    const auto named_below = [&](const std::string& prefix) {
        return std::any_of(entries_.begin(), entries_.end(), [&](const std::string& entry) {
            return entry.find("experts") != std::string::npos &&
                   (prefix + entry).find(stack) != std::string::npos;
        });
    };
    if (rule_ == SkipRule::exact) {
        answer.skipped = named_below("");
        return answer;
    }
    if (rule_ == SkipRule::dotted) {
        answer.skipped = listed(stack) || named_below("model.");
        return answer;
    }
    answer.skipped = !entries_.empty() && listed(stack);
    if (answer.skipped || rule_ != SkipRule::patterns || entries_.empty()) return answer;
    std::int64_t count = 0;
    for (std::int64_t expert = 0; expert < experts; ++expert) {
        const std::string prefix = stack + "." + std::to_string(expert) + ".";
        for (const char* leaf : {"gate_proj", "up_proj", "down_proj"}) {
            count += listed(prefix + leaf) ? 1 : 0;
        }
    }
    answer.skipped = count == 3 * experts;
    if (count > 0 && !answer.skipped) answer.behaviour = "raises";
    return answer;
}

}  // namespace refit::receiver
