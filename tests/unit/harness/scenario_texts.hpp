// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Scenarios from text, for tests of their keys.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "core/error.hpp"
#include "harness/scenario.hpp"

namespace refit::harness {

inline const std::string kFile = "folder/question.yaml";
inline const std::string kLeast =
    "purpose: does it load?\n"
    "model: tiny-llama\n"
    "receiver: {engine: vllm-fp8}\n";

inline Scenario parse(const std::string& text, const Overrides& overrides = {},
                      const CaseFilter& filter = {}) {
    return parse_scenario(kFile, text, overrides, filter);
}

inline Case only_case(const std::string& text, const Overrides& overrides = {}) {
    Scenario scenario = parse(text, overrides);
    EXPECT_EQ(scenario.cases.size(), 1U);
    return scenario.cases.empty() ? Case{} : scenario.cases.front();
}

inline std::vector<std::string> case_names(const Scenario& scenario) {
    std::vector<std::string> names;
    for (const Case& one : scenario.cases) names.push_back(one.name);
    return names;
}

/// The message of the ScenarioError that the text must give; exit code 2.
inline std::string error_of(const std::string& text, const Overrides& overrides = {},
                            const CaseFilter& filter = {}) {
    try {
        (void)parse(text, overrides, filter);
    } catch (const core::ScenarioError& error) {
        EXPECT_EQ(error.code(), core::ExitCode::usage);
        return error.what();
    } catch (const std::exception& error) {
        return std::string("NOT a ScenarioError: ") + error.what();
    }
    return "NO error";
}

inline std::string with(const std::string& lines) {
    return kLeast + lines;
}

class TemporaryFolder {
 public:
    TemporaryFolder() {
        std::string pattern =
            (std::filesystem::temp_directory_path() / "refit-scenario-XXXXXX").string();
        path_ = mkdtemp(pattern.data());
    }
    ~TemporaryFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;

    std::filesystem::path write(const std::string& name, const std::string& text) const {
        const std::filesystem::path file = path_ / name;
        std::filesystem::create_directories(file.parent_path());
        std::ofstream(file) << text;
        return file;
    }
    [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
    std::filesystem::path path_;
};

}  // namespace refit::harness
