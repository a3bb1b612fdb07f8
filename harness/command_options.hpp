// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The options of every subcommand with their help; command_line.cpp reads what they were given.
#pragma once

#include <string>
#include <vector>

#include "harness/command_line.hpp"

namespace CLI {
class App;
}

namespace refit::harness {

/// What CLI11 leaves to be read strictly afterwards: numbers and lists as text.
struct Texts {
    std::vector<std::string> files, sets, filters;
    std::string iterations, warmup, timeout, threads, tp, shard_size;
};

struct PlannedCommand {
    const char* name;
    const char* what;
};
// Commands of the interface that this version does not have.
inline constexpr PlannedCommand kPlannedCommands[] = {
    {"plan", "predicted stage times at scale"},
};

/// Examples that end the help of the program.
extern const char* const kMainExample;

/// Adds every subcommand; parsing fills `line` and `texts`, which live as long as `app`.
void add_commands(CLI::App& app, CommandLine& line, Texts& texts);

}  // namespace refit::harness
