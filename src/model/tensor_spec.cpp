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
    }
    return "unknown";
}

}  // namespace refit::model
