// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The computed table against one that an emulation of the engine's own rules gave, rank by rank.
#include "receiver/tp_feasibility.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "model/model_catalog.hpp"

namespace refit::receiver_test {
namespace {

using quant::Scheme;
using receiver::TpFeasibility;
using testing::HasSubstr;

struct Row {
    std::string model;
    std::set<int> passes;
    int fails_at = 0;    ///< 0: nowhere
    std::string tensor;  ///< of the first failure
    std::string why;     ///< within the engine's text, or within what was found where it has none
};

const std::vector<Row>& emulated() {
    static const std::set<int> kAll = {1, 2, 4, 8, 16};
    static const std::vector<Row> rows = {
        {"llama-3.1-8b", kAll, 0, "", ""},
        {"llama-3.1-70b", kAll, 0, "", ""},
        {"qwen3-1.7b", kAll, 0, "", ""},
        {"qwen3-8b", kAll, 0, "", ""},
        {"llama-3.2-1b",
         {1, 2, 4},
         8,
         "v_proj",
         "start (3) + length (1) exceeds dimension size (3)."},
        {"qwen2.5-0.5b", {1}, 2, "o_proj", "input_size_per_partition = 448 "},
        {"qwen2.5-7b", {1, 2, 4}, 8, "q_proj", "28 query heads"},
        {"qwen3-0.6b", {1, 2, 4, 8}, 16, "down_proj", "input_size_per_partition = 192 "},
        {"qwen3-4b", {1, 2, 4}, 8, "down_proj", "input_size_per_partition = 1216 "},
        {"qwen3-32b", {1, 2, 4, 8}, 16, "down_proj", "input_size_per_partition = 1600 "},
        {"qwen3-30b-a3b",
         {1, 2},
         4,
         "experts.0.gate_proj",
         "The output_size of gate's and up's weight = 192 is not divisible by weight quantization "
         "block_n = 128."},
        {"qwen3-235b-a22b", {1, 2, 4}, 8, "experts.0.gate_proj", "gate's and up's weight = 192 "},
        {"deepseek-v3", kAll, 0, "", ""},
    };
    return rows;
}

TEST(TpFeasibility, IsThatOfTheEmulationForEveryModelOfIt) {
    for (const Row& row : emulated()) {
        std::set<int> passes;
        int fails_at = 0;
        for (const TpFeasibility& one : receiver::tp_feasibility(
                 model::find_model(row.model).config, "vllm-fp8", Scheme::fp8_blockwise)) {
            if (one.ep > 1) continue;
            if (one.passes) {
                passes.insert(one.tp);
                EXPECT_EQ(one.tensor + one.found + one.engine_message, "");
            } else if (fails_at == 0) {
                fails_at = one.tp;
                EXPECT_THAT(one.tensor, HasSubstr(row.tensor)) << row.model;
                EXPECT_THAT(one.engine_message.empty() ? one.found : one.engine_message,
                            HasSubstr(row.why))
                    << row.model;
            }
        }
        EXPECT_EQ(passes, row.passes) << row.model;
        EXPECT_EQ(fails_at, row.fails_at) << row.model;
    }
}

TEST(TpFeasibility, WholeExpertsPassWhereCutOnesDoNot) {
    for (const char* model : {"qwen3-30b-a3b", "qwen3-235b-a22b", "deepseek-v3", "kimi-k2"}) {
        std::set<int> passes;
        for (const TpFeasibility& one : receiver::tp_feasibility(
                 model::find_model(model).config, "vllm-fp8", Scheme::fp8_blockwise)) {
            if (one.ep == 1) continue;
            EXPECT_EQ(one.ep, one.tp);
            if (one.passes) passes.insert(one.tp);
        }
        EXPECT_EQ(passes, (std::set<int>{2, 4, 8, 16})) << model;
    }
}

TEST(TpFeasibility, ADenseModelHasNoRowOfWholeExperts) {
    EXPECT_EQ(receiver::tp_feasibility(model::find_model("qwen3-8b").config, "vllm-fp8",
                                       Scheme::fp8_blockwise)
                  .size(),
              receiver::kTpSizes.size());
}

}  // namespace
}  // namespace refit::receiver_test
