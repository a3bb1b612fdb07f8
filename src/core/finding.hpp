// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A finding: one tensor, one cause. Findings are values; they reach the record.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace refit::core {

enum class Severity { warning, error };

struct Finding {
    std::string check;  ///< name of the check: shape_contract, names, dtype, completeness,
                        ///< nonfinite, digest, ...
    Severity severity = Severity::error;
    std::string tensor;               ///< Hugging Face name, as on the wire
    std::vector<std::int64_t> index;  ///< global index in that tensor; empty where none applies
    std::string measured;             ///< what was found
    std::string limit;                ///< what was allowed
    int rank = -1;                    ///< world rank that saw it; -1 where none
    std::string message;              ///< sentence for people, remedy included
    std::string
        engine_behaviour;  ///< raises | silently_wrong | ignored | warns | keeps_sentinel | ""
    std::string engine_message;  ///< the engine's own error text, where known
    std::string remedy;
};

using Findings = std::vector<Finding>;

[[nodiscard]] inline bool has_error(const Findings& findings) {
    for (const Finding& f : findings) {
        if (f.severity == Severity::error) return true;
    }
    return false;
}

}  // namespace refit::core
