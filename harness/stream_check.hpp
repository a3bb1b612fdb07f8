// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What a receiver makes of the announced stream before any byte moves.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "core/finding.hpp"
#include "harness/case_setup.hpp"
#include "harness/scenario.hpp"
#include "wire/manifest.hpp"

namespace refit::harness {

struct StreamCheck {
    core::Findings findings;
    std::int64_t most_open_layers = 0;  ///< with layerwise reload
};

/// The manifest against contract, framing and way of reloading, as the receiver with this index
/// sees it.
[[nodiscard]] StreamCheck check_stream(const Case& c, const CaseSetup& setup,
                                       const wire::RefitManifest& manifest, int receiver);

/// The findings of a case under the checkpoint's names and indices: those of wire: kernel by
/// receiver::CheckpointNames, others as they are.
[[nodiscard]] core::Findings in_checkpoint_names(core::Findings findings, const Case& c,
                                                 const CaseSetup& setup);

/// Bytes on the wire of every weight with its scale, where tensors travel in parts of the engine's
/// own parameters; empty where they do not.
[[nodiscard]] std::map<std::string, std::int64_t> bytes_in_kernel_format(const CaseSetup& setup);

}  // namespace refit::harness
