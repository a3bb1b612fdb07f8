// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/scenario.hpp"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <map>
#include <utility>

#include "core/error.hpp"
#include "harness/scenario_case.hpp"
#include "harness/scenario_tree.hpp"

namespace refit::harness {
namespace {

/// Where a piece of YAML comes from.
struct Origin {
    std::string name;  ///< file name, or "--set 'key=value'"
    bool from_set = false;

    [[nodiscard]] std::string where(int line) const {
        return from_set ? name
                        : name + ":" + std::to_string(line + 1);  // yaml-cpp counts lines from 0.
    }
};

// Aliases can make a short text a huge or endless tree; a scenario needs neither.
constexpr int kDeepest = 32;
constexpr std::size_t kMostNodes = 100000;

class TreeBuilder {
 public:
    explicit TreeBuilder(Origin origin) : origin_(std::move(origin)) {}

    Node build(const YAML::Node& yaml, int line, int depth) {
        if (depth > kDeepest || ++nodes_ > kMostNodes) {
            throw core::ScenarioError(
                origin_.where(line) +
                ": nested too deeply or too large; an alias may refer to itself");
        }
        Node node;
        node.where = origin_.where(line);
        node.from_set = origin_.from_set;
        switch (yaml.Type()) {
            case YAML::NodeType::Undefined:
            case YAML::NodeType::Null:
                break;
            case YAML::NodeType::Scalar:
                node.kind = Node::Kind::scalar;
                node.text = yaml.Scalar();
                node.quoted = yaml.Tag() != "?";
                break;
            case YAML::NodeType::Sequence:
                node.kind = Node::Kind::list;
                for (const auto& item : yaml)
                    node.items.push_back(build(item, item.Mark().line, depth + 1));
                break;
            case YAML::NodeType::Map:
                node.kind = Node::Kind::map;
                build_map(yaml, depth, node);
                break;
        }
        return node;
    }

 private:
    void build_map(const YAML::Node& yaml, int depth, Node& node) {
        std::map<std::string, int> lines;
        for (const auto& entry : yaml) {
            // The value of "key:" alone is marked at the next token, so that lines are those of the
            // keys.
            const int line = entry.first.Mark().line;
            if (!entry.first.IsScalar())
                throw core::ScenarioError(origin_.where(line) + ": a key must be a name");
            const std::string key = entry.first.Scalar();
            const auto [first, fresh] = lines.emplace(key, line);
            if (!fresh) {
                // yaml-cpp 0.7 accepts this and answers with the first of the two.
                throw core::ScenarioError(
                    origin_.where(line) + ": the key '" + key + "' is repeated; it stands at " +
                    origin_.where(first->second) + " already. Remove one of the two");
            }
            node.keys.push_back(key);
            node.items.push_back(build(entry.second, line, depth + 1));
        }
    }

    Origin origin_;
    std::size_t nodes_ = 0;
};

Node parse_yaml(const std::string& text, const Origin& origin) {
    try {
        const std::vector<YAML::Node> documents = YAML::LoadAll(text);
        if (documents.size() > 1) {
            throw core::ScenarioError(
                origin.name + ": holds " + std::to_string(documents.size()) +
                " YAML documents; expected one (remove the '---' between them)");
        }
        TreeBuilder builder(origin);
        if (documents.empty()) return builder.build(YAML::Node(), 0, 0);
        return builder.build(documents.front(), std::max(documents.front().Mark().line, 0), 0);
    } catch (const YAML::Exception& error) {
        const std::string where =
            error.mark.is_null() ? origin.name : origin.where(error.mark.line);
        throw core::ScenarioError(where + ": not valid YAML: " + error.msg);
    }
}

/// One dotted key with the value it takes.
struct Setting {
    std::string path;
    Node value;
};
using Settings = std::vector<Setting>;

/// The dotted keys of a map: nested maps are descended into, but for values that are maps
/// themselves.
void flatten(const Node& map, const std::string& prefix, Settings& settings) {
    for (std::size_t i = 0; i < map.keys.size(); ++i) {
        const std::string path = prefix.empty() ? map.keys[i] : prefix + "." + map.keys[i];
        const Node& value = map.items[i];
        const bool model =
            path == "model" && (value.find("name") != nullptr || value.find("config") != nullptr);
        if (value.kind == Node::Kind::map && !value.items.empty() && !model &&
            path != "receiver.quantization_config") {
            flatten(value, path, settings);
            continue;
        }
        for (const Setting& other : settings) {
            if (!path_covers(other.path, path) && !path_covers(path, other.path)) continue;
            throw core::ScenarioError(value.where + ": '" + path + "' and '" + other.path + "' (" +
                                      other.value.where +
                                      ") set the same key; remove one of the two");
        }
        for (const std::string key : {"purpose", "sweep", "cases"}) {
            if (path_covers(key, path)) {
                throw core::ScenarioError(value.where + ": '" + key +
                                          "' is the scenario's, not one case's");
            }
        }
        settings.push_back({path, value});
    }
}

Settings read_sweep(const Node* node) {
    Settings axes;
    if (node == nullptr || node->is_empty()) return axes;
    if (node->kind != Node::Kind::map)
        refuse(*node, "sweep", "a map such as {payload.recipe: [a, b]}");
    flatten(*node, "", axes);
    for (const Setting& axis : axes) {
        const std::string path = "sweep." + axis.path;
        if (axis.value.kind != Node::Kind::list || axis.value.items.empty()) {
            refuse(axis.value, path, "a list of values, such as [a, b]");
        }
        for (std::size_t i = 0; i < axis.value.items.size(); ++i) {
            for (std::size_t j = 0; j < i; ++j) {
                if (flow_text(axis.value.items[i]) == flow_text(axis.value.items[j])) {
                    refuse(axis.value, path, "each value once");
                }
            }
        }
    }
    return axes;
}

std::vector<Settings> read_cases(const Node* node) {
    std::vector<Settings> cases;
    if (node == nullptr || node->is_empty()) return cases;
    const std::string expected =
        "a list of maps such as [{payload.scheme: bf16}, {receiver.tp: 4}]";
    if (node->kind != Node::Kind::list) refuse(*node, "cases", expected);
    for (const Node& item : node->items) {
        if (item.kind != Node::Kind::map || item.items.empty()) refuse(item, "cases", expected);
        flatten(item, "", cases.emplace_back());
    }
    return cases;
}

void refuse_overlap(const Settings& axes, const std::vector<Settings>& cases) {
    for (const Settings& settings : cases) {
        for (const Setting& setting : settings) {
            for (const Setting& axis : axes) {
                if (!path_covers(axis.path, setting.path) && !path_covers(setting.path, axis.path))
                    continue;
                throw core::ScenarioError(setting.value.where + ": '" + setting.path +
                                          "' is set by a case and '" + axis.path + "' is swept (" +
                                          axis.value.where + "); keep one of the two");
            }
        }
    }
}

/// Every combination of the axes, the last one turning fastest. One empty combination where there
/// is no axis.
std::vector<Settings> combinations(const Settings& axes) {
    std::vector<Settings> all(1);
    for (const Setting& axis : axes) {
        std::vector<Settings> longer;
        for (const Settings& settings : all) {
            for (const Node& value : axis.value.items) {
                longer.push_back(settings);
                longer.back().push_back({axis.path, value});
            }
        }
        all = std::move(longer);
        if (all.size() > kMostNodes) refuse(axis.value, "sweep", "fewer combinations than 100000");
    }
    return all;
}

/// The keys that tell the cases of a scenario apart. What is expected of a case, and what is said
/// about it, is no part of its name.
std::string case_name(const Settings& settings) {
    std::string name;
    for (const Setting& setting : settings) {
        if (path_covers("expect", setting.path) || setting.path == "remark") continue;
        name += (name.empty() ? "" : ", ") + setting.path + "=" + flow_text(setting.value);
    }
    return name;
}

Settings read_overrides(const Overrides& overrides) {
    Settings settings;
    for (const auto& [key, text] : overrides) {
        const Origin origin{"--set '" + key + "=" + text + "'", true};
        settings.push_back({key, parse_yaml(text, origin)});
    }
    return settings;
}

/// Removes what --set decides. True where something was removed.
bool drop_overridden(const Settings& overrides, Settings& settings) {
    const auto overridden = [&](const Setting& setting) {
        return std::any_of(overrides.begin(), overrides.end(),
                           [&](const Setting& by) { return path_covers(by.path, setting.path); });
    };
    return std::erase_if(settings, overridden) != 0;
}

/// --set sweep.KEY=LIST names an axis by its dotted key, however the file nests it.
void override_axis(const Setting& by, Settings& axes) {
    const std::string path = by.path.substr(std::string("sweep.").size());
    std::erase_if(axes, [&](const Setting& axis) {
        return path_covers(path, axis.path) || path_covers(axis.path, path);
    });
    if (by.value.is_empty()) return;
    Node sweep;
    sweep.kind = Node::Kind::map;
    sweep.where = by.value.where;
    sweep.keys = {path};
    sweep.items = {by.value};
    for (const Setting& axis : read_sweep(&sweep)) axes.push_back(axis);
}

/// The cases before their keys are read: which settings each has over the file's keys.
std::vector<Settings> expand(const Node& root, const Settings& overrides) {
    Settings axes = read_sweep(root.find("sweep"));
    for (const Setting& by : overrides) {
        if (path_covers("sweep", by.path) && by.path != "sweep") override_axis(by, axes);
    }
    std::vector<Settings> cases = read_cases(root.find("cases"));
    refuse_overlap(axes, cases);
    bool dropped = drop_overridden(overrides, axes);
    for (Settings& settings : cases) dropped = drop_overridden(overrides, settings) || dropped;
    if (cases.empty()) cases.emplace_back();

    std::vector<Settings> expanded;
    std::map<std::string, std::size_t> names;
    const std::vector<Settings> swept = combinations(axes);
    for (const Settings& one : cases) {
        for (const Settings& combination : swept) {
            Settings settings = one;
            settings.insert(settings.end(), combination.begin(), combination.end());
            if (!names.emplace(case_name(settings), expanded.size()).second) {
                if (dropped) continue;  // Cases that --set has made equal are one case.
                const std::string where =
                    settings.empty() ? root.where : settings.front().value.where;
                throw core::ScenarioError(
                    where + ": the case '" + case_name(settings) +
                    "' is there twice; remove one or give it a key that differs");
            }
            expanded.push_back(std::move(settings));
        }
    }
    return expanded;
}

bool is_selected(const Case& one, const CaseFilter& filter) {
    if (filter.globs.empty()) return true;
    return std::any_of(filter.globs.begin(), filter.globs.end(), [&](const std::string& glob) {
        return weights::glob_match(glob, one.scenario + "/" + one.name) ||
               (one.name.empty() && weights::glob_match(glob, one.scenario));
    });
}

/// -n, -w and --timeout as the keys that they stand for.
Settings filter_settings(const CaseFilter& filter) {
    Settings settings;
    const auto add = [&](const char* key, const char* option, const std::string& text) {
        Node node;
        node.kind = Node::Kind::scalar;
        node.text = text;
        node.where = std::string(option) + " " + text;
        node.from_set = true;
        settings.push_back({key, node});
    };
    if (filter.iterations) add("iterations", "-n", std::to_string(*filter.iterations));
    if (filter.warmup) add("warmup", "-w", std::to_string(*filter.warmup));
    if (filter.timeout_s) add("timeout_s", "--timeout", std::to_string(*filter.timeout_s));
    return settings;
}

}  // namespace

Scenario parse_scenario(const std::filesystem::path& file, const std::string& text,
                        const Overrides& overrides, const CaseFilter& filter) {
    if (const std::size_t at = text.find('\0'); at != std::string::npos) {
        const auto line =
            1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at), '\n');
        throw core::ScenarioError(file.string() + ":" + std::to_string(line) +
                                  ": holds a byte 0; expected a text file of YAML");
    }
    Node root = parse_yaml(text, {file.string(), false});
    if (root.kind != Node::Kind::map) {
        throw core::ScenarioError(file.string() +
                                  ": holds no map of keys; a scenario has at least 'purpose', "
                                  "'model' and 'receiver: {engine: NAME}'");
    }
    Settings settings_of_line = read_overrides(overrides);
    for (const Setting& by : settings_of_line) {
        if (by.path == "sweep" || by.path == "cases" || by.path == "purpose")
            set_path(root, by.path, by.value);
        if (path_covers("cases", by.path) && by.path != "cases") {
            throw core::ScenarioError(
                by.value.where + ": cases is a list; set it as a whole, or set the key itself");
        }
    }
    for (Setting& setting : filter_settings(filter)) settings_of_line.push_back(std::move(setting));

    Scenario scenario;
    scenario.file = file;
    scenario.stem = file.stem().string();
    scenario.text = text;
    for (const Settings& settings : expand(root, settings_of_line)) {
        Node merged = root;
        for (const Setting& setting : settings) set_path(merged, setting.path, setting.value);
        for (const Setting& by : settings_of_line) {
            if (!path_covers("sweep", by.path) && by.path != "cases")
                set_path(merged, by.path, by.value);
        }
        Case one = read_case(merged, file);
        one.name = case_name(settings);
        scenario.purpose = one.purpose;
        if (is_selected(one, filter)) scenario.cases.push_back(std::move(one));
    }
    return scenario;
}

}  // namespace refit::harness
