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
    std::error_code ignored;
    const std::filesystem::file_status status = std::filesystem::status(target, ignored);
    const bool existed = std::filesystem::exists(status);
    // The reader of a pipe would take the trial for the end.
    if (existed && !std::filesystem::is_regular_file(status) &&
        !std::filesystem::is_directory(status)) {
        return;
    }
    std::ofstream file(target, std::ios::app);
    if (!file)
        throw core::FileError("cannot write " + target + "; is its folder there and writable?");
    file.close();
    if (!existed) std::filesystem::remove(target, ignored);
}

bool quiet(const RunOptions& options) {
    return options.json == "-" || options.junit == "-";
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
