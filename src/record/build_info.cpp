// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "record/build_info.hpp"

#include "refit_git_state.hpp"

namespace refit::record {

std::string tool_version() {
    return REFIT_VERSION;
}
std::string tool_commit() {
    return REFIT_GIT_COMMIT;
}
bool tool_dirty() {
    return REFIT_GIT_DIRTY;
}
std::string compiler() {
    return REFIT_COMPILER;
}
std::string compiler_flags() {
    return REFIT_FLAGS;
}

}  // namespace refit::record
