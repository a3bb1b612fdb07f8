// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What a parameter is before anyone touches it.
#pragma once

#include <string>
#include <string_view>

#include "core/dtype.hpp"
#include "core/shape.hpp"

namespace refit::model {

enum class Role {
    embedding,
    head,
    norm,  ///< layer norms, q/k norms, final norm
    q_proj,
    k_proj,
    v_proj,
    o_proj,
    gate_proj,
    up_proj,
    down_proj,
    bias,
    router,
};

[[nodiscard]] std::string_view role_name(Role role);

struct TensorSpec {
    std::string name;                       ///< Hugging Face name
    core::Shape shape;                      ///< global, [out, in] for matrices
    core::DType dtype = core::DType::bf16;  ///< of the training weights
    Role role = Role::norm;
    int layer = -1;  ///< -1 outside the decoder layers
};

}  // namespace refit::model
