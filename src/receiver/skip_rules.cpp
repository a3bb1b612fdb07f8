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

/// A pattern of Python's re, as far as ECMAScript has it: with the flag for all of it, without
/// lookbehind and named groups. Throws std::regex_error.
std::regex compiled(const std::string& pattern) {
    const std::string any_case = "(?i)";
    if (!pattern.starts_with(any_case)) return std::regex(pattern);
    return std::regex(pattern.substr(any_case.size()), std::regex::ECMAScript | std::regex::icase);
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

std::string schemes_text(const SkipQuestion& question, bool sglang) {
    std::string names;
    for (const std::string& part : question.parts) {
        names += (names.empty() ? "'" : ", '") + leaf_of(part) + "'";
    }
    return std::string("ValueError: Found ") + (sglang ? "" : "a ") +
           "different quantization schemes for [" + names + "] in " + question.module + ". " +
           (sglang ? "SGLang" : "vLLM") + " requires all to use the same scheme.";
}

}  // namespace

SkipRules::SkipRules(const EngineContract& contract, const QuantizationConfig& config)
    : rule_(contract.skip_rule), entries_(config.skip_list), format_(config.format()) {
    // An engine that reads several kinds of config matches each as its writers mean it.
    if (config.quant_method == "compressed-tensors" && rule_ != SkipRule::path_endings) {
        rule_ = SkipRule::patterns;
    }
    const auto bad = [&](const std::string& entry) {
        throw core::ScenarioError("quantization_config for " + contract.name + ": the entry '" +
                                  entry +
                                  "' is not a regular expression that "
                                  "refitbench can read; correct it, or write it without "
                                  "lookbehind and named groups");
    };
    const bool marked = rule_ == SkipRule::patterns || rule_ == SkipRule::path_endings;
    for (const std::string& entry : entries_) {
        const bool pattern = marked ? entry.starts_with("re:")
                                    : rule_ == SkipRule::prefix_or_suffix && !is_plain(entry);
        if (!pattern) {
            exact_.insert(entry);
            continue;
        }
        try {
            patterns_.push_back(compiled(marked ? entry.substr(3) : entry));
        } catch (const std::regex_error&) {
            bad(entry);
        }
    }
    const auto add_target = [&](const TargetFormat& of) {
        Target target{of, std::nullopt};
        if (of.target.starts_with("re:")) {
            try {
                target.pattern.emplace(compiled(of.target.substr(3)));
            } catch (const std::regex_error&) {
                bad(of.target);
            }
        }
        targets_.push_back(std::move(target));
    };
    for (const TargetFormat& target : config.mixed) add_target(target);
    if (!config.mixed.empty()) return;
    for (const std::string& target : config.targets) add_target({target, format_});
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

/// The entry is the path, or its last components.
bool SkipRules::ends_with_entry(const std::string& module) const {
    return std::any_of(exact_.begin(), exact_.end(), [&](const std::string& entry) {
        return module == entry || module.ends_with("." + entry);
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
        case SkipRule::path_endings:
            return ends_with_entry(module) || matches_pattern(module);
        case SkipRule::wildcards:
            return std::any_of(entries_.begin(), entries_.end(), [&](const std::string& entry) {
                return module.find(entry) != std::string::npos || shell_match(module, entry);
            });
    }
    return false;
}

/// The first target that is the module's path, or a pattern of it.
const SkipRules::Target* SkipRules::named_target(const std::string& module) const {
    for (const Target& target : targets_) {
        const bool fits = target.pattern ? matches_from_start(module, *target.pattern)
                                         : target.of.target == module;
        if (fits) return &target;
    }
    return nullptr;
}

/// The first target that stands anywhere in the class name of the engine's module, or is a pattern
/// of it.
const SkipRules::Target* SkipRules::class_target(const std::string& class_name) const {
    const std::string text = lower(class_name);
    for (const Target& target : targets_) {
        const bool fits = target.pattern ? matches_from_start(class_name, *target.pattern)
                                         : text.find(lower(target.of.target)) != std::string::npos;
        if (fits) return &target;
    }
    return nullptr;
}

/// The first part's target, where every part has one.
const SkipRules::Target* SkipRules::target_of_parts(const SkipQuestion& question) const {
    const auto& parts = question.parts;
    const bool all =
        parts.size() > 1 && std::all_of(parts.begin(), parts.end(), [&](const std::string& part) {
            return named_target(part) != nullptr;
        });
    return all ? named_target(parts.front()) : nullptr;
}

/// Paths come first. Then SGLang asks for the class before it asks for the parts, which it knows of
/// some families only; others do it the other way round.
const SkipRules::Target* SkipRules::target_of(const SkipQuestion& question) const {
    const Target* found = named_target(question.module);
    if (found != nullptr) return found;
    if (rule_ != SkipRule::path_endings) {
        found = target_of_parts(question);
        return found != nullptr ? found : class_target(question.class_name);
    }
    found = class_target(question.class_name);
    return found == nullptr && question.parts_known ? target_of_parts(question) : found;
}

/// Experts are asked for by the names of the first, and what "Linear" stands for counts for them.
const SkipRules::Target* SkipRules::target_of_expert(const std::string& module) const {
    const Target* found = named_target(module);
    if (found != nullptr) return found;
    const bool sglang = rule_ == SkipRule::path_endings;
    found = class_target(sglang ? "FusedMoE" : "RoutedExperts");
    if (found != nullptr) return found;
    for (const Target& target : targets_) {
        if (target.of.target == "Linear") return &target;
    }
    return nullptr;
}

/// The format that the target stands for. Without one, SGLang refuses to build the layer and the
/// others leave it in BF16.
void SkipRules::find_format(const std::string& module, const Target* target,
                            SkipAnswer& answer) const {
    if (targets_.empty()) {
        answer.format = format_;
    } else if (target != nullptr) {
        answer.format = target->of.format;
    } else if (rule_ == SkipRule::path_endings) {
        answer.skipped = true;
        answer.behaviour = "raises";
        answer.engine_message = "ValueError: Unable to find matching target for " + module +
                                " in the compressed-tensors config.";
    } else {
        answer.skipped = true;
    }
}

/// Rules that expand a fused layer into its parts and ask for each.
SkipAnswer SkipRules::by_parts(const SkipQuestion& question) const {
    SkipAnswer answer;
    const bool sglang = rule_ == SkipRule::path_endings;
    const bool patterns = rule_ == SkipRule::patterns || sglang;
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
    answer.engine_message =
        patterns ? schemes_text(question, sglang) : some_shards_text(question.module);
    return answer;
}

SkipAnswer SkipRules::ask(const SkipQuestion& question) const {
    SkipAnswer answer = skip_of(question);
    answer.format = format_;
    if (answer.skipped || answer.behaviour == "raises") return answer;
    find_format(question.module, target_of(question), answer);
    return answer;
}

SkipAnswer SkipRules::skip_of(const SkipQuestion& question) const {
    SkipAnswer answer;
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
        case SkipRule::path_endings:
            if (question.parts_known) return by_parts(question);
            // The model class does not tell the parts of its fused layers.
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

SkipAnswer SkipRules::ask_experts(const std::string& stack) const {
    if (rule_ == SkipRule::patterns || rule_ == SkipRule::path_endings) {
        return by_first_expert(stack);
    }
    SkipAnswer answer;
    answer.format = format_;
    // One entry below the stack is enough for the whole of it: these engines look for their own
    // name within the entries, not the other way round.
    const auto named_below = [&](const std::string& prefix) {
        return std::any_of(entries_.begin(), entries_.end(), [&](const std::string& entry) {
            return entry.find("experts") != std::string::npos &&
                   (prefix + entry).find(stack) != std::string::npos;
        });
    };
    switch (rule_) {
        case SkipRule::exact:
            answer.skipped = named_below("");
            break;
        case SkipRule::dotted:
            answer.skipped = listed(stack) || named_below("model.");
            break;
        case SkipRule::wildcards:
            answer.skipped = listed(stack) || named_below("");
            break;
        default:
            answer.skipped = !entries_.empty() && listed(stack);
    }
    return answer;
}

/// compressed-tensors: the three projections of expert 0 answer for all experts.
SkipAnswer SkipRules::by_first_expert(const std::string& stack) const {
    SkipAnswer first;
    for (const char* leaf : {"gate_proj", "up_proj", "down_proj"}) {
        const std::string module = stack + ".0." + leaf;
        SkipAnswer answer;
        answer.skipped = listed(module);
        if (!answer.skipped) find_format(module, target_of_expert(module), answer);
        if (answer.behaviour == "raises") return answer;
        if (leaf == std::string("gate_proj")) first = answer;
        if (answer.skipped == first.skipped && answer.format == first.format) continue;
        first.behaviour = "raises";
        first.engine_message =
            "ValueError: All MoE projections need to have same quantization scheme but found "
            "multiple";
        return first;
    }
    return first;
}

}  // namespace refit::receiver
