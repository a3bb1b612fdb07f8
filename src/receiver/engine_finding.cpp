// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/engine_finding.hpp"

namespace refit::receiver {

core::Finding engine_finding(const std::string& check, const std::string& tensor,
                             const std::string& measured, const std::string& limit,
                             const std::string& behaviour, const std::string& engine_message,
                             const std::string& message, const std::string& remedy) {
    core::Finding finding;
    finding.check = check;
    finding.tensor = tensor;
    finding.measured = measured;
    finding.limit = limit;
    finding.engine_behaviour = behaviour;
    finding.engine_message = engine_message;
    finding.remedy = remedy;
    finding.message = tensor + ": " + message + "; " + remedy;
    return finding;
}

}  // namespace refit::receiver
