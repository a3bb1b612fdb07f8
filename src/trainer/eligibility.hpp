// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Which tensors a trainer quantizes by its own rule.
//
// The receivers' contract decides the same question from the other side; a disagreement is a
// finding. So this rule is written apart from any contract on purpose.
#pragma once

#include "model/tensor_spec.hpp"

namespace refit::trainer {

/// True for the projections of attention and MLP; false for norms, embeddings, the head, routers
/// and biases. Source: the skip lists of prime-rl, slime and NeMo-RL agree on these roles for dense
/// models.
[[nodiscard]] bool is_eligible(const model::TensorSpec& tensor);

}  // namespace refit::trainer
