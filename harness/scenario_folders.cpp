// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/scenario_folders.hpp"

#include <algorithm>
#include <map>
#include <string>
#include <system_error>

#include "core/error.hpp"
#include "core/nearest_name.hpp"
#include "harness/scenario.hpp"

namespace refit::harness {

namespace fs = std::filesystem;

fs::path scenario_folder() {
    std::vector<fs::path> candidates = {"scenarios"};
    std::error_code error;
    const fs::path program = fs::read_symlink("/proc/self/exe", error);
    if (!error) {
        const fs::path folder = program.parent_path();
        candidates.push_back(folder / "scenarios");
        candidates.push_back(folder.parent_path() / "scenarios");
        candidates.push_back(folder.parent_path() / "share" / "refitbench" / "scenarios");
    }
#ifdef REFIT_SCENARIO_DIR
    candidates.emplace_back(REFIT_SCENARIO_DIR);
#endif
    for (const fs::path& candidate : candidates) {
        if (fs::is_directory(candidate, error)) return candidate;
    }
    return {};
}

std::vector<fs::path> scenarios_below(const fs::path& folder) {
    std::vector<fs::path> files;
    try {
        for (auto entry = fs::recursive_directory_iterator(folder);
             entry != fs::recursive_directory_iterator(); ++entry) {
            if (entry->is_directory() && entry->path().filename() == "references") {
                entry.disable_recursion_pending();
            } else if (entry->is_regular_file() && entry->path().extension() == ".yaml") {
                files.push_back(entry->path());
            }
        }
    } catch (const fs::filesystem_error& error) {
        throw core::FileError(folder.string() +
                              ": cannot list the scenarios in it: " + error.code().message());
    }
    std::sort(files.begin(), files.end());
    return files;
}

std::vector<fs::path> scenario_files(const std::vector<fs::path>& arguments) {
    std::vector<fs::path> files;
    for (const fs::path& argument : arguments) {
        std::error_code error;
        if (fs::is_directory(argument, error)) {
            const std::vector<fs::path> below = scenarios_below(argument);
            if (below.empty()) {
                throw core::FileError(argument.string() +
                                      ": a folder without scenario files (*.yaml)");
            }
            files.insert(files.end(), below.begin(), below.end());
        } else if (fs::exists(argument, error)) {
            files.push_back(argument);
        } else {
            std::string message = argument.string() + ": there is no such scenario file or folder";
            const fs::path folder = scenario_folder();
            std::map<std::string, std::string> by_stem;
            std::vector<std::string> stems;
            if (!folder.empty()) {
                for (const fs::path& known : scenarios_below(folder)) {
                    if (by_stem.emplace(known.stem().string(), known.string()).second) {
                        stems.push_back(known.stem().string());
                    }
                }
            }
            if (stems.empty()) {
                message +=
                    "; no folder of scenarios was found beside the working directory or the "
                    "program";
            } else {
                message += "; nearest: ";
                std::vector<std::string> nearest =
                    core::nearest_names(argument.stem().string(), stems);
                if (nearest.size() > 3) nearest.resize(3);
                for (std::size_t i = 0; i < nearest.size(); ++i) {
                    message += (i == 0 ? "" : ", ") + by_stem[nearest[i]];
                }
                message += ". 'refitbench list scenarios' prints all";
            }
            throw core::FileError(message);
        }
    }
    return files;
}

}  // namespace refit::harness
