// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The engines that a profile is the intersection of.
#pragma once

#include "receiver/engine_contract.hpp"

namespace refit::receiver {

/// Applies the contract of every engine that reads the kind of config that `profile` has to the
/// same model, and keeps it in `profile.members`. What an engine refuses of the config, and a
/// scheme that it takes the config for, are added to `profile.refusals`. Nothing is added for a
/// config without a text. Scales of the KV cache are wanted by the engines that have a place for
/// them. Limits of one engine that no format avoids are left out: they are
/// warnings of the profile itself.
void add_members(ContractInstance& profile, const model::ModelConfig& model,
                 CacheScales cache_scales);

}  // namespace refit::receiver
