// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/scenario_loading.hpp"

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/error.hpp"
#include "harness/case_outcome.hpp"
#include "harness/case_setup.hpp"
#include "harness/rank_agreement.hpp"
#include "harness/scenario_folders.hpp"

namespace refit::harness {

using nlohmann::json;

LoadedScenarios load_scenarios(const RunOptions& options, World* world) {
    json files = json::array();
    auto read = [&] {
        if (world != nullptr && world->rank() != 0) return;
        for (const std::filesystem::path& path : scenario_files(options.files)) {
            std::ifstream file(path, std::ios::binary);
            std::ostringstream text;
            text << file.rdbuf();
            if (!file) throw core::FileError("cannot read the scenario " + path.string());
            files.push_back({path.string(), text.str()});
        }
        if (files.empty()) throw core::FileError("no scenario (*.yaml) found in the folders given");
    };
    LoadedScenarios loaded;
    auto parse = [&] {
        for (const json& row : files) {
            const auto path = row.at(0).get<std::string>();
            try {
                loaded.scenarios.push_back(parse_scenario(path, row.at(1).get<std::string>(),
                                                          options.overrides, options.filter));
            } catch (const core::FileError& error) {
                if (files.size() == 1) throw;
                Case missing;
                missing.scenario = std::filesystem::path(path).stem().string();
                loaded.skipped.push_back(skipped_case(missing, error.what()));
                loaded.skipped.back().transport = transport_of(missing, world != nullptr);
                continue;
            }
            const Scenario& scenario = loaded.scenarios.back();
            loaded.text += (loaded.text.empty() ? "" : "\n---\n") + scenario.text;
            loaded.cases.insert(loaded.cases.end(), scenario.cases.begin(), scenario.cases.end());
        }
    };
    if (world != nullptr) {
        together(*world, read);
        // A byte that is no UTF-8 is the parser's to refuse, not the transport's.
        files = json::parse(
            broadcast_text(*world, files.dump(-1, ' ', false, json::error_handler_t::replace)));
        together(*world, parse);
    } else {
        read();
        parse();
    }
    loaded.stem = loaded.scenarios.size() == 1 ? loaded.scenarios.front().stem
                                               : options.files.front().filename().stem().string();
    if (loaded.stem.empty()) loaded.stem = "run";
    if (loaded.cases.empty() && loaded.skipped.empty()) {
        throw core::UsageError(
            "no case matches the filter; 'refitbench run --dry-run FILE' prints the names of all "
            "cases");
    }
    return loaded;
}

}  // namespace refit::harness
