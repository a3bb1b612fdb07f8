// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Whether a refit with backend cuda stays on the device from the weights to the engine's
// parameters, and if not, why it is staged through host memory.
#pragma once

#include <cstdint>
#include <string>

#include "harness/case_setup.hpp"
#include "harness/scenario.hpp"

namespace refit::harness {

/// What one rank knows of it before there is a transport.
struct DevicePart {
    const Case& c;
    const CaseSetup& setup;
    const wire::RefitManifest& manifest;
    std::string transport;  ///< name
    bool weights_resident = true;
    int trainer = -1;  ///< of a trainer: its rank
    int ranks_of_node = 1;
};

/// Empty where nothing that the case says keeps this rank's part from staying on the device.
[[nodiscard]] std::string why_staged_by_plan(const DevicePart& part);

/// Empty where this rank's part can stay on the device. Each rank answers for itself; a refit stays
/// there where all do. Only with backend cuda. piece_device : see transport::Transport.
[[nodiscard]] std::string why_staged(const DevicePart& part, int piece_device);

/// Bytes of the device that one rank holds where they stay there: weights, pieces, parameters and
/// scratch memory. trainer : its rank, or -1 for a receiver.
[[nodiscard]] std::uint64_t resident_device_bytes(const Case& c, const CaseSetup& setup,
                                                  const wire::RefitManifest& manifest,
                                                  const std::string& transport, int trainer);

}  // namespace refit::harness
