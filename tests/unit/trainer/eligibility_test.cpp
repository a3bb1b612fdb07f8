// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/eligibility.hpp"

#include <gtest/gtest.h>

namespace refit::trainer {
namespace {

bool eligible(model::Role role, core::Shape shape) {
    model::TensorSpec tensor;
    tensor.role = role;
    tensor.shape = std::move(shape);
    return is_eligible(tensor);
}

TEST(Eligibility, TakesTheProjectionsAlone) {
    using model::Role;
    for (const Role role : {Role::q_proj, Role::k_proj, Role::v_proj, Role::o_proj, Role::gate_proj,
                            Role::up_proj, Role::down_proj}) {
        EXPECT_TRUE(eligible(role, {64, 64})) << model::role_name(role);
        EXPECT_FALSE(eligible(role, {64})) << model::role_name(role);
    }
    for (const Role role : {Role::embedding, Role::head, Role::norm, Role::bias, Role::router}) {
        EXPECT_FALSE(eligible(role, {64, 64})) << model::role_name(role);
    }
}

}  // namespace
}  // namespace refit::trainer
