// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The least time that moving a case's bytes can take on this machine.
#pragma once

#include <string>

#include "harness/scenario.hpp"
#include "receiver/engine_contract.hpp"
#include "wire/manifest.hpp"

namespace refit::harness {

struct Floor {
    double wall_s = 0.0;  ///< 0 where the memory's rate is not known
    std::string formula;
};

/// Each stage's bytes that must be read and written at least once, over the memory rate that all
/// ranks of the node share; or the bytes over the link's rate where that is longer.
/// `memory_copy_bytes_per_s` counts bytes read and bytes written.
[[nodiscard]] Floor floor_of(const Case& c, const receiver::ContractInstance& instance,
                             const wire::RefitManifest& manifest, const std::string& transport,
                             double memory_copy_bytes_per_s);

}  // namespace refit::harness
