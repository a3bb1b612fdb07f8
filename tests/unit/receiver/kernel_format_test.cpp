// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Parameters in the engine's own format: each hazard is found, and what fits has no finding.
#include "receiver/kernel_format.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "refit_fixture.hpp"

namespace refit::receiver_test {
namespace {

using quant::Scheme;
using receiver::LoadSpan;

/// A manifest that sends what the layout names.
wire::RefitManifest manifest_of(const wire::KernelLayout& layout) {
    wire::RefitManifest manifest;
    for (const wire::KernelParameter& parameter : layout.parameters) {
        wire::ParameterMeta& meta = manifest.parameters.emplace_back();
        meta.name = wire::kernel_wire_name(parameter.name, parameter.tp_rank, layout.tp);
        meta.dtype = parameter.dtype;
        meta.shape = parameter.shape;
        meta.row_cuts = {0, meta.rows()};
        meta.col_cuts = {0, meta.cols()};
    }
    return manifest;
}

receiver::ContractInstance blockwise(const std::string& model, int tp, int ep = 1) {
    return instance_of("vllm-fp8", Scheme::fp8_blockwise, named_model(model), tp, ep);
}

TEST(KernelFormat, IsAcceptedByTheEngineThatItWasMadeFor) {
    for (const char* model : {"tiny-llama", "tiny-moe", "tiny-mla"}) {
        for (const int tp : {1, 2, 4}) {
            const receiver::ContractInstance instance = blockwise(model, tp);
            const wire::RefitManifest manifest = manifest_of(receiver::kernel_layout(instance));
            EXPECT_TRUE(receiver::check_kernel_manifest(manifest, instance).empty())
                << model << " at TP " << tp;
        }
    }
}

TEST(KernelFormat, CoversEveryElementOfEveryParameterOnceWhereNothingIsPadded) {
    // Without padding the parts' areas must add up to the parameter, and no two may overlap.
    for (const int ep : {1, 2}) {
        const receiver::ContractInstance instance = blockwise("tiny-moe", 2, ep);
        for (const wire::KernelParameter& p : receiver::kernel_layout(instance).parameters) {
            const auto rows = static_cast<std::size_t>(core::element_count(p.shape) / p.cols);
            std::vector<int> count(rows * static_cast<std::size_t>(p.cols), 0);
            for (const wire::KernelPart& part : p.parts) {
                for (std::int64_t r = 0; r < part.region.rows; ++r) {
                    for (std::int64_t c = 0; c < part.region.cols; ++c) {
                        ++count.at(
                            static_cast<std::size_t>((part.row + r) * p.cols + part.col + c));
                    }
                }
            }
            EXPECT_TRUE(std::all_of(count.begin(), count.end(), [](int n) { return n == 1; }))
                << p.name << " rank " << p.tp_rank;
        }
    }
}

TEST(KernelFormat, RefusesTheWholeTensorThatMeetsAShardWithTheOriginalsText) {
    const receiver::ContractInstance two = blockwise("tiny-llama", 2);
    const wire::RefitManifest whole =
        manifest_of(receiver::kernel_layout(blockwise("tiny-llama", 1)));
    const core::Findings found = receiver::check_kernel_manifest(whole, two);
    const std::string name = "model.layers.0.self_attn.qkv_proj.weight";
    const auto shape = findings_of(found, "shape_contract", name);
    ASSERT_EQ(shape.size(), 1U);
    EXPECT_EQ(shape[0].engine_message, name + ": param=[768, 512] != received=[1536, 512]");
    EXPECT_EQ(shape[0].engine_behaviour, "raises");
    receiver::ContractInstance sglang = two;
    sglang.engine = "sglang-fp8";
    EXPECT_EQ(findings_of(receiver::check_kernel_manifest(whole, sglang), "shape_contract", name)
                  .at(0)
                  .engine_message,
              "AssertionError: Attempted to load weight (torch.Size([1536, 512])) into parameter "
              "(torch.Size([768, 512]))");
    // A norm is the same on every rank: one copy is enough.
    EXPECT_TRUE(findings_of(found, "shape_contract", "model.norm.weight").empty());
    EXPECT_TRUE(findings_of(found, "names", "model.norm.weight").empty());
}

TEST(KernelFormat, ReportsMissingUnknownRepeatedAndMistypedParameters) {
    const receiver::ContractInstance instance = blockwise("tiny-llama", 2);
    const std::string down = "model.layers.0.mlp.down_proj.weight@tp1";
    wire::RefitManifest manifest = manifest_of(receiver::kernel_layout(instance));
    auto& parameters = manifest.parameters;
    const auto at = std::find_if(parameters.begin(), parameters.end(),
                                 [&](const wire::ParameterMeta& p) { return p.name == down; });
    ASSERT_NE(at, parameters.end());
    parameters.erase(at);
    parameters[0].dtype = core::DType::f32;
    parameters.push_back(parameters[5]);
    wire::ParameterMeta stranger = parameters[1];
    stranger.name = "model.layers.0.mlp.gate_up_proj.wieght@tp0";
    parameters.push_back(stranger);
    stranger.name = "model.norm.weight@tp2";
    parameters.push_back(stranger);
    const core::Findings found = receiver::check_kernel_manifest(manifest, instance);
    EXPECT_EQ(found.size(), 5U);
    EXPECT_EQ(findings_of(found, "names", down).size(), 1U);
    EXPECT_EQ(findings_of(found, "dtype", parameters[0].name).size(), 1U);
    EXPECT_EQ(findings_of(found, "names", parameters[5].name).size(), 1U);
    EXPECT_EQ(findings_of(found, "names", "model.norm.weight@tp2").size(), 1U);
    const auto unknown = findings_of(found, "names", "model.layers.0.mlp.gate_up_proj.wieght@tp0");
    ASSERT_EQ(unknown.size(), 1U);
    EXPECT_NE(unknown[0].remedy.find("gate_up_proj.weight"), std::string::npos);
}

TEST(KernelFormat, KeepsTheBytesOfEveryDestination) {
    const receiver::ContractInstance instance = blockwise("tiny-moe", 2, 2);
    const receiver::ContractInstance kernel = receiver::kernel_instance(instance);
    ASSERT_EQ(kernel.destinations.size(), instance.destinations.size());
    for (std::size_t d = 0; d < kernel.destinations.size(); ++d) {
        EXPECT_EQ(core::element_count(kernel.destinations[d].shape),
                  core::element_count(instance.destinations[d].shape));
        EXPECT_EQ(kernel.destinations[d].dtype, instance.destinations[d].dtype);
    }
    for (const auto& spans : kernel.spans) {
        std::vector<std::int64_t> copied(kernel.destinations.size(), 0);
        for (const LoadSpan& span : spans)
            copied.at(span.destination) += span.source.rows * span.source.cols;
        for (std::size_t d = 0; d < copied.size(); ++d)
            EXPECT_EQ(copied[d], core::element_count(kernel.destinations[d].shape));
    }
}

TEST(KernelLayout, SurvivesJsonAndRefusesAPartThatLeavesItsParameter) {
    wire::KernelLayout layout = receiver::kernel_layout(blockwise("tiny-mla", 2));
    const std::string text = wire::to_json(layout);
    EXPECT_EQ(wire::to_json(wire::kernel_layout_from_json(text)), text);
    layout.parameters[0].parts[0].row = 1 << 20;
    EXPECT_ANY_THROW((void)wire::kernel_layout_from_json(wire::to_json(layout)));
    EXPECT_ANY_THROW((void)wire::kernel_layout_from_json("{}"));
}

TEST(KernelLayout, NamesTheRankOnlyWhereThereIsMoreThanOne) {
    EXPECT_EQ(wire::kernel_wire_name("a.weight", 0, 1), "a.weight");
    EXPECT_EQ(wire::kernel_wire_name("a.weight", 1, 2), "a.weight@tp1");
    EXPECT_EQ(wire::parse_kernel_wire_name("a.weight@tp11").tp_rank, 11);
    EXPECT_EQ(wire::parse_kernel_wire_name("a.weight@tp11").name, "a.weight");
    EXPECT_EQ(wire::parse_kernel_wire_name("a.weight").tp_rank, -1);
    EXPECT_EQ(wire::parse_kernel_wire_name("a@tpx").name, "a@tpx");
}

}  // namespace
}  // namespace refit::receiver_test
