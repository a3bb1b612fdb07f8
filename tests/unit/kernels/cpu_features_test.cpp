// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/cpu_features.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/backend.hpp"

namespace refit::kernels::cpu {
namespace {

TEST(MissingFeatures, NamesEachOneThatIsAbsentAndNothingWhenAllAreThere) {
    EXPECT_EQ(missing_features(std::vector<CpuFeature>{{"A", true}, {"B", true}}), "");
    EXPECT_EQ(missing_features(std::vector<CpuFeature>{{"A", true}, {"B", false}}), "CPU lacks B");
    EXPECT_EQ(missing_features(std::vector<CpuFeature>{{"A", false}, {"B", true}, {"C", false}}),
              "CPU lacks A and C");
    EXPECT_EQ(missing_features(std::vector<CpuFeature>{{"A", false}, {"B", false}, {"C", false}}),
              "CPU lacks A, B and C");
}

TEST(CpuFeatures, AgreeWithWhatTheOperatingSystemReports) {
    std::ifstream file("/proc/cpuinfo");
    std::vector<std::string> flags;
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with("flags")) {
            std::istringstream words(line.substr(line.find(':') + 1));
            for (std::string word; words >> word;) flags.push_back(word);
            break;
        }
    }
    if (flags.empty()) {
        GTEST_SKIP() << "/proc/cpuinfo has no line of flags here";
    }
    std::vector<CpuFeature> features = avx2_features();
    for (const CpuFeature& feature : avx512_features()) features.push_back(feature);
    ASSERT_EQ(features.size(), 6U);
    for (const CpuFeature& feature : features) {
        std::string flag;  // AVX-512BW is avx512bw there, and VBMI has a name of its own
        for (const char c : feature.name) {
            if (c != '-') flag += static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
        }
        const bool listed = std::find(flags.begin(), flags.end(), flag) != flags.end() ||
                            std::find(flags.begin(), flags.end(),
                                      flag == "avx512vbmi" ? "avx512_vbmi" : flag) != flags.end();
        EXPECT_EQ(feature.present, listed) << feature.name;
    }
}

TEST(BackendList, SaysWhichFeatureKeepsABackendFromRunning) {
    for (const BackendRow& row : backend_rows()) {
        const std::vector<CpuFeature> features = row.name == "avx2"     ? avx2_features()
                                                 : row.name == "avx512" ? avx512_features()
                                                                        : std::vector<CpuFeature>{};
        if (!row.compiled || features.empty()) continue;
        EXPECT_EQ(row.reason, missing_features(features)) << row.name;
        EXPECT_EQ(row.viable, row.reason.empty()) << row.name;
    }
}

}  // namespace
}  // namespace refit::kernels::cpu
