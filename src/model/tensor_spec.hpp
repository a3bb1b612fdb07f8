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
    q_a_proj,   ///< MLA: hidden -> q_lora_rank
    q_b_proj,   ///< MLA: q_lora_rank -> heads * (nope + rope)
    kv_a_proj,  ///< MLA: hidden -> kv_lora_rank + rope, one for all heads
    kv_b_proj,  ///< MLA: kv_lora_rank -> heads * (nope + v)
    gate_proj,
    up_proj,
    down_proj,
    bias,
    router,
    mtp_proj,  ///< eh_proj of a multi-token prediction layer
};

[[nodiscard]] std::string_view role_name(Role role);

struct TensorSpec {
    std::string name;                       ///< Hugging Face name
    core::Shape shape;                      ///< global, [out, in] for matrices
    core::DType dtype = core::DType::bf16;  ///< of the training weights
    Role role = Role::norm;
    int layer = -1;   ///< -1 outside the decoder layers
    int expert = -1;  ///< routed expert that a gate_proj, up_proj or down_proj belongs to
};

}  // namespace refit::model
