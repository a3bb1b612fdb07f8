// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/eligibility.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>

#include "model/model_catalog.hpp"

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
    for (const Role role :
         {Role::q_proj, Role::k_proj, Role::v_proj, Role::o_proj, Role::q_a_proj, Role::q_b_proj,
          Role::kv_a_proj, Role::kv_b_proj, Role::gate_proj, Role::up_proj, Role::down_proj}) {
        EXPECT_TRUE(eligible(role, {64, 64})) << model::role_name(role);
        EXPECT_FALSE(eligible(role, {64})) << model::role_name(role);
    }
    for (const Role role :
         {Role::embedding, Role::head, Role::norm, Role::bias, Role::router, Role::mtp_proj}) {
        EXPECT_FALSE(eligible(role, {64, 64})) << model::role_name(role);
    }
}

// Tensors and elements that FP8 takes of the published models, from the tables of their
// checkpoints.
TEST(Eligibility, TakesWhatThePublishedFp8CheckpointsQuantize) {
    std::ifstream in(std::string(REFIT_SOURCE_DIR) + "/tests/golden/model/moe_totals.tsv");
    ASSERT_TRUE(in);
    std::size_t seen = 0;
    for (std::string line; std::getline(in, line);) {
        if (line.empty() || line.front() == '#') continue;
        std::istringstream fields(line);
        std::string name;
        std::size_t tensors = 0;
        std::int64_t elements = 0;
        std::size_t quantized = 0;
        std::int64_t quantized_elements = 0;
        fields >> name >> tensors >> elements >> quantized >> quantized_elements;
        std::size_t count = 0;
        std::int64_t sum = 0;
        for (const model::TensorSpec& tensor : model::tensors_of(model::find_model(name).config)) {
            if (!is_eligible(tensor)) continue;
            ++count;
            sum += core::element_count(tensor.shape);
        }
        EXPECT_EQ(count, quantized) << name;
        EXPECT_EQ(sum, quantized_elements) << name;
        ++seen;
    }
    EXPECT_EQ(seen, 6U);
}

TEST(Eligibility, LeavesTheMtpLayersOwnTensorsAlone) {
    std::size_t seen = 0;
    for (const model::TensorSpec& tensor :
         model::tensors_of(model::find_model("tiny-mla").config)) {
        const bool is_kept = tensor.name.ends_with("eh_proj.weight") ||
                             tensor.name.ends_with("shared_head.head.weight") ||
                             tensor.name.ends_with("embed_tokens.weight") ||
                             tensor.name.ends_with("mlp.gate.weight") ||
                             tensor.name.find("norm") != std::string::npos ||
                             tensor.name.ends_with("e_score_correction_bias");
        if (!is_kept) continue;
        EXPECT_FALSE(is_eligible(tensor)) << tensor.name;
        ++seen;
    }
    EXPECT_EQ(seen, 24U);
}

}  // namespace
}  // namespace refit::trainer
