// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Which part of the model every tensor is, as the trainers' layout needs to know it.
#pragma once

#include <vector>

#include "model/tensor_spec.hpp"
#include "parallel/placement.hpp"

namespace refit::trainer {

/// The place of every tensor among the trainers, in model order. Under `tp` the projections that
/// make heads, MLP rows or vocabulary (and their biases) are cut by rows, those that consume them
/// by columns, and norms, routers and low-rank inputs are replicated. Throws ScenarioError that
/// names tensor and remedy where a size does not divide.
/// Source: the column- and row-parallel layers of Megatron-LM, whose names the roles carry.
[[nodiscard]] std::vector<parallel::Placement> place_tensors(
    const std::vector<model::TensorSpec>& tensors, const parallel::Sharding& sharding);

}  // namespace refit::trainer
