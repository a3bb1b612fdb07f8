// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/contract_check.hpp"

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "receiver/contract_checker.hpp"

namespace refit::receiver {

core::Findings check_manifest(const wire::RefitManifest& manifest,
                              const ContractInstance& instance) {
    core::Findings findings = ContractChecker(manifest, instance, true).run();
    if (instance.members.empty()) return findings;
    // One tensor, one cause: the first engine that has it is named.
    std::map<std::pair<std::string, std::string>, core::Finding> errors;
    std::vector<std::pair<std::string, std::string>> order;
    for (const ContractInstance& member : instance.members) {
        for (core::Finding& finding : ContractChecker(manifest, member, false).run()) {
            if (finding.severity != core::Severity::error) continue;
            std::pair key(finding.tensor, finding.check);
            if (errors.emplace(key, std::move(finding)).second) order.push_back(std::move(key));
        }
    }
    std::set<std::string> wrong;
    for (core::Finding& finding : findings) {
        if (finding.severity != core::Severity::error) continue;
        wrong.insert(finding.tensor);
        // What an engine does says more than what the profile wants.
        const auto same = errors.find({finding.tensor, finding.check});
        if (same != errors.end()) finding = same->second;
    }
    for (const auto& key : order) {
        if (wrong.insert(key.first).second) findings.push_back(errors.at(key));
    }
    return findings;
}

}  // namespace refit::receiver
