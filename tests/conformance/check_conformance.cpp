// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Every check of src/checks against planted faults that it must catch, and clean cases that it must
// pass.
#include "conformance/refit_in_memory.hpp"

namespace refit::checks {
namespace {

INSTANTIATE_TEST_SUITE_P(Schemes, EveryGranularity,
                         testing::Values(Granularity::block, Granularity::channel,
                                         Granularity::tensor),
                         [](const auto& row) {
                             return row.param == Granularity::block     ? "Block"
                                    : row.param == Granularity::channel ? "Channel"
                                                                        : "Tensor";
                         });

TEST_P(EveryGranularity, PassesACleanRefit) {
    const Refit refit(GetParam());
    const MergedAudit merged = refit.merged();
    EXPECT_TRUE(merged.findings.empty()) << listed(merged.findings);
    EXPECT_LE(merged.max_error_over_bound, 1.0 + refit.facts_.slack);
    EXPECT_GT(merged.max_error_over_bound, 0.99);
    EXPECT_NEAR(merged.pooled_sqnr_db, 31.5, 0.6);
    EXPECT_EQ(merged.saturated, 0);
    ASSERT_EQ(merged.tensors.size(), 6U);
    // Both ranks hold all of it, but it counts once.
    EXPECT_EQ(tensor_of(merged, "ragged.weight").elements, 130 * 200);
    EXPECT_EQ(tensor_of(merged, "gate.weight").elements, 256 * 384);
    EXPECT_EQ(tensor_of(merged, "down.weight").elements, 256 * 512);
    EXPECT_EQ(tensor_of(merged, "norm.weight").elements, 384);
    EXPECT_EQ(tensor_of(merged, "norm.weight").exact, 384);
    EXPECT_TRUE(check_byte_identity(refit.audits()).empty());
}

TEST_P(EveryGranularity, ExpectsTheErrorThatTheTestsOwnQuantizerMade) {
    const Refit refit(GetParam());
    for (const TensorAudit& tensor : refit.merged().tensors) {
        if (!tensor.quantized) continue;
        EXPECT_NEAR(tensor.sum_error2 / tensor.sum_expected_error2, 1.0, 1e-4) << tensor.tensor;
    }
}

TEST_P(EveryGranularity, RoundTripCatchesADoubledScale) {
    Refit refit(GetParam());
    refit.scale(0, refit.gate_up_, 0) *= 2.0F;
    const MergedAudit merged = refit.merged();
    EXPECT_EQ(causes(merged.findings).count({"round_trip", "gate.weight"}), 1U)
        << listed(merged.findings);
    EXPECT_EQ(causes(merged.findings).count({"round_trip", "up.weight"}), 0U);
    // x * 2 - x over |x| / 17 is 17; with the rounding of the code up to 19.
    EXPECT_GT(merged.max_error_over_bound, 17.0);
    EXPECT_LE(merged.max_error_over_bound, 19.0 * 1.0001);
    EXPECT_TRUE(core::has_error(merged.findings));
}

TEST_P(EveryGranularity, CompletenessCatchesAScaleLeftPoisoned) {
    Refit refit(GetParam());
    refit.scale(1, refit.ragged_, 0) = -FLT_MAX;
    const AuditResult result = refit.audit(1);
    EXPECT_EQ(causes(result.findings), (Causes{{"completeness", "ragged.weight_scale_inv"}}))
        << listed(result.findings);
    EXPECT_EQ(result.findings[0].rank, 11);
    EXPECT_EQ(causes(refit.audit(1, {"round_trip"}).findings),
              (Causes{{"round_trip", "ragged.weight"}}));
    EXPECT_EQ(causes(refit.audit(1, {"nonfinite"}).findings),
              (Causes{{"nonfinite", "ragged.weight_scale_inv"}}));
}

TEST_P(EveryGranularity, NonfiniteCatchesScalesThatAreNotPositive) {
    for (const float value : {-1e-4F, 0.0F, -0.0F, std::nanf(""), HUGE_VALF}) {
        Refit refit(GetParam());
        refit.scale(0, refit.ragged_, 0) = value;
        EXPECT_EQ(causes(refit.audit(0).findings),
                  (Causes{{"nonfinite", "ragged.weight_scale_inv"}}))
            << value;
        EXPECT_EQ(causes(refit.audit(0, {"round_trip"}).findings),
                  (Causes{{"round_trip", "ragged.weight"}}))
            << value;
        EXPECT_EQ(causes(refit.merged({"sqnr"}).findings).count({"sqnr", "ragged.weight"}), 1U)
            << value;
    }
}

TEST_P(EveryGranularity, RoundTripCatchesHalvesOfEqualShapeThatWereSwapped) {
    Refit refit(GetParam());
    for (int rank = 0; rank < 2; ++rank) {
        for (std::int64_t row = 0; row < 128; ++row) {
            for (std::int64_t col = 0; col < 384; ++col) {
                std::swap(refit.code(rank, refit.gate_up_, row, col),
                          refit.code(rank, refit.gate_up_, row + 128, col));
            }
        }
    }
    const Causes found = causes(refit.merged().findings);
    for (const std::string tensor : {"gate.weight", "up.weight"}) {
        EXPECT_EQ(found.count({"round_trip", tensor}), 1U);
        EXPECT_EQ(found.count({"sqnr", tensor}), 1U);
    }
    EXPECT_EQ(found.count({"round_trip", "down.weight"}), 0U);
}

TEST(BlockScheme, PassesPowerOfTwoScalesAndOnlyAsSuch) {
    Refit refit(Granularity::block, true);
    const MergedAudit clean = refit.merged();
    EXPECT_TRUE(clean.findings.empty()) << listed(clean.findings);
    EXPECT_LE(clean.max_error_over_bound, 1.0 + refit.facts_.slack);
}

TEST(BlockScheme, RoundTripCatchesAZeroedRowOfOneTile) {
    Refit refit(Granularity::block);
    // Row 5 of rank 1's down projection is global row 5, columns 256 to 383.
    for (std::int64_t col = 0; col < 128; ++col) refit.code(1, refit.down_, 5, col) = 0;
    const AuditResult result = refit.audit(1);
    ASSERT_EQ(causes(result.findings), (Causes{{"round_trip", "down.weight"}}));
    ASSERT_EQ(result.findings[0].index.size(), 2U);
    EXPECT_EQ(result.findings[0].index[0], 5);
    EXPECT_GE(result.findings[0].index[1], 256);
    const MergedAudit merged = refit.merged();
    EXPECT_NEAR(merged.max_error_over_bound, 17.0, 1e-9);
    const TensorAudit& down = tensor_of(merged, "down.weight");
    EXPECT_GT(down.mismatched, 100);
    EXPECT_GT(down.flushed, 100);
}

TEST(BlockScheme, RoundTripCatchesScalesRoundedToBf16WhereSqnrDoesNot) {
    Refit refit(Granularity::block);
    for (int rank = 0; rank < 2; ++rank) {
        for (std::int64_t i = 0; i < 6; ++i) {
            float& scale = refit.scale(rank, refit.gate_up_, i);
            std::uint32_t bits = 0;
            std::memcpy(&bits, &scale, sizeof(bits));
            bits = (bits + 0x8000U) & 0xffff0000U;
            std::memcpy(&scale, &bits, sizeof(bits));
        }
    }
    const MergedAudit merged = refit.merged();
    for (const core::Finding& finding : merged.findings) EXPECT_EQ(finding.check, "round_trip");
    EXPECT_FALSE(merged.findings.empty());
    EXPECT_GT(merged.max_error_over_bound, 1.005);
    EXPECT_LT(merged.max_error_over_bound, 1.07);
}

TEST(BlockScheme, RoundTripCatchesOneCodeBeyondTheBound) {
    Refit refit(Granularity::block);
    // A code that is one too large is wrong wherever the right one was not nearly a tie.
    const double scale = static_cast<double>(refit.scale(0, refit.ragged_, 0));
    const double x = bf16_value(refit.source("ragged.weight", 17, 23));
    std::uint8_t& code = refit.code(0, refit.ragged_, 17, 23);
    const std::uint8_t right = code;
    code = static_cast<std::uint8_t>(right + 1);
    const double bound = std::max(std::abs(x) / 17.0, scale / 1024.0);
    ASSERT_GT(std::abs(code_value(code) * scale - x), 1.001 * bound);
    const AuditResult result = refit.audit(0);
    ASSERT_EQ(result.findings.size(), 1U) << listed(result.findings);
    EXPECT_EQ(result.findings[0].check, "round_trip");
    EXPECT_EQ(result.findings[0].tensor, "ragged.weight");
    EXPECT_EQ(result.findings[0].index, (std::vector<std::int64_t>{17, 23}));
    EXPECT_NE(result.findings[0].message.find("1 of its elements"), std::string::npos);
    EXPECT_TRUE(refit.audit(0, {"completeness", "nonfinite"}).findings.empty());
}

TEST(BlockScheme, CompletenessCatchesATileLeftPoisoned) {
    Refit refit(Granularity::block);
    for (std::int64_t row = 128; row < 256; ++row) {
        for (std::int64_t col = 256; col < 384; ++col)
            refit.code(1, refit.gate_up_, row, col) = 0xff;
    }
    const AuditResult result = refit.audit(1);
    ASSERT_EQ(causes(result.findings), (Causes{{"completeness", "up.weight"}}))
        << listed(result.findings);
    // Row 128 of the fused matrix is row 128 of up on rank 1.
    EXPECT_EQ(result.findings[0].index, (std::vector<std::int64_t>{128, 256}));
    EXPECT_NE(result.findings[0].message.find("16384 of its elements"), std::string::npos);
    EXPECT_EQ(causes(refit.audit(1, {"round_trip"}).findings),
              (Causes{{"round_trip", "up.weight"}}));
    EXPECT_EQ(causes(refit.merged({"sqnr"}).findings), (Causes{{"sqnr", "up.weight"}}));
}

TEST(BlockScheme, CompletenessCatchesRawRowsAndPaddingLeftPoisoned) {
    Refit refit(Granularity::block);
    for (std::int64_t i = 0; i < 64; ++i) refit.raw(0, refit.embedding_, 7 * 64 + i) = 0xffff;
    AuditResult result = refit.audit(0);
    ASSERT_EQ(causes(result.findings), (Causes{{"completeness", "embed.weight"}}));
    EXPECT_EQ(result.findings[0].index, (std::vector<std::int64_t>{7, 0}));
    refit.load(0);
    refit.raw(0, refit.embedding_, 35 * 64) = 0xffff;
    result = refit.audit(0);
    ASSERT_EQ(causes(result.findings), (Causes{{"completeness", "embed.weight"}}));
    EXPECT_TRUE(refit.audit(0, {"round_trip", "nonfinite"}).findings.empty());
}

TEST(BlockScheme, CompletenessAcceptsASourceNanThatLooksLikePoison) {
    Refit refit(Granularity::block);
    refit.source("norm.weight", 4, 0) = 0xffff;
    refit.reload();
    EXPECT_TRUE(refit.audit(0, {"completeness", "round_trip"}).findings.empty());
    EXPECT_EQ(causes(refit.audit(0).findings), (Causes{{"nonfinite", "norm.weight"}}));
}

TEST(BlockScheme, RoundTripCatchesOneBitOfARawTensor) {
    Refit refit(Granularity::block);
    refit.raw(1, refit.norm_, 200) ^= 1U;
    const AuditResult result = refit.audit(1);
    ASSERT_EQ(result.findings.size(), 1U);
    EXPECT_EQ(result.findings[0].check, "round_trip");
    EXPECT_EQ(result.findings[0].tensor, "norm.weight");
    EXPECT_EQ(result.findings[0].index, std::vector<std::int64_t>{200});
}

TEST(BlockScheme, NonfiniteCatchesNanCodes) {
    Refit refit(Granularity::block);
    refit.code(0, refit.down_, 3, 7) = 0x7f;
    const AuditResult result = refit.audit(0);
    ASSERT_EQ(causes(result.findings), (Causes{{"nonfinite", "down.weight"}}));
    EXPECT_EQ(result.findings[0].index, (std::vector<std::int64_t>{3, 7}));
    EXPECT_EQ(causes(refit.audit(0, {"round_trip"}).findings),
              (Causes{{"round_trip", "down.weight"}}));
}

TEST(BlockScheme, NonfiniteCatchesTheSourceAndNamesThePlace) {
    for (const unsigned bits : {0x7fc0U, 0x7f80U, 0xff80U}) {
        Refit refit(Granularity::block);
        refit.source("down.weight", 200, 300) = static_cast<std::uint16_t>(bits);
        refit.reload();
        // The tile's other elements are legal, and the sums leave the element out.
        const MergedAudit merged = refit.merged();
        ASSERT_EQ(causes(merged.findings), (Causes{{"nonfinite", "down.weight"}}))
            << listed(merged.findings);
        EXPECT_EQ(merged.findings[0].index, (std::vector<std::int64_t>{200, 300}));
        EXPECT_EQ(merged.findings[0].measured,
                  bits == 0x7fc0 ? "NaN" : (bits == 0x7f80 ? "Inf" : "-Inf"));
        EXPECT_EQ(tensor_of(merged, "down.weight").elements, 256 * 512 - 1);
        EXPECT_TRUE(std::isfinite(merged.pooled_sqnr_db));
    }
}

TEST(BlockScheme, AllowsAnyScaleForATileOfZeros) {
    Refit refit(Granularity::block);
    for (std::int64_t row = 0; row < 128; ++row) {
        for (std::int64_t col = 0; col < 128; ++col) refit.source("ragged.weight", row, col) = 0;
    }
    refit.reload();
    for (const float scale : {1e-12F, 2.23e-13F, 1.0F, 1e-4F}) {
        refit.scale(0, refit.ragged_, 0) = scale;
        EXPECT_TRUE(refit.audit(0).findings.empty()) << scale;
    }
    refit.code(0, refit.ragged_, 1, 1) = 1;
    EXPECT_EQ(causes(refit.audit(0).findings), (Causes{{"round_trip", "ragged.weight"}}));
}

TEST(Sqnr, CatchesAnErrorThatIsTooGood) {
    const Refit refit(Granularity::block);
    std::vector<RankAudit> ranks = refit.audits();
    for (RankAudit& rank : ranks) {
        for (TensorAudit& tensor : rank.result.tensors) {
            // One dB less error than rounding to E4M3 makes.
            if (tensor.tensor == "down.weight") tensor.sum_error2 *= std::pow(10.0, -0.1);
        }
    }
    const MergedAudit merged = merge_audits(ranks, kAll);
    EXPECT_EQ(causes(merged.findings), (Causes{{"sqnr", "down.weight"}}));
    EXPECT_TRUE(merge_audits(ranks, {"round_trip"}).findings.empty());
}

TEST(Sqnr, CatchesErrorsThatAreLegalOneByOneButTooLargeTogether) {
    // Rounding towards zero instead of to nearest, kept within each element's bound.
    Refit refit(Granularity::block);
    for (std::int64_t row = 0; row < 130; ++row) {
        for (std::int64_t col = 0; col < 200; ++col) {
            const double scale =
                static_cast<double>(refit.scale(0, refit.ragged_, row / 128 * 2 + col / 128));
            const double x = bf16_value(refit.source("ragged.weight", row, col));
            std::uint8_t& code = refit.code(0, refit.ragged_, row, col);
            const auto lower = static_cast<std::uint8_t>(code - 1);
            const double bound = std::max(std::abs(x) / 17.0, scale / 1024.0);
            if ((code & 0x7fU) != 0 && std::abs(code_value(lower) * scale - x) <= bound)
                code = lower;
        }
    }
    const MergedAudit merged = merge_audits({{10, refit.audit(0)}}, kAll);
    EXPECT_EQ(causes(merged.findings).count({"round_trip", "ragged.weight"}), 0U);
    EXPECT_EQ(causes(merged.findings).count({"sqnr", "ragged.weight"}), 1U);
}

TEST_P(EveryGranularity, HistogramsCountEveryLoadedCodeAndScaleOnce) {
    Refit refit(GetParam());
    refit.scale(0, refit.ragged_, 0) = refit.scale(1, refit.ragged_, 0) = std::nanf("");
    const MergedAudit merged = refit.merged();
    std::int64_t codes = 0;
    for (const std::int64_t count : merged.codes) codes += count;
    EXPECT_EQ(merged.codes.size(), 256U);
    EXPECT_EQ(codes, 2 * 256 * 384 + 256 * 512 + 130 * 200);
    std::int64_t scales = 0;
    for (const auto& [bin, count] : merged.scales) {
        scales += count;
        // amax of some hundred or some ten thousand numbers of deviation 0.02, by 448: 2^-13 or so.
        EXPECT_GE(bin, -8 * 14) << bin;
        EXPECT_LE(bin, -8 * 12) << bin;
    }
    const std::int64_t block = 2 * 2 * 3 + 2 * 4 + 2 * 2;
    const std::int64_t channel = 256 + 256 + 256 + 130;
    const std::int64_t all = GetParam() == Granularity::block     ? block
                             : GetParam() == Granularity::channel ? channel
                                                                  : 4;
    EXPECT_EQ(scales, all - 1) << "the NaN has no bin";
}

TEST_P(EveryGranularity, RelativeErrorCosineAndSubnormalCodesAreThoseOfTheValues) {
    const Refit refit(GetParam());
    const MergedAudit merged = refit.merged();
    const TensorAudit& down = tensor_of(merged, "down.weight");
    // By definition from the sums that the walk does not form: ||d||^2 and <x, d> need the values.
    EXPECT_NEAR(relative_error(down), std::pow(10.0, -sqnr_db(down.sum_x2, down.sum_error2) / 20),
                1e-12);
    EXPECT_GT(cosine(down), 1.0 - 1e-3);
    EXPECT_LT(cosine(down), 1.0);
    std::int64_t subnormal = 0;
    for (std::size_t code = 0; code < 256; ++code) {
        const double magnitude = std::abs(code_value(static_cast<unsigned>(code)));
        if (magnitude > 0.0 && magnitude < 0x1p-6) subnormal += down.codes[code];
    }
    EXPECT_EQ(subnormal_codes(down), subnormal);
    EXPECT_GT(subnormal, 0);
}

TEST(ByteIdentity, CatchesOneByteOfAReplicaAndNamesBothRanks) {
    Refit refit(Granularity::block);
    refit.code(1, refit.ragged_, 129, 199) ^= 0x80U;
    const core::Findings findings = check_byte_identity(refit.audits());
    ASSERT_EQ(findings.size(), 1U);
    EXPECT_EQ(findings[0].check, "byte_identity");
    EXPECT_EQ(findings[0].tensor, "ragged.weight");
    EXPECT_NE(findings[0].message.find("ranks 10 and 11"), std::string::npos);
    EXPECT_NE(findings[0].message.find("0,0,130,200"), std::string::npos);
}

TEST(ByteIdentity, CatchesRawTensorsAndScalesToo) {
    Refit refit(Granularity::channel);
    refit.raw(0, refit.norm_, 1) ^= 1U;
    refit.scale(1, refit.ragged_, 7) *= 2.0F;
    EXPECT_EQ(
        causes(check_byte_identity(refit.audits())),
        (Causes{{"byte_identity", "norm.weight"}, {"byte_identity", "ragged.weight_scale_inv"}}));
}

TEST(ByteIdentity, ComparesTheSameRankOfTwoEngines) {
    Refit first(Granularity::block);
    Refit second(Granularity::block);
    second.code(1, second.down_, 0, 0) ^= 1U;
    std::vector<RankAudit> ranks = first.audits();
    ranks.push_back({12, second.audit(0)});
    EXPECT_TRUE(check_byte_identity(ranks).empty());
    ranks.push_back({13, second.audit(1)});
    ASSERT_EQ(check_byte_identity(ranks).size(), 1U);
    EXPECT_EQ(check_byte_identity(ranks)[0].rank, 13);
}

TEST(Version, CatchesAStaleAndATornReceiver) {
    EXPECT_TRUE(check_versions(7, {2, 3}, {7, 7}, {false, false}).empty());
    core::Findings findings = check_versions(7, {2, 3}, {7, 6}, {false, false});
    ASSERT_EQ(findings.size(), 1U);
    EXPECT_EQ(findings[0].check, "version");
    EXPECT_EQ(findings[0].rank, 3);
    findings = check_versions(7, {2, 3}, {7, 7}, {true, false});
    ASSERT_EQ(findings.size(), 1U);
    EXPECT_EQ(findings[0].rank, 2);
    EXPECT_NE(findings[0].measured.find("torn"), std::string::npos);
}

TEST(SourceUnchanged, CatchesATensorThatWasWritten) {
    const wire::Digest one = {1, 2};
    const wire::Digest other = {1, 3};
    EXPECT_TRUE(check_source_unchanged({{"a", 0, one, one}, {"b", 1, other, other}}).empty());
    const core::Findings findings =
        check_source_unchanged({{"a", 0, one, one}, {"b", 0, one, other}, {"b", 1, other, one}});
    ASSERT_EQ(findings.size(), 1U);
    EXPECT_EQ(findings[0].check, "source_unchanged");
    EXPECT_EQ(findings[0].tensor, "b");
    EXPECT_NE(findings[0].message.find("rank 0, 1"), std::string::npos);
}

TEST(Audit, GivesNoFindingForAQuestionNobodyAskedFor) {
    Refit refit(Granularity::block);
    refit.scale(0, refit.gate_up_, 0) = std::nanf("");
    refit.code(0, refit.down_, 0, 0) = 0xff;
    refit.raw(0, refit.norm_, 0) ^= 1U;
    EXPECT_TRUE(refit.audit(0, {}).findings.empty());
    EXPECT_TRUE(refit.merged({}).findings.empty());
}

TEST(Audit, RefusesAContractThatContradictsItself) {
    Refit unknown(Granularity::block);
    unknown.tensors_.pop_back();
    EXPECT_THROW((void)unknown.audit(0), core::ShapeError);
    Refit outside(Granularity::block);
    outside.instance_.spans[0][0].dest_row = 200;
    EXPECT_THROW((void)outside.audit(0), core::ShapeError);
    Refit without_scale(Granularity::block);
    without_scale.instance_.destinations[without_scale.down_].scale = -1;
    EXPECT_THROW((void)without_scale.audit(0), core::ShapeError);
}

TEST(Audit, SeesAWeightWhoseScaleLiesOutsideTheScaleTensor) {
    // Three grid rows are used, but the engine holds two: its kernel would read beyond the end.
    Refit refit(Granularity::block);
    auto& destination = refit.instance_.destinations[static_cast<std::size_t>(
        refit.instance_.destinations[refit.down_].scale)];
    destination.shape = {1, 2};
    for (receiver::LoadSpan& span : refit.instance_.spans[0]) {
        if (refit.instance_.wanted[span.wanted].name == "down.weight_scale_inv")
            span.source.rows = 1;
    }
    EXPECT_EQ(causes(refit.audit(0).findings), (Causes{{"round_trip", "down.weight"}}));
}

TEST(Catalogue, HasEveryCheckThatLivesHere) {
    const std::vector<std::string> names = check_names();
    for (const char* name : {"completeness", "nonfinite", "round_trip", "sqnr", "byte_identity",
                             "source_unchanged", "version", "layer_output"}) {
        EXPECT_EQ(std::count(names.begin(), names.end(), name), 1) << name;
    }
}

}  // namespace
}  // namespace refit::checks
