// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Digest of every loaded tensor in its global row-major form, whatever the sharding on either side.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "harness/world.hpp"
#include "model/tensor_spec.hpp"
#include "receiver/weight_loader.hpp"

namespace refit::harness {

/// Collective over the world. The receivers of the first engine send their parts of each weight and
/// raw tensor, in chunks of rows, to the first receiver, which hashes them in global order; all
/// ranks get the result: tensor name -> XXH3-128 in hex. Equal for every number of trainers and
/// every TP size, and equal to the digest of the tensor's bytes in a checkpoint file.
[[nodiscard]] std::map<std::string, std::string> loaded_digests(
    World& world, int trainers, const receiver::ContractInstance& instance,
    const receiver::WeightLoader* loader, const std::vector<model::TensorSpec>& tensors,
    const std::function<void()>& on_progress);

}  // namespace refit::harness
