// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// refit_sample_record OUT.h5 [lost|large|empty] [--json FILE]: the record that tests/reports reads
// back.
#include <exception>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "record/hdf5_writer.hpp"
#include "record/json_report.hpp"
#include "unit/record/sample_record.hpp"

int main(int argc, char** argv) {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    if (arguments.empty()) {
        std::cerr << "usage: refit_sample_record OUT.h5 [lost|large|empty] [--json FILE]\n";
        return 2;
    }
    std::string kind;
    std::string json_path;
    for (std::size_t i = 1; i < arguments.size(); ++i) {
        if (arguments[i] == "--json" && i + 1 < arguments.size()) {
            json_path = arguments[++i];
        } else {
            kind = arguments[i];
        }
    }
    try {
        refit::record::RunRecord run = refit::test::sample_record();
        if (kind == "lost") run = refit::test::sample_lost_run();
        if (kind == "empty") run = {};
        if (kind == "large") run.argv.assign(10'000, "argument");
        const std::string path = refit::record::write_hdf5(run, arguments[0]).string();
        if (!json_path.empty()) std::ofstream(json_path) << refit::record::to_json(run, path);
        std::cout << path << "\n";
    } catch (const std::exception& error) {
        std::cerr << error.what() << "\n";
        return 3;
    }
    return 0;
}
