// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/tensor_places.hpp"

#include <map>
#include <string>

namespace refit::trainer {
namespace {

using model::Role;
using parallel::TensorCut;

/// Cut and heads by role; biases follow their weight and are not asked here.
void cut_by_role(Role role, const parallel::Sharding& sharding, parallel::PlacedTensor& tensor) {
    switch (role) {
        case Role::q_proj:
        case Role::q_b_proj:
        case Role::kv_b_proj:
            tensor.cut = TensorCut::rows;
            tensor.heads = sharding.heads;
            return;
        case Role::k_proj:
        case Role::v_proj:
            tensor.cut = TensorCut::rows;
            tensor.heads = sharding.kv_heads;
            tensor.heads_replicate = true;
            return;
        case Role::gate_proj:
        case Role::up_proj:
        case Role::embedding:
        case Role::head:
            tensor.cut = TensorCut::rows;
            return;
        case Role::o_proj:
        case Role::down_proj:
            tensor.cut = TensorCut::columns;
            return;
        case Role::norm:
        case Role::bias:
        case Role::router:
        case Role::q_a_proj:
        case Role::kv_a_proj:
        case Role::mtp_proj:
            return;
    }
}

}  // namespace

std::vector<parallel::Placement> place_tensors(const std::vector<model::TensorSpec>& tensors,
                                               const parallel::Sharding& sharding) {
    std::map<std::string, Role> role_of;
    for (const model::TensorSpec& tensor : tensors) role_of.emplace(tensor.name, tensor.role);
    std::vector<parallel::PlacedTensor> placed;
    placed.reserve(tensors.size());
    for (const model::TensorSpec& tensor : tensors) {
        parallel::PlacedTensor one;
        one.name = tensor.name;
        one.rows = core::matrix_rows(tensor.shape);
        one.cols = core::matrix_cols(tensor.shape);
        one.expert = tensor.expert;
        const std::string suffix = ".bias";
        if (tensor.role == Role::bias && tensor.name.ends_with(suffix)) {
            const auto weight =
                role_of.find(tensor.name.substr(0, tensor.name.size() - suffix.size()) + ".weight");
            if (weight != role_of.end()) cut_by_role(weight->second, sharding, one);
            // The bias of a row-parallel layer is added once, after the sum: everybody holds it.
            if (one.cut == TensorCut::columns) one.cut = TensorCut::replicated;
        } else {
            cut_by_role(tensor.role, sharding, one);
        }
        placed.push_back(std::move(one));
    }
    return parallel::place(placed, sharding);
}

}  // namespace refit::trainer
