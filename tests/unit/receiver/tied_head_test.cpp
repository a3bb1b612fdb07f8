// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Heads that are tied to the embedding and stored all the same, as the engines' own classes take
// them.
#include "receiver/tied_head.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "receiver/engine_contract.hpp"

namespace refit::receiver_test {
namespace {

using core::Severity;
using model::Architecture;
using receiver::find_engine;
using testing::HasSubstr;

model::ModelConfig tied(Architecture architecture) {
    model::ModelConfig model;
    model.architecture = architecture;
    model.tied_embeddings = true;
    return model;
}

bool stays_tied(const std::string& engine, Architecture architecture, bool head_stored) {
    return receiver::model_as_built(find_engine(engine), tied(architecture), head_stored)
        .tied_embeddings;
}

core::Finding pair() {
    core::Finding finding;
    finding.check = "byte_identity";
    finding.severity = Severity::warning;
    finding.tensor = "lm_head.weight";
    finding.remedy = "leave it out";
    return finding;
}

core::Finding absent(const std::string& tensor) {
    core::Finding finding;
    finding.severity = Severity::error;
    finding.tensor = tensor;
    finding.measured = "absent";
    finding.message = "as the contract said it";
    return finding;
}

TEST(TiedHead, VllmAndTransformersBuildAStoredHeadApart) {
    for (const char* engine : {"vllm-fp8", "vllm-compressed-tensors", "vllm-modelopt", "vllm-bf16",
                               "transformers-fp8"}) {
        EXPECT_FALSE(stays_tied(engine, Architecture::qwen3, true)) << engine;
        EXPECT_TRUE(stays_tied(engine, Architecture::qwen3, false)) << engine;
    }
}

TEST(TiedHead, SglangTiesWhateverIsStored) {
    for (const char* engine : {"sglang-fp8", "sglang-compressed-tensors", "sglang-bf16"}) {
        EXPECT_TRUE(stays_tied(engine, Architecture::qwen3, true)) << engine;
        EXPECT_TRUE(stays_tied(engine, Architecture::llama, true)) << engine;
    }
}

TEST(TiedHead, SomeClassesHaveAHeadOfTheirOwnInAnyCase) {
    EXPECT_FALSE(stays_tied("sglang-fp8", Architecture::qwen3_moe, false));
    EXPECT_FALSE(stays_tied("vllm-fp8", Architecture::deepseek_v3, false));
    EXPECT_TRUE(stays_tied("vllm-fp8", Architecture::qwen3_moe, false));
    EXPECT_TRUE(stays_tied("sglang-fp8", Architecture::deepseek_v3, false));
}

TEST(TiedHead, AModelThatIsNotTiedStaysSo) {
    model::ModelConfig model = tied(Architecture::qwen3);
    model.tied_embeddings = false;
    EXPECT_FALSE(receiver::model_as_built(find_engine("sglang-fp8"), model, true).tied_embeddings);
}

TEST(TiedHead, TheFindingOfTwoHeadsSaysWhichOneTheEngineUses) {
    const auto said = [](const std::string& engine, Architecture architecture) {
        return receiver::differing_head(find_engine(engine), architecture, pair());
    };
    EXPECT_THAT(said("vllm-fp8", Architecture::qwen3).message,
                HasSubstr("vLLM 0.33.0 does not tie them and uses the stored head; leave it out"));
    EXPECT_EQ(said("vllm-fp8", Architecture::qwen3).engine_behaviour, "warns");
    EXPECT_THAT(said("transformers-fp8", Architecture::qwen3).message,
                HasSubstr("transformers 5.23.0 does not tie them and uses the stored head"));
    EXPECT_THAT(said("sglang-fp8", Architecture::qwen3).message,
                HasSubstr("SGLang 0.5.23 drops the stored head and uses the embedding"));
    EXPECT_EQ(said("sglang-fp8", Architecture::qwen3).engine_behaviour, "ignored");
    EXPECT_THAT(said("sglang-fp8", Architecture::qwen3_moe).message,
                HasSubstr("SGLang 0.5.23 does not tie them and uses the stored head"));
    EXPECT_EQ(said("sglang-fp8", Architecture::qwen3).severity, Severity::warning);
}

TEST(TiedHead, TwoHeadsAreAnErrorOfAProfileWhoseEnginesDisagree) {
    const core::Finding strict =
        receiver::differing_head(find_engine("strict"), Architecture::qwen3, pair());
    EXPECT_EQ(strict.severity, Severity::error);
    EXPECT_THAT(strict.message, HasSubstr("some engines use the stored head and others"));
    EXPECT_EQ(
        receiver::differing_head(find_engine("trtllm-fp8"), Architecture::qwen3, pair()).severity,
        Severity::warning);
}

TEST(TiedHead, ATiedHeadIsMissedOnlyByAClassWithOneOfItsOwn) {
    const auto said = [](const std::string& engine, Architecture architecture) {
        return receiver::missing_of_tied_pair(find_engine(engine), tied(architecture), false,
                                              absent("lm_head.weight"));
    };
    EXPECT_THAT(
        said("sglang-fp8", Architecture::qwen3_moe).message,
        HasSubstr("SGLang 0.5.23 builds models of Qwen3MoeForCausalLM with a head of their own"));
    EXPECT_EQ(said("sglang-fp8", Architecture::qwen3_moe).severity, Severity::error);
    EXPECT_EQ(said("vllm-fp8", Architecture::qwen3_moe).message, "as the contract said it");
}

TEST(TiedHead, OnlyTransformersTakesAHeadForAMissingEmbedding) {
    const auto said = [](const std::string& engine, bool head_stored, bool is_tied) {
        model::ModelConfig model = tied(Architecture::qwen3);
        model.tied_embeddings = is_tied;
        return receiver::missing_of_tied_pair(find_engine(engine), model, head_stored,
                                              absent("model.embed_tokens.weight"))
            .severity;
    };
    EXPECT_EQ(said("transformers-fp8", true, true), Severity::warning);
    EXPECT_EQ(said("transformers-fp8", false, true), Severity::error);
    EXPECT_EQ(said("transformers-fp8", true, false), Severity::error);
    EXPECT_EQ(said("vllm-fp8", true, true), Severity::error);
    EXPECT_EQ(said("sglang-fp8", true, true), Severity::error);
}

}  // namespace
}  // namespace refit::receiver_test
