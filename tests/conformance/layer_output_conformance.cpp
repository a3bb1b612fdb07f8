// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The check layer_output against planted faults that it must catch, and clean cases that it must
// pass.
#include "conformance/refit_in_memory.hpp"

namespace refit::checks {
namespace {

/// Names of the tensors that layer_output reports.
std::set<std::string> outputs_found(const Refit& refit) {
    std::set<std::string> tensors;
    for (const auto& [check, tensor] : causes(refit.merged({"layer_output"}).findings)) {
        EXPECT_EQ(check, "layer_output");
        tensors.insert(tensor);
    }
    return tensors;
}

TEST_P(EveryGranularity, LayerOutputPassesGaussianAndOutlierWeights) {
    Refit refit(GetParam());
    const std::set<std::string> enabled = {"layer_output"};
    const MergedAudit clean = refit.merged(enabled);
    EXPECT_TRUE(clean.findings.empty()) << listed(clean.findings);
    // Errors of weights and activations, about 31.5 dB each, add up to 28.5 dB; a few loud channels
    // move that, but never beyond the two alone or twice as much.
    EXPECT_GT(clean.output_snr_db, 25.5);
    EXPECT_LT(clean.output_snr_db, 31.5);
    EXPECT_NEAR(clean.output_snr_db, clean.expected_output_snr_db, 0.05);
    // All rows of parts, each once, whatever the rank: 16 tokens.
    EXPECT_EQ(tensor_of(clean, "gate.weight").output.outputs, 256 * 16);
    EXPECT_EQ(tensor_of(clean, "ragged.weight").output.outputs, 130 * 16);
    // Cut by columns: each rank has a partial product of every row.
    EXPECT_EQ(tensor_of(clean, "down.weight").output.outputs, 2 * 256 * 16);
    EXPECT_EQ(tensor_of(clean, "norm.weight").output.outputs, 0);
    for (const char* name : {"gate.weight", "down.weight", "ragged.weight"}) {
        for (std::int64_t i = 0; i < 130; ++i) {
            refit.source(name, i, (37 * i) % 200) = bf16_bits(i % 2 == 0 ? 2.0 : -0.4);
        }
    }
    refit.reload();
    const MergedAudit outliers = refit.merged(enabled);
    EXPECT_TRUE(outliers.findings.empty()) << listed(outliers.findings);
}

TEST_P(EveryGranularity, LayerOutputCatchesADoubledScale) {
    Refit refit(GetParam());
    refit.scale(0, refit.gate_up_, 0) *= 2.0F;
    EXPECT_EQ(outputs_found(refit), std::set<std::string>{"gate.weight"});
}

TEST_P(EveryGranularity, LayerOutputCatchesSwappedTensors) {
    // What gate_up holds is right for the two the other way round.
    Refit refit(GetParam());
    for (std::int64_t row = 0; row < 256; ++row) {
        for (std::int64_t col = 0; col < 384; ++col) {
            std::swap(refit.source("gate.weight", row, col), refit.source("up.weight", row, col));
        }
    }
    EXPECT_EQ(outputs_found(refit), (std::set<std::string>{"gate.weight", "up.weight"}));
}

TEST_P(EveryGranularity, LayerOutputCatchesNanCodesAndIsSilentUnasked) {
    Refit refit(GetParam());
    refit.code(0, refit.down_, 3, 7) = 0x7f;
    EXPECT_EQ(outputs_found(refit), std::set<std::string>{"down.weight"});
    const MergedAudit unasked = refit.merged({"sqnr"});
    EXPECT_EQ(tensor_of(unasked, "down.weight").output.outputs, 0);
    EXPECT_TRUE(std::isnan(unasked.output_snr_db));
    EXPECT_EQ(causes(unasked.findings), (Causes{{"sqnr", "down.weight"}}));
}

TEST(BlockScheme, LayerOutputCatchesATransposedScaleGrid) {
    Refit refit(Granularity::block);
    std::swap(refit.scale(1, refit.down_, 1), refit.scale(1, refit.down_, 2));
    EXPECT_EQ(outputs_found(refit), std::set<std::string>{"down.weight"});
}

TEST(BlockScheme, LayerOutputPassesPowerOfTwoScalesAndCatchesOneThatIsHalf) {
    Refit refit(Granularity::block, true);
    EXPECT_EQ(outputs_found(refit), std::set<std::string>{});
    refit.scale(0, refit.ragged_, 3) *= 0.5F;
    refit.scale(1, refit.ragged_, 3) *= 0.5F;
    EXPECT_EQ(outputs_found(refit), std::set<std::string>{"ragged.weight"});
}

TEST(LayerOutputCheck, CatchesAnErrorThatIsTooGood) {
    const Refit refit(Granularity::channel);
    std::vector<RankAudit> ranks = refit.audits({"layer_output"});
    for (RankAudit& rank : ranks) {
        for (TensorAudit& tensor : rank.result.tensors) {
            if (tensor.tensor == "down.weight") tensor.output.error2 *= 0.9;
        }
    }
    EXPECT_EQ(causes(merge_audits(ranks, {"layer_output"}).findings),
              (Causes{{"layer_output", "down.weight"}}));
    EXPECT_TRUE(merge_audits(ranks, {"sqnr"}).findings.empty());
}

}  // namespace
}  // namespace refit::checks
