// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "checks/check_catalog.hpp"
#include "core/error.hpp"
#include "core/nearest_name.hpp"
#include "harness/command_line.hpp"
#include "harness/scenario.hpp"
#include "harness/scenario_folders.hpp"
#include "kernels/backend.hpp"
#include "model/model_catalog.hpp"
#include "quant/recipe.hpp"
#include "receiver/engine_contract.hpp"
#include "receiver/tp_feasibility.hpp"
#include "record/build_info.hpp"
#include "transport/transport_catalog.hpp"
#include "wire/framing.hpp"

namespace refit::harness {
namespace {

using Json = nlohmann::ordered_json;

const std::string kOurs = "refitbench";

Json scenario_rows() {
    Json rows = Json::array();
    const std::filesystem::path folder = scenario_folder();
    if (folder.empty()) return rows;
    for (const std::filesystem::path& file : scenarios_below(folder)) {
        Json row = {{"name", file.lexically_relative(folder).replace_extension().generic_string()},
                    {"source", file.string()}};
        std::ifstream in(file, std::ios::binary);
        const std::string text{std::istreambuf_iterator<char>(in),
                               std::istreambuf_iterator<char>()};
        try {
            const Scenario scenario = parse_scenario(file, text, {}, {});
            row["purpose"] = scenario.purpose;
            row["cases"] = scenario.cases.size();
            std::vector<int> sizes;
            for (const Case& one : scenario.cases) sizes.push_back(one.world_size());
            std::sort(sizes.begin(), sizes.end());
            sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
            row["np"] = sizes;
        } catch (const core::Error& error) {
            // A scenario that needs --set, or is broken, is listed with the reason instead of
            // hiding the others.
            row["error"] = error.what();
        }
        rows.push_back(std::move(row));
    }
    return rows;
}

Json model_rows() {
    Json rows = Json::array();
    for (const model::CatalogRow& row : model::model_catalog()) {
        const model::ModelConfig& config = row.config;
        Json json = {{"name", config.name},
                     {"source", row.source},
                     {"architecture", model::architecture_name(config.architecture)},
                     {"layers", config.layers},
                     {"hidden", config.hidden},
                     {"parameters", row.published_parameters}};
        if (config.experts > 0) {
            json["experts"] = config.experts;
            json["experts_per_token"] = config.experts_per_token;
        }
        if (config.mtp_layers > 0) json["mtp_layers"] = config.mtp_layers;
        rows.push_back(std::move(json));
    }
    return rows;
}

Json recipe_rows() {
    Json rows = Json::array();
    for (const quant::Recipe& row : quant::recipe_catalog()) {
        rows.push_back({{"name", row.name},
                        {"source", row.source},
                        {"scheme", quant::scheme_name(row.scheme)},
                        {"scale", row.scale_suffix},
                        {"scale_rank", row.scale_rank},
                        {"scale_dtype", core::safetensors_name(quant::scale_dtype(row))},
                        {"bits", quant::describe(row.scaling)},
                        {"summary", row.summary}});
    }
    return rows;
}

Json scheme_rows() {
    Json rows = Json::array();
    for (const std::string& name : quant::scheme_names()) {
        Json engines = Json::array();
        Json recipes = Json::array();
        for (const receiver::EngineContract& engine : receiver::engine_catalog()) {
            for (const quant::Scheme scheme : engine.schemes) {
                if (quant::scheme_name(scheme) == name) engines.push_back(engine.name);
            }
        }
        for (const quant::Recipe& recipe : quant::recipe_catalog()) {
            if (quant::scheme_name(recipe.scheme) == name) recipes.push_back(recipe.name);
        }
        rows.push_back(
            {{"name", name}, {"source", kOurs}, {"engines", engines}, {"recipes", recipes}});
    }
    return rows;
}

Json engine_rows() {
    Json rows = Json::array();
    for (const receiver::EngineContract& row : receiver::engine_catalog()) {
        Json schemes = Json::array();
        for (const quant::Scheme scheme : row.schemes)
            schemes.push_back(quant::scheme_name(scheme));
        rows.push_back({{"name", row.name},
                        {"source", row.source},
                        {"version", row.version},
                        {"schemes", schemes},
                        {"algos", row.algos}});
    }
    return rows;
}

Json transport_list_rows() {
    Json rows = Json::array();
    for (const transport::TransportRow& row : transport::transport_rows()) {
        rows.push_back({{"name", row.name},
                        {"source", kOurs},
                        {"compiled", row.viability.compiled},
                        {"viable", row.viability.viable},
                        {"reason", row.viability.reason},
                        {"summary", row.summary}});
    }
    return rows;
}

Json backend_list_rows() {
    Json rows = Json::array();
    for (const kernels::BackendRow& row : kernels::backend_rows()) {
        rows.push_back({{"name", row.name},
                        {"source", kOurs},
                        {"compiled", row.compiled},
                        {"viable", row.viable},
                        {"reason", row.reason}});
    }
    return rows;
}

Json check_rows() {
    Json rows = Json::array();
    for (const checks::CheckRow& row : checks::check_catalog()) {
        rows.push_back({{"name", row.name},
                        {"source", kOurs},
                        {"question", row.question},
                        {"truth", row.truth},
                        {"default", row.by_default},
                        {"available", row.available}});
    }
    return rows;
}

Json fault_rows() {
    Json rows = Json::array();
    for (const FaultRow& row : fault_catalog()) {
        rows.push_back({{"name", row.name},
                        {"source", kOurs},
                        {"what", row.what},
                        {"caught_by", row.caught_by},
                        {"fields", row.fields}});
    }
    return rows;
}

Json framing_rows() {
    Json rows = Json::array();
    for (const wire::FramingRow& row : wire::framing_catalog()) {
        rows.push_back({{"name", row.name},
                        {"source", row.source},
                        {"rule", row.rule},
                        {"hazard", row.hazard},
                        {"uncounted", row.uncounted},
                        {"engines", row.engines.empty() ? "any" : row.engines + "*"},
                        {"boundaries_recomputed", row.recomputed},
                        {"carries_kernel_format", row.kernel_format}});
    }
    return rows;
}

struct Kind {
    std::string name;
    std::function<Json()> rows;
};

const std::vector<Kind>& kinds() {
    static const std::vector<Kind> kKinds = {
        {"scenarios", scenario_rows},    {"models", model_rows},
        {"recipes", recipe_rows},        {"schemes", scheme_rows},
        {"engines", engine_rows},        {"transports", transport_list_rows},
        {"backends", backend_list_rows}, {"checks", check_rows},
        {"faults", fault_rows},          {"framings", framing_rows},
    };
    return kKinds;
}

/// One value as text: lists joined, booleans as yes and no.
std::string cell_text(const Json& value) {
    if (value.is_string()) return value.get<std::string>();
    if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
    if (!value.is_array()) return value.dump();
    std::string text;
    for (const Json& item : value) text += (text.empty() ? "" : ",") + cell_text(item);
    return text;
}

/// Name in a column of its own, then "key=value" pairs; a tab-free line a row, so that it can be
/// cut and grepped.
std::string as_text(const std::string& kind, const Json& rows) {
    std::size_t width = 0;
    for (const Json& row : rows) width = std::max(width, row.at("name").get<std::string>().size());
    std::string text = "# " + std::to_string(rows.size()) + " " + kind + "\n";
    if (kind == "scenarios" && rows.empty()) {
        text += "# no folder of scenarios was found beside the working directory or the program\n";
    }
    for (const Json& row : rows) {
        std::string line = row.at("name").get<std::string>();
        line.resize(width, ' ');
        for (const auto& [key, value] : row.items()) {
            const std::string cell = cell_text(value);
            if (key == "name" || cell.empty() || (key == "source" && cell == kOurs)) continue;
            line += "  " + key + "=" + cell;
        }
        text += line + "\n";
    }
    return text;
}

/// The engines and scheme of `list models --tp`: the ones with the most to refuse.
constexpr const char* kTpEngines[] = {"vllm-fp8", "sglang-fp8"};
constexpr quant::Scheme kTpScheme = quant::Scheme::fp8_blockwise;

Json tp_json(const receiver::TpFeasibility& one) {
    return {{"tp", one.tp},
            {"ep", one.ep},
            {"passes", one.passes},
            {"tensor", one.tensor},
            {"found", one.found},
            {"expected", one.expected},
            {"engine_message", one.engine_message}};
}

Json tp_rows() {
    Json rows = Json::array();
    for (const char* engine : kTpEngines) {
        for (const model::CatalogRow& row : model::model_catalog()) {
            Json sizes = Json::array();
            for (const receiver::TpFeasibility& one :
                 receiver::tp_feasibility(row.config, engine, kTpScheme)) {
                sizes.push_back(tp_json(one));
            }
            rows.push_back({{"name", row.config.name},
                            {"source", kOurs},
                            {"engine", engine},
                            {"scheme", quant::scheme_name(kTpScheme)},
                            {"sizes", sizes}});
        }
    }
    return rows;
}

/// One line of the table: a column for each TP size, then the first failure. Sizes of the other
/// kind (experts cut, experts whole) are left out; empty where no size is of this kind.
std::string tp_line(const std::string& name, const Json& sizes, bool whole_experts,
                    std::size_t width) {
    std::string line = name;
    line.resize(width, ' ');
    std::string failure;
    bool any = false;
    for (const int tp : receiver::kTpSizes) {
        std::string cell = "-";
        for (const Json& one : sizes) {
            const bool whole = one.at("ep").get<int>() > 1;
            if (one.at("tp").get<int>() != tp || whole != whole_experts) continue;
            any = true;
            cell = one.at("passes").get<bool>() ? "yes" : "no";
            if (cell == "yes" || !failure.empty()) continue;
            const auto text = [&one](const char* key) { return one.at(key).get<std::string>(); };
            failure = "TP " + std::to_string(tp) + ": " + text("tensor") + ": " + text("found") +
                      ", wanted " + text("expected");
            if (!text("engine_message").empty()) failure += "; " + text("engine_message");
        }
        cell.resize(5, ' ');
        line += cell;
    }
    line += failure;
    return any ? line.substr(0, line.find_last_not_of(' ') + 1) + "\n" : std::string();
}

std::string tp_text(const Json& rows) {
    const std::string whole = "  whole experts (ep = tp)";
    std::size_t width = whole.size() + 2;
    for (const Json& row : rows)
        width = std::max(width, row.at("name").get<std::string>().size() + 2);
    std::string head = "# model";
    head.resize(width, ' ');
    for (const int tp : receiver::kTpSizes) {
        std::string cell = std::to_string(tp);
        cell.resize(5, ' ');
        head += cell;
    }
    std::string text;
    std::string engine;
    for (const Json& row : rows) {
        if (row.at("engine").get<std::string>() != engine) {
            engine = row.at("engine").get<std::string>();
            text += (text.empty() ? "" : "\n") + ("# TP sizes at which " + engine) +
                    " loads each model as " + std::string(quant::scheme_name(kTpScheme)) +
                    ", by its contract, and the first failure\n" + head + "first failure\n";
        }
        text += tp_line(row.at("name").get<std::string>(), row.at("sizes"), false, width);
        text += tp_line(whole, row.at("sizes"), true, width);
    }
    return text;
}

void write_file(const std::string& path, const std::string& text) {
    std::ofstream out(path, std::ios::binary);
    out << text;
    out.close();
    if (!out)
        throw core::FileError(path +
                              ": the list cannot be written; check folder, permissions and space");
}

void list(const ListOptions& options, const std::vector<std::string>& argv) {
    std::vector<std::string> names;
    for (const Kind& kind : kinds()) names.push_back(kind.name);
    Json rows = Json::array();
    std::string text;
    if (options.kind.empty()) {
        text = "# kind and count; 'refitbench list KIND' prints the rows\n";
        for (const Kind& kind : kinds()) {
            const std::size_t count = kind.rows().size();
            rows.push_back({{"name", kind.name}, {"source", kOurs}, {"count", count}});
            text +=
                kind.name + std::string(12 - kind.name.size(), ' ') + std::to_string(count) + "\n";
        }
    } else {
        const auto found = std::find_if(kinds().begin(), kinds().end(), [&](const Kind& kind) {
            return kind.name == options.kind;
        });
        if (found == kinds().end())
            throw core::UsageError(core::unknown_name_message("kind", options.kind, names));
        rows = options.tp ? tp_rows() : found->rows();
        text = options.tp ? tp_text(rows) : as_text(options.kind, rows);
    }
    if (!options.json.empty()) {
        const Json document = {{"schema", "refitbench.list/1"},
                               {"tool",
                                {{"name", "refitbench"},
                                 {"version", record::tool_version()},
                                 {"commit", record::tool_commit()}}},
                               {"argv", argv},
                               {"kind", options.kind.empty() ? "kinds" : options.kind},
                               {"rows", rows}};
        // A path or an argument need not be UTF-8; JSON must.
        const std::string json =
            document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
        if (options.json == "-") {
            text = json;
        } else {
            write_file(options.json, json);
        }
    }
    std::fputs(text.c_str(), stdout);
    if (std::fflush(stdout) != 0)
        throw core::FileError("standard output: the list cannot be written");
}

}  // namespace

int run_list(const ListOptions& options, const std::vector<std::string>& argv) {
    try {
        list(options, argv);
        return static_cast<int>(core::ExitCode::as_expected);
    } catch (const core::Error& error) {
        std::fprintf(stderr, "refitbench list: %s\n", error.what());
        return static_cast<int>(error.code());
    }
}

}  // namespace refit::harness
