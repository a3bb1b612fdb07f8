// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Each hazard of a framing is found where it is, and nowhere else.
#include "receiver/framing_check.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "wire/packing.hpp"

namespace refit::receiver_test {
namespace {

using core::DType;
using wire::Framing;

struct Entry {
    std::string name;
    DType dtype;
    core::Shape shape;
};

wire::RefitManifest manifest_of(const std::vector<Entry>& entries, Framing framing,
                                std::uint64_t buffer) {
    std::vector<wire::PlannedParameter> parameters;
    for (const Entry& entry : entries) {
        wire::PlannedParameter& parameter = parameters.emplace_back();
        parameter.meta.name = entry.name;
        parameter.meta.dtype = entry.dtype;
        parameter.meta.shape = entry.shape;
        parameter.meta.row_cuts = {0, parameter.meta.rows()};
        parameter.meta.col_cuts = {0, parameter.meta.cols()};
        parameter.regions_of_trainer = {{0, 0, parameter.meta.rows(), parameter.meta.cols()}};
    }
    return wire::pack_framed(parameters, framing, buffer);
}

receiver::ContractInstance engine(const std::string& name) {
    receiver::ContractInstance instance;
    instance.engine = name;
    return instance;
}

core::Findings check(const std::vector<Entry>& entries, Framing framing, std::uint64_t buffer,
                     std::uint64_t own, const std::string& name = "vllm-fp8") {
    return receiver::check_framing(manifest_of(entries, framing, buffer), engine(name), framing,
                                   own);
}

const std::vector<Entry> kOdd = {{"codes", DType::u8, {9}},
                                 {"scale", DType::f32, {2}},
                                 {"even", DType::f8_e4m3, {1}},
                                 {"norm", DType::bf16, {3}}};

TEST(FramingCheck, FindsTheViewThatAnOddTensorBreaksWithPyTorchsText) {
    for (const Framing framing :
         {Framing::vllm_packed, Framing::vllm_ipc, Framing::sglang_bucket}) {
        const core::Findings found = check(kOdd, framing, 1000, 1000);
        ASSERT_EQ(found.size(), 1U);  // the norm begins at byte 18
        EXPECT_EQ(found[0].check, "shape_contract");
        EXPECT_EQ(found[0].tensor, "scale");
        EXPECT_EQ(found[0].engine_behaviour, "raises");
        EXPECT_EQ(found[0].engine_message,
                  "RuntimeError: self.storage_offset() must be divisible by 4 to view Byte as "
                  "Float (different element sizes), but got 9");
    }
}

TEST(FramingCheck, FindsNoViewWhereTheOriginalCopiesOrKeepsTypesApart) {
    EXPECT_TRUE(check(kOdd, Framing::nemo_packed, 1000, 1000).empty());
    EXPECT_TRUE(check(kOdd, Framing::prime_rl, 1000, 1000).empty());
    // With a message for every tensor each begins at 0.
    EXPECT_TRUE(check(kOdd, Framing::sglang_bucket, 1, 1).empty());
}

TEST(FramingCheck, FindsATensorWithoutDimensionsWhereTheSenderViewsBytes) {
    const std::vector<Entry> entries = {{"a", DType::f32, {}}, {"b", DType::f32, {1}}};
    for (const Framing framing : {Framing::vllm_packed, Framing::vllm_ipc, Framing::nemo_packed}) {
        const core::Findings found = check(entries, framing, 1000, 1000);
        ASSERT_EQ(found.size(), 1U);
        EXPECT_EQ(found[0].tensor, "a");
        EXPECT_NE(found[0].engine_message.find("self.dim() cannot be 0"), std::string::npos);
    }
    EXPECT_TRUE(check(entries, Framing::sglang_bucket, 1000, 1000).empty());
    EXPECT_TRUE(check(entries, Framing::prime_rl, 1000, 1000).empty());
}

TEST(FramingCheck, FindsTheFirstBoundaryThatTheReceiverDrawsElsewhere) {
    const std::vector<Entry> entries = {
        {"a", DType::u8, {60}}, {"b", DType::u8, {60}}, {"c", DType::u8, {60}}};
    for (const Framing framing : {Framing::vllm_packed, Framing::nemo_packed}) {
        const core::Findings found = check(entries, framing, 100, 50);
        ASSERT_EQ(found.size(), 1U);
        EXPECT_EQ(found[0].check, "shape_contract");
        EXPECT_EQ(found[0].tensor, "b");
        EXPECT_NE(found[0].measured.find("120 bytes"), std::string::npos);
        EXPECT_EQ(found[0].limit, "60 bytes");
        EXPECT_EQ(check(entries, framing, 50, 100).at(0).tensor, "b");
        // Another buffer that gives the same boundaries is no finding.
        EXPECT_TRUE(check(entries, framing, 100, 119).empty());
    }
    // The receiver is told the boundaries.
    EXPECT_TRUE(check(entries, Framing::sglang_bucket, 100, 50).empty());
    EXPECT_TRUE(check(entries, Framing::vllm_ipc, 100, 50).empty());
}

TEST(FramingCheck, FindsABoundaryWhereOneSideHasNoMessageLeft) {
    const std::vector<Entry> entries = {{"a", DType::u8, {60}}, {"b", DType::u8, {41}}};
    const core::Findings found = check(entries, Framing::vllm_packed, 59, 100);
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].tensor, "b");
}

const std::string kAttention = "model.layers.0.self_attn.";
const std::vector<Entry> kPair = {
    {kAttention + "q_a_proj.weight", DType::f8_e4m3, {64}},
    {kAttention + "q_a_proj.weight_scale_inv", DType::f32, {1}},
    {kAttention + "q_b_proj.weight", DType::f8_e4m3, {64}},
    {kAttention + "kv_a_proj_with_mqa.weight", DType::f8_e4m3, {64}},
    {kAttention + "kv_a_proj_with_mqa.weight_scale_inv", DType::f32, {1}}};

TEST(FramingCheck, FindsThePairThatSglangLosesWhenTwoRequestsCarryIt) {
    const core::Findings found = check(kPair, Framing::sglang_bucket, 132, 132, "sglang-fp8");
    ASSERT_EQ(found.size(), 2U);  // the weights, and the scales apart
    for (const core::Finding& finding : found) {
        EXPECT_EQ(finding.check, "completeness");
        EXPECT_EQ(finding.engine_behaviour, "silently_wrong");
        EXPECT_NE(finding.message.find("kv_a_proj_with_mqa"), std::string::npos);
    }
    EXPECT_TRUE(check(kPair, Framing::sglang_bucket, 4096, 4096, "sglang-fp8").empty());
    // vLLM loads the parts into places of their own.
    EXPECT_TRUE(check(kPair, Framing::sglang_bucket, 132, 132, "vllm-fp8").empty());
}

TEST(FramingCheck, SaysOfDamagedBytesThatTheEngineWouldNotNotice) {
    core::Finding digest;
    digest.check = "digest";
    core::Finding names;
    names.check = "names";
    core::Findings native = {digest, names};
    receiver::add_unnoticed_by_engine(native, Framing::native);
    EXPECT_EQ(native[0].message, "");
    core::Findings framed = {digest, names};
    receiver::add_unnoticed_by_engine(framed, Framing::vllm_packed);
    EXPECT_EQ(framed[0].engine_behaviour, "silently_wrong");
    EXPECT_NE(framed[0].message.find("would not notice"), std::string::npos);
    EXPECT_EQ(framed[1].message, "");
}

TEST(FramingCheck, CountsTheNamesByWhichAQuantizedStreamIsKnown) {
    EXPECT_EQ(receiver::count_prequantized_marks(manifest_of(kPair, Framing::sglang_bucket, 1)), 2);
    EXPECT_EQ(receiver::count_prequantized_marks(manifest_of(kOdd, Framing::sglang_bucket, 1)), 0);
}

}  // namespace
}  // namespace refit::receiver_test
