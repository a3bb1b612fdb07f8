// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Whether a refit with backend cuda stays on the device from the weights to the engine's
// parameters, and if not, why it is staged through host memory.
#pragma once

#include <cstdint>
#include <string>

#include "harness/case_setup.hpp"
#include "harness/scenario.hpp"
#include "trainer/refit_plan.hpp"
#include "transport/transport.hpp"

namespace refit::harness {

/// What one rank knows of it.
struct DevicePart {
    const Case& c;
    const CaseSetup& setup;
    const trainer::RefitPlan* plan = nullptr;  ///< of a trainer: of what it quantizes; else null
    const wire::RefitManifest& manifest;
    const transport::Transport& transport;
    bool weights_resident = true;
    int trainer = -1;  ///< of a trainer: its rank
    int ranks_of_node = 1;
};

/// Empty where this rank's part can stay on the device. Each rank answers for itself; a refit stays
/// there where all do. Only with backend cuda.
[[nodiscard]] std::string why_staged(const DevicePart& part);

/// Bytes of the device that the rank's weights, copies and slots take where they stay there.
[[nodiscard]] std::uint64_t resident_device_bytes(const DevicePart& part);

}  // namespace refit::harness
