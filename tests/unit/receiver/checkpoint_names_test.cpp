// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// From fused parameters back to the checkpoint; the places are worked out by hand from the sizes of
// the models.
#include "receiver/checkpoint_names.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "receiver/kernel_format.hpp"
#include "refit_fixture.hpp"

namespace refit::receiver_test {
namespace {

using quant::Scheme;
using ::testing::HasSubstr;
using ::testing::Not;
using Index = std::vector<std::int64_t>;

const std::string kAttention = "model.layers.0.self_attn.";
const std::string kMlp = "model.layers.0.mlp.";

receiver::ContractInstance blockwise(const model::ModelConfig& model, int tp, int ep = 1) {
    return instance_of("vllm-fp8", Scheme::fp8_blockwise, model, tp, ep);
}

core::Finding found_in(const std::string& tensor, Index index) {
    core::Finding finding;
    finding.check = "digest";
    finding.tensor = tensor;
    finding.index = std::move(index);
    finding.measured = "these bytes";
    finding.limit = "those bytes";
    finding.message = tensor + ": the bytes differ; check the transport";
    return finding;
}

core::Finding translated(const receiver::ContractInstance& instance, const std::string& tensor,
                         const Index& index) {
    const core::Findings found =
        receiver::CheckpointNames(instance).translate({found_in(tensor, index)});
    return found.size() == 1 ? found.front() : core::Finding{};
}

void expect_place(const receiver::ContractInstance& instance, const std::string& parameter,
                  const Index& index, const std::string& tensor, const Index& global) {
    const core::Finding finding = translated(instance, parameter, index);
    EXPECT_EQ(finding.tensor, tensor) << parameter << core::to_string(index);
    EXPECT_EQ(finding.index, global) << parameter << core::to_string(index);
}

TEST(CheckpointNames, FindTheTensorAndTheGlobalIndexBehindAFusedShard) {
    // 8 heads and 2 of keys and values of 128: at TP 2 a rank has 512 rows of q, 128 of k and of v.
    const model::ModelConfig model = dense(512, 1024, 1, 8, 2, 128, 1000, false);
    const receiver::ContractInstance two = blockwise(model, 2);
    const std::string qkv = kAttention + "qkv_proj.weight@tp1";
    expect_place(two, qkv, {0, 7}, kAttention + "q_proj.weight", {512, 7});
    expect_place(two, qkv, {511, 7}, kAttention + "q_proj.weight", {1023, 7});
    expect_place(two, qkv, {512, 0}, kAttention + "k_proj.weight", {128, 0});
    expect_place(two, qkv, {640 + 5, 3}, kAttention + "v_proj.weight", {128 + 5, 3});
    expect_place(two, kMlp + "gate_up_proj.weight@tp0", {512 + 2, 1}, kMlp + "up_proj.weight",
                 {2, 1});
    // o_proj and down_proj are cut by columns.
    expect_place(two, kAttention + "o_proj.weight@tp1", {9, 4}, kAttention + "o_proj.weight",
                 {9, 512 + 4});
    expect_place(two, kMlp + "down_proj.weight@tp1", {9, 4}, kMlp + "down_proj.weight",
                 {9, 512 + 4});
    // Scales of 128 by 128: 4 rows of q, 1 of k, 1 of v.
    const std::string scale = kAttention + "qkv_proj.weight_scale_inv@tp1";
    expect_place(two, scale, {3, 2}, kAttention + "q_proj.weight_scale_inv", {7, 2});
    expect_place(two, scale, {4, 2}, kAttention + "k_proj.weight_scale_inv", {1, 2});
    expect_place(two, scale, {5, 2}, kAttention + "v_proj.weight_scale_inv", {1, 2});
    expect_place(two, kMlp + "down_proj.weight_scale_inv@tp1", {1, 3},
                 kMlp + "down_proj.weight_scale_inv", {1, 4 + 3});
    // At TP 4 two ranks share a head of keys: 256 rows of q, 128 of k, 128 of v.
    const receiver::ContractInstance four = blockwise(model, 4);
    expect_place(four, kAttention + "qkv_proj.weight@tp2", {256 + 1, 0},
                 kAttention + "k_proj.weight", {128 + 1, 0});
    expect_place(four, kAttention + "qkv_proj.weight@tp3", {256 + 1, 0},
                 kAttention + "k_proj.weight", {128 + 1, 0});
    // One rank: the parameter has its bare name.
    const receiver::ContractInstance one = blockwise(model, 1);
    expect_place(one, kAttention + "qkv_proj.weight", {1024 + 256 + 255, 6},
                 kAttention + "v_proj.weight", {255, 6});
}

TEST(CheckpointNames, FindTheExpertBehindAStack) {
    // 8 experts of 512 rows and 256 columns.
    const model::ModelConfig model = named_model("tiny-moe");
    const std::string stack = kMlp + "experts.routed_experts.";
    const receiver::ContractInstance two = blockwise(model, 2);
    expect_place(two, stack + "w13_weight@tp1", {3, 255, 9}, kMlp + "experts.3.gate_proj.weight",
                 {256 + 255, 9});
    expect_place(two, stack + "w13_weight@tp1", {3, 256, 9}, kMlp + "experts.3.up_proj.weight",
                 {256, 9});
    expect_place(two, stack + "w2_weight@tp1", {7, 255, 9}, kMlp + "experts.7.down_proj.weight",
                 {255, 256 + 9});
    expect_place(two, stack + "w13_weight_scale_inv@tp1", {5, 2, 1},
                 kMlp + "experts.5.up_proj.weight_scale_inv", {2, 1});
    // Whole experts: the second rank's first is the fifth.
    const receiver::ContractInstance whole = blockwise(model, 2, 2);
    expect_place(whole, stack + "w13_weight@tp1", {0, 512 + 1, 2},
                 kMlp + "experts.4.up_proj.weight", {1, 2});
}

TEST(CheckpointNames, FindTheProjectionBehindALatentPair) {
    // q_a_proj has 256 rows, kv_a_proj_with_mqa 192; every rank keeps both whole.
    const receiver::ContractInstance two = blockwise(named_model("tiny-mla"), 2);
    const std::string pair = kAttention + "fused_qkv_a_proj.weight@tp1";
    expect_place(two, pair, {255, 1}, kAttention + "q_a_proj.weight", {255, 1});
    expect_place(two, pair, {256, 1}, kAttention + "kv_a_proj_with_mqa.weight", {0, 1});
}

TEST(CheckpointNames, KeepTheEnginesNameInTheMessage) {
    const receiver::ContractInstance two = blockwise(named_model("tiny-llama"), 2);
    const core::Finding finding = translated(two, kAttention + "qkv_proj.weight@tp1", {256, 3});
    EXPECT_EQ(finding.message, kAttention + "k_proj.weight: in the engine's " + kAttention +
                                   "qkv_proj.weight of TP rank 1 at [256, 3]: the bytes differ; "
                                   "check the transport");
    EXPECT_EQ(finding.measured, "these bytes");
}

TEST(CheckpointNames, NameTheFirstTensorOfAWholeParameterAndListAll) {
    const receiver::ContractInstance two = blockwise(named_model("tiny-llama"), 2);
    const core::Finding finding = translated(two, kAttention + "qkv_proj.weight@tp0", {});
    EXPECT_EQ(finding.tensor, kAttention + "q_proj.weight");
    EXPECT_TRUE(finding.index.empty());
    for (const char* part : {"q_proj.weight", "k_proj.weight", "v_proj.weight"})
        EXPECT_THAT(finding.message, HasSubstr(kAttention + part));
    EXPECT_THAT(finding.message, HasSubstr("qkv_proj.weight of TP rank 0"));
    const core::Finding experts = translated(blockwise(named_model("tiny-moe"), 1),
                                             kMlp + "experts.routed_experts.w13_weight", {});
    EXPECT_EQ(experts.tensor, kMlp + "experts.0.gate_proj.weight");
    EXPECT_THAT(experts.message, HasSubstr("16 tensors"));
}

TEST(CheckpointNames, SayOnceWhatIsWrongOnEveryRank) {
    const receiver::ContractInstance four = blockwise(named_model("tiny-llama"), 4);
    wire::RefitManifest manifest;
    for (const wire::KernelParameter& parameter : receiver::kernel_layout(four).parameters) {
        if (parameter.name == kMlp + "gate_up_proj.weight") continue;
        wire::ParameterMeta& meta = manifest.parameters.emplace_back();
        meta.name = wire::kernel_wire_name(parameter.name, parameter.tp_rank, 4);
        meta.dtype = parameter.dtype;
        meta.shape = parameter.shape;
    }
    const core::Findings raw = receiver::check_kernel_manifest(manifest, four);
    EXPECT_EQ(raw.size(), 4U);
    const core::Findings found = receiver::CheckpointNames(four).translate(raw);
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].tensor, kMlp + "gate_proj.weight");
    EXPECT_THAT(found[0].message, HasSubstr("TP ranks 0, 1, 2, 3"));
    EXPECT_THAT(found[0].message, HasSubstr(kMlp + "up_proj.weight"));
}

TEST(CheckpointNames, LeaveOtherNamesAndThePaddingOfAVocabularyWithoutAnIndex) {
    // 1000 rows padded to 1024: the second rank's rows end at 488.
    const model::ModelConfig model = dense(512, 1024, 1, 8, 8, 64, 1000, false);
    const receiver::ContractInstance two = blockwise(model, 2);
    const std::string table = "model.embed_tokens.weight";
    expect_place(two, table + "@tp1", {487, 1}, table, {999, 1});
    const core::Finding padding = translated(two, table + "@tp1", {488, 0});
    EXPECT_EQ(padding.tensor, table);
    EXPECT_TRUE(padding.index.empty());
    EXPECT_THAT(padding.message, HasSubstr("padding"));
    const core::Finding stranger = translated(two, "model.some_other.weight@tp0", {1, 2});
    EXPECT_EQ(stranger.tensor, "model.some_other.weight@tp0");
    // The trainer's own findings have the checkpoint's names already.
    const core::Finding own = translated(two, kMlp + "down_proj.weight", {3, 900});
    EXPECT_EQ(own.index, (Index{3, 900}));
    EXPECT_THAT(own.message, Not(HasSubstr("engine's")));
}

TEST(KernelCuts, FallBetweenTheTensorsThatAParameterIsMadeOf) {
    const receiver::ContractInstance two = blockwise(named_model("tiny-moe"), 2);
    for (const wire::KernelParameter& parameter : receiver::kernel_layout(two).parameters) {
        const wire::KernelCuts cuts = wire::kernel_cuts(parameter);
        if (parameter.name == kAttention + "qkv_proj.weight") {
            // 8 heads and 4 of keys and values of 128, half of them here.
            EXPECT_EQ(cuts.rows, (Index{0, 512, 768, 1024}));
            EXPECT_EQ(cuts.cols, (Index{0, 256}));
        }
        if (parameter.name == kMlp + "experts.routed_experts.w13_weight") {
            EXPECT_EQ(cuts.rows, (Index{0, 1, 2, 3, 4, 5, 6, 7, 8}));
            EXPECT_EQ(cuts.cols, (Index{0, 256 * 256, 512 * 256}));
        }
        if (parameter.name == "model.norm.weight") {
            EXPECT_EQ(cuts.rows, (Index{0, 256}));
        }
    }
}

}  // namespace
}  // namespace refit::receiver_test
