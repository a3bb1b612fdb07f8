// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/run_output.hpp"

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "core/error.hpp"

namespace refit::harness {

void write_text(const std::string& target, const std::string& text) {
    if (target == "-") {
        std::fwrite(text.data(), 1, text.size(), stdout);
        std::fflush(stdout);
        return;
    }
    std::ofstream file(target, std::ios::trunc);
    file << text;
    file.flush();
    if (!file)
        throw core::FileError("cannot write " + target +
                              "; is its folder there and the disk not full?");
}

void check_writable(const std::string& target) {
    if (target.empty() || target == "-") return;
    const bool existed = std::filesystem::exists(target);
    std::ofstream file(target, std::ios::app);
    if (!file)
        throw core::FileError("cannot write " + target + "; is its folder there and writable?");
    file.close();
    if (!existed) std::filesystem::remove(target);
}

bool quiet(const RunOptions& options) {
    return options.json == "-";
}

void say(const RunOptions& options, const std::string& text) {
    if (quiet(options)) return;
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
}

void complain(const std::string& text) {
    const std::string line = "refitbench: " + text + "\n";
    std::fwrite(line.data(), 1, line.size(), stderr);
    std::fflush(stderr);
}

}  // namespace refit::harness
