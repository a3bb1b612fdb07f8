// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Wrong manifests, each with the finding that must name it. What the engine does is what its own
// loader did.
#include "receiver/contract_check.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "unit/receiver/refit_fixture.hpp"

namespace refit::receiver_test {
namespace {

using core::DType;
using quant::Scheme;
using testing::HasSubstr;

const std::string kDown = "model.layers.0.mlp.down_proj.weight";
const std::string kQuery = "model.layers.0.self_attn.q_proj.weight";

struct Case {
    receiver::ContractInstance instance;
    wire::RefitManifest manifest;

    explicit Case(receiver::ContractInstance contract)
        : instance(std::move(contract)), manifest(list_of(instance)) {}
    wire::ParameterMeta& at(const std::string& name) {
        return manifest.parameters[static_cast<std::size_t>(manifest.find(name))];
    }
    void drop(const std::string& name) {
        manifest.parameters.erase(manifest.parameters.begin() + manifest.find(name));
    }
    void add(const std::string& name, DType dtype, core::Shape shape) {
        wire::ParameterMeta meta;
        meta.name = name;
        meta.dtype = dtype;
        meta.row_cuts = {0, core::matrix_rows(shape)};
        meta.col_cuts = {0, core::matrix_cols(shape)};
        meta.shape = std::move(shape);
        manifest.parameters.push_back(std::move(meta));
    }
    [[nodiscard]] core::Findings findings() const {
        return receiver::check_manifest(manifest, instance);
    }
};

Case blockwise(int tp = 1) {
    return Case(instance_of("vllm-fp8", Scheme::fp8_blockwise, named_model("tiny-llama"), tp));
}
Case channelwise(const std::string& engine) {
    return Case(instance_of(engine, Scheme::fp8_channelwise, named_model("tiny-llama"), 2));
}

/// The only finding of a manifest with one fault.
core::Finding only(const Case& wrong) {
    const core::Findings findings = wrong.findings();
    EXPECT_EQ(findings.size(), 1U);
    return findings.empty() ? core::Finding{} : findings.front();
}

TEST(ContractCheck, PassesWhatTheContractWants) {
    for (const receiver::EngineContract& contract : receiver::engine_catalog()) {
        for (const Scheme scheme : contract.schemes) {
            for (const int tp : {1, 2, 4}) {
                if (tp > 1 && !contract.layout.tensor_parallel) continue;
                const core::Findings findings =
                    Case(instance_of(contract.name, scheme, named_model("qwen3-0.6b"), tp))
                        .findings();
                EXPECT_TRUE(findings.empty()) << contract.name << ": " << findings.front().message;
            }
        }
    }
}

TEST(ContractCheck, PassesScalesInBf16AndF16) {
    for (const DType dtype : {DType::bf16, DType::f16}) {
        Case right = blockwise(2);
        for (auto& parameter : right.manifest.parameters) {
            if (!parameter.scale_of.empty()) parameter.dtype = dtype;
        }
        EXPECT_TRUE(right.findings().empty());
    }
}

TEST(ContractCheck, PassesATensorScaleWithoutDimensions) {
    Case right(instance_of("vllm-compressed-tensors", Scheme::fp8_tensorwise,
                           named_model("tiny-llama"), 1));
    right.at(kDown + "_scale").shape = {};
    EXPECT_TRUE(right.findings().empty());
}

TEST(ContractCheck, PrintsBothShapesOfAChannelScaleOfTheWrongRank) {
    Case wrong = channelwise("vllm-modelopt");
    wrong.at(kQuery + "_scale").shape = {512, 1};
    const core::Finding finding = only(wrong);
    EXPECT_EQ(finding.check, "shape_contract");
    EXPECT_EQ(finding.tensor, kQuery + "_scale");
    EXPECT_THAT(finding.message, HasSubstr("came [512, 1] (2-D), the contract wants [512] (1-D)"));
    EXPECT_EQ(finding.engine_behaviour, "raises");
    EXPECT_THAT(finding.engine_message, HasSubstr("AssertionError"));

    Case other = channelwise("vllm-compressed-tensors");
    other.at(kQuery + "_scale").shape = {512};
    EXPECT_THAT(only(other).message,
                HasSubstr("came [512] (1-D), the contract wants [512, 1] (2-D)"));
}

TEST(ContractCheck, PbWoScaleOfTwoDimensionsIsAnIndexError) {
    Case wrong(instance_of("vllm-modelopt", Scheme::fp8_blockwise, named_model("tiny-llama"), 1));
    wrong.at(kQuery + "_scale").shape = {4, 4};
    EXPECT_THAT(only(wrong).engine_message, HasSubstr("IndexError"));
}

TEST(ContractCheck, OneFindingNamesBothNamesOfAScale) {
    Case wrong = blockwise();
    wrong.at(kDown + "_scale_inv").name = kDown + "_scale";
    const core::Finding finding = only(wrong);
    EXPECT_EQ(finding.check, "names");
    EXPECT_EQ(finding.tensor, kDown + "_scale");
    EXPECT_THAT(finding.message, HasSubstr(kDown + "_scale_inv"));
    EXPECT_THAT(
        finding.engine_message,
        HasSubstr("There is no module or parameter named 'layers.0.mlp.down_proj.weight_scale'"));

    Case other = channelwise("vllm-compressed-tensors");
    other.at(kQuery + "_scale").name = kQuery + "_scale_inv";
    EXPECT_THAT(only(other).message, HasSubstr(kQuery + "_scale; "));
}

TEST(ContractCheck, MissingTensorKeepsWhatWasInMemory) {
    for (const std::string& name :
         {kQuery, kQuery + "_scale_inv", std::string("model.norm.weight")}) {
        Case wrong = blockwise();
        wrong.drop(name);
        const core::Finding finding = only(wrong);
        EXPECT_EQ(finding.check, "names");
        EXPECT_EQ(finding.tensor, name);
        EXPECT_EQ(finding.engine_behaviour, "keeps_sentinel");
    }
}

TEST(ContractCheck, TensorListedTwiceIsOneFinding) {
    Case wrong = blockwise();
    wrong.manifest.parameters.push_back(wrong.at(kDown));
    const core::Finding finding = only(wrong);
    EXPECT_EQ(finding.check, "names");
    EXPECT_EQ(finding.tensor, kDown);
}

TEST(ContractCheck, UnknownTensorNamesTheNearest) {
    Case wrong = blockwise();
    wrong.add("model.layers.0.mlp.downproj.weight", DType::bf16, {512, 1024});
    const core::Finding finding = only(wrong);
    EXPECT_EQ(finding.severity, core::Severity::error);
    EXPECT_THAT(finding.message, HasSubstr(kDown));
    EXPECT_EQ(finding.engine_behaviour, "raises");
}

TEST(ContractCheck, WhatTheEngineSkipsIsAWarning) {
    Case bias = blockwise();
    bias.add("model.layers.0.self_attn.q_proj.bias", DType::bf16, {512});
    EXPECT_EQ(only(bias).severity, core::Severity::warning);
    EXPECT_EQ(only(bias).engine_behaviour, "ignored");

    Case tied(instance_of("vllm-fp8", Scheme::fp8_blockwise, named_model("qwen3-0.6b"), 1));
    tied.add("lm_head.weight", DType::bf16, {151936, 1024});
    EXPECT_EQ(only(tied).severity, core::Severity::warning);
}

TEST(ContractCheck, Bf16WeightWhereCodesAreWantedIsSilentlyWrong) {
    Case wrong = blockwise(2);
    wrong.at(kQuery).dtype = DType::bf16;
    const core::Finding finding = only(wrong);
    EXPECT_EQ(finding.check, "dtype");
    EXPECT_EQ(finding.engine_behaviour, "silently_wrong");
    EXPECT_EQ(finding.measured, "BF16");
    EXPECT_EQ(finding.limit, "F8_E4M3");
}

TEST(ContractCheck, ByteScalesAreSilentlyWrong) {
    Case wrong = channelwise("vllm-compressed-tensors");
    wrong.at(kDown + "_scale").dtype = DType::u8;
    EXPECT_EQ(only(wrong).check, "dtype");
    EXPECT_EQ(only(wrong).engine_behaviour, "silently_wrong");
}

TEST(ContractCheck, QuantizedLayerOnTheSkipListNamesWeightAndScale) {
    Case wrong(instance_with(
        "vllm-fp8",
        R"({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128],
                                 "ignored_layers": ["model.layers.0.mlp.down_proj"]})",
        named_model("tiny-llama"), 1));
    wrong.at(kDown).dtype = DType::f8_e4m3;
    wrong.add(kDown + "_scale_inv", DType::f32, {4, 8});
    const core::Findings findings = wrong.findings();
    ASSERT_EQ(findings.size(), 2U);
    EXPECT_EQ(findings_of(findings, "dtype", kDown).size(), 1U);
    const auto names = findings_of(findings, "names", kDown + "_scale_inv");
    ASSERT_EQ(names.size(), 1U);
    EXPECT_THAT(names[0].message, HasSubstr("leaves in BF16"));
}

TEST(ContractCheck, ShortTensorRaisesWithTheNumbersOfTheFirstRankThatFails) {
    // 448 of 512 rows at TP 2 gave "start (256) + length (256) exceeds dimension size (448)."
    Case wrong = blockwise(2);
    wrong.at(kQuery).shape = {448, 512};
    const core::Finding finding = only(wrong);
    EXPECT_EQ(finding.check, "shape_contract");
    EXPECT_THAT(finding.engine_message,
                HasSubstr("start (256) + length (256) exceeds dimension size (448)."));
}

TEST(ContractCheck, LongTensorIsCutOffSilently) {
    Case rows = blockwise();
    rows.at(kQuery).shape = {576, 512};
    EXPECT_EQ(only(rows).engine_behaviour, "silently_wrong");

    Case cols = blockwise();
    cols.at(kDown).shape = {512, 1152};
    EXPECT_EQ(only(cols).engine_behaviour, "silently_wrong");

    Case asserted = blockwise();
    asserted.at(kDown).shape = {576, 1024};
    EXPECT_EQ(only(asserted).engine_behaviour, "raises");

    Case norm = blockwise();
    norm.at("model.norm.weight").shape = {513};
    EXPECT_EQ(only(norm).engine_behaviour, "raises");
    EXPECT_THAT(only(norm).engine_message, HasSubstr("Attempted to load weight"));
}

TEST(ContractCheck, OtherCellsThanAskedForAreFound) {
    Case wrong = blockwise(2);
    wrong.at(kQuery).row_cuts = {0, 512};
    EXPECT_EQ(only(wrong).tensor, kQuery);
}

TEST(ContractCheck, IncludesWhatTheEngineRefuses) {
    Case refused(instance_of("vllm-fp8", Scheme::fp8_blockwise,
                             dense(576, 1536, 1, 9, 3, 64, 49152, true), 1));
    EXPECT_EQ(findings_of(refused.findings(), "shape_contract", kQuery).size(), 1U);
}

}  // namespace
}  // namespace refit::receiver_test
