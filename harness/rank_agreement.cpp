// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/rank_agreement.hpp"

#include <algorithm>
#include <exception>
#include <new>
#include <vector>

#include "harness/lost_rank_monitor.hpp"

namespace refit::harness {

void together(World& world, const std::function<void()>& step) {
    // First character 'k' for ok, 'f' for failed with the exit code and the words behind it.
    std::string mine = "k";
    auto failed = [](core::ExitCode code, const std::string& words) {
        return "f" + std::to_string(static_cast<int>(code)) + " " + words;
    };
    try {
        step();
    } catch (const core::Error& error) {
        mine = failed(error.code(), error.what());
    } catch (const std::bad_alloc&) {
        mine = failed(
            core::ExitCode::environment,
            "out of memory; use fewer layers (--set model.layers=N) or a machine with more memory");
    } catch (const std::exception& error) {
        mine = failed(core::ExitCode::environment, error.what());
    }
    const std::vector<std::string> all = world.allgather(mine);
    const auto first = std::find_if(all.begin(), all.end(),
                                    [](const std::string& one) { return one.starts_with('f'); });
    if (first == all.end()) return;
    const std::size_t space = first->find(' ');
    const auto code = static_cast<core::ExitCode>(std::stoi(first->substr(1, space - 1)));
    const bool same =
        std::all_of(all.begin(), all.end(), [&](const std::string& one) { return one == *first; });
    const int rank = same && all.size() > 1 ? -1 : static_cast<int>(first - all.begin());
    std::string words = first->substr(space + 1);
    if (rank >= 0 && all.size() > 1) words = "rank " + std::to_string(rank) + ": " + words;
    throw AgreedError(code, words, rank);
}

}  // namespace refit::harness
