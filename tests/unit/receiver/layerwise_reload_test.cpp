// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The layerwise reload counts elements: what that does to a layer with too few, too many or none.
#include "receiver/layerwise_reload.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "refit_fixture.hpp"

namespace refit::receiver_test {
namespace {

using receiver::LayerwiseReload;

const std::string kAttention = "model.layers.0.self_attn.";

receiver::ContractInstance llama(int tp = 1) {
    return instance_of("vllm-fp8", quant::Scheme::fp8_blockwise, named_model("tiny-llama"), tp);
}

/// Findings after loading every wanted tensor but `without`, and `twice` a second time right away.
core::Findings after(const receiver::ContractInstance& instance, int rank,
                     const std::vector<std::string>& without, const std::string& twice = "") {
    LayerwiseReload reload(instance, rank);
    for (const wire::WantedParameter& wanted : instance.wanted) {
        if (std::find(without.begin(), without.end(), wanted.name) != without.end()) continue;
        reload.load(wanted.name);
        if (wanted.name == twice) reload.load(wanted.name);
    }
    return reload.finalize(true);
}

TEST(LayerwiseReload, FinishesEveryLayerOfAWholeStream) {
    for (const char* model : {"tiny-llama", "tiny-moe", "tiny-mla", "padded-llama"}) {
        for (const int tp : {1, 2}) {
            const receiver::ContractInstance instance =
                instance_of("vllm-fp8", quant::Scheme::fp8_blockwise, named_model(model), tp);
            for (int rank = 0; rank < tp; ++rank)
                EXPECT_TRUE(after(instance, rank, {}).empty()) << model << " rank " << rank;
        }
    }
}

TEST(LayerwiseReload, LeavesUninitialisedMemoryWhereALayerMissesOneTensor) {
    const std::string scale = kAttention + "k_proj.weight_scale_inv";
    const core::Findings found = after(llama(), 0, {scale});
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].check, "completeness");
    EXPECT_EQ(found[0].tensor, scale);
    EXPECT_EQ(found[0].engine_behaviour, "silently_wrong");
    // qkv: 3 * 512 * 512 codes and 3 * 4 * 4 scales, of which 16 are missing.
    EXPECT_NE(found[0].message.find("786464 of 786480 elements"), std::string::npos)
        << found[0].message;
    EXPECT_NE(found[0].message.find("uninitialised"), std::string::npos);
}

TEST(LayerwiseReload, KeepsOldWeightsUnderAWarningWhereALayerGetsNothing) {
    const std::string down = "model.layers.1.mlp.down_proj.weight";
    const core::Findings found = after(llama(2), 1, {down, down + "_scale_inv"});
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].tensor, down);
    EXPECT_EQ(found[0].engine_behaviour, "warns");
    EXPECT_EQ(found[0].engine_message, "RowParallelLinear: Failed to load weights");
}

TEST(LayerwiseReload, FinishesALayerEarlyWhereATensorComesTwice) {
    // q and then q again are as many elements as q and k; v finishes the layer, its scale is late.
    const core::Findings found =
        after(llama(), 0, {kAttention + "k_proj.weight"}, kAttention + "q_proj.weight");
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].tensor, kAttention + "k_proj.weight");
    // Everything there and one twice: the last tensor finds the layer finished.
    const core::Findings twice = after(llama(), 0, {}, kAttention + "q_proj.weight");
    ASSERT_FALSE(twice.empty());
    EXPECT_EQ(twice.back().tensor, kAttention + "v_proj.weight_scale_inv");
    EXPECT_EQ(twice.back().measured, "dropped as excessive");
}

TEST(LayerwiseReload, CountsTheLayersThatAScatteredStreamLeavesOpen) {
    const receiver::ContractInstance instance = llama();
    LayerwiseReload in_order(instance, 0);
    for (const wire::WantedParameter& wanted : instance.wanted) in_order.load(wanted.name);
    EXPECT_LE(in_order.most_open_layers(), 2);
    LayerwiseReload scattered(instance, 0);
    for (const bool scales : {false, true}) {
        for (const wire::WantedParameter& wanted : instance.wanted) {
            if (!wanted.scale_of.empty() == scales) scattered.load(wanted.name);
        }
    }
    // Two layers of qkv, o, gate_up and down, all open until the scales come, and one norm or head
    // that is begun and finished meanwhile.
    EXPECT_EQ(scattered.most_open_layers(), 9);
    EXPECT_TRUE(scattered.finalize(true).empty());
}

/// One bucket a parameter, or all in one.
wire::RefitManifest stream_of(const receiver::ContractInstance& instance, bool one_bucket) {
    wire::RefitManifest manifest = list_of(instance);
    if (one_bucket) manifest.buckets.push_back({std::vector<wire::PiecePlan>(1)});
    for (std::uint32_t i = 0; i < manifest.parameters.size(); ++i) {
        if (!one_bucket) manifest.buckets.push_back({std::vector<wire::PiecePlan>(1)});
        wire::PieceEntry entry;
        entry.parameter = i;
        manifest.buckets.back().pieces[0].entries.push_back(entry);
    }
    return manifest;
}

TEST(LayerwiseReload, RestartsEveryLayerWhereItIsCalledForEachBucket) {
    const receiver::ContractInstance instance = llama();
    const wire::RefitManifest apart = stream_of(instance, false);
    const core::Findings found =
        receiver::check_layerwise_reload(apart, instance, 0, true, nullptr);
    EXPECT_EQ(findings_of(found, "completeness", kAttention + "q_proj.weight").size(), 1U);
    EXPECT_TRUE(findings_of(found, "completeness", "model.norm.weight").empty());
    EXPECT_TRUE(receiver::check_layerwise_reload(apart, instance, 0, false, nullptr).empty());
    const wire::RefitManifest together = stream_of(instance, true);
    std::int64_t most_open = 0;
    EXPECT_TRUE(receiver::check_layerwise_reload(together, instance, 0, true, &most_open).empty());
    EXPECT_GT(most_open, 0);
}

}  // namespace
}  // namespace refit::receiver_test
