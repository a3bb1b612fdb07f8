// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "model/tensor_spec.hpp"

namespace refit::model {

std::string_view role_name(Role role) {
    switch (role) {
        case Role::embedding:
            return "embedding";
        case Role::head:
            return "head";
        case Role::norm:
            return "norm";
        case Role::q_proj:
            return "q_proj";
        case Role::k_proj:
            return "k_proj";
        case Role::v_proj:
            return "v_proj";
        case Role::o_proj:
            return "o_proj";
        case Role::q_a_proj:
            return "q_a_proj";
        case Role::q_b_proj:
            return "q_b_proj";
        case Role::kv_a_proj:
            return "kv_a_proj";
        case Role::kv_b_proj:
            return "kv_b_proj";
        case Role::gate_proj:
            return "gate_proj";
        case Role::up_proj:
            return "up_proj";
        case Role::down_proj:
            return "down_proj";
        case Role::bias:
            return "bias";
        case Role::router:
            return "router";
        case Role::mtp_proj:
            return "mtp_proj";
    }
    return "unknown";
}

}  // namespace refit::model
