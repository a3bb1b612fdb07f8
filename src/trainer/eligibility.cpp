// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/eligibility.hpp"

namespace refit::trainer {

bool is_eligible(const model::TensorSpec& tensor) {
    using model::Role;
    switch (tensor.role) {
        case Role::q_proj:
        case Role::k_proj:
        case Role::v_proj:
        case Role::o_proj:
        case Role::q_a_proj:
        case Role::q_b_proj:
        case Role::kv_a_proj:
        case Role::kv_b_proj:
        case Role::gate_proj:
        case Role::up_proj:
        case Role::down_proj:
            return tensor.shape.size() == 2;
        case Role::embedding:
        case Role::head:
        case Role::norm:
        case Role::bias:
        case Role::router:
        case Role::mtp_proj:
            return false;
    }
    return false;
}

}  // namespace refit::trainer
