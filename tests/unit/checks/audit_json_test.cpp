// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "checks/audit.hpp"
#include "core/error.hpp"

namespace refit::checks {
namespace {

AuditResult sample() {
    AuditResult result;
    TensorAudit tensor;
    tensor.tensor = "model.layers.0.mlp.up_proj.weight";
    tensor.quantized = true;
    tensor.elements = 1234567890123;
    tensor.sum_x2 = 0.1;
    tensor.sum_error2 = std::numeric_limits<double>::quiet_NaN();
    tensor.sum_expected_error2 = std::numeric_limits<double>::denorm_min();
    tensor.max_error_over_bound = std::numeric_limits<double>::infinity();
    tensor.saturated = 1;
    tensor.flushed = 2;
    tensor.exact = 3;
    tensor.mismatched = 4;
    tensor.sum_x_error = -0.1;
    tensor.codes.assign(256, 0);
    tensor.codes[0x7e] = 1234567890123;
    tensor.scale = "model.layers.0.mlp.up_proj.weight_scale_inv";
    tensor.scales = {{-1191, 1}, {-3, 2}, {1016, 1234567890123}};
    tensor.output = {16, 0.1, std::numeric_limits<double>::infinity(), 0.3};
    result.tensors.push_back(tensor);
    result.digests.push_back({"a|0,0,1,2", {0xffffffffffffffffU, 0x8000000000000001U}});
    core::Finding finding;
    finding.check = "nonfinite";
    finding.severity = core::Severity::warning;
    finding.tensor = "a \"quoted\" name";
    finding.index = {3, 7};
    finding.measured = "NaN";
    finding.limit = "finite";
    finding.rank = 2;
    finding.message = "m";
    finding.engine_behaviour = "raises";
    finding.engine_message = "e";
    finding.remedy = "r";
    result.findings.push_back(finding);
    return result;
}

TEST(AuditJson, KeepsEveryFieldAndEveryBitOfADouble) {
    const AuditResult sent = sample();
    const AuditResult got = audit_from_json(to_json(sent));
    ASSERT_EQ(got.tensors.size(), 1U);
    const TensorAudit& tensor = got.tensors[0];
    EXPECT_EQ(tensor.tensor, sent.tensors[0].tensor);
    EXPECT_TRUE(tensor.quantized);
    EXPECT_EQ(tensor.elements, 1234567890123);
    EXPECT_EQ(tensor.sum_x2, 0.1);
    EXPECT_TRUE(std::isnan(tensor.sum_error2));
    EXPECT_EQ(tensor.sum_expected_error2, std::numeric_limits<double>::denorm_min());
    EXPECT_EQ(tensor.max_error_over_bound, std::numeric_limits<double>::infinity());
    EXPECT_EQ(tensor.saturated, 1);
    EXPECT_EQ(tensor.flushed, 2);
    EXPECT_EQ(tensor.exact, 3);
    EXPECT_EQ(tensor.mismatched, 4);
    EXPECT_EQ(tensor.sum_x_error, -0.1);
    EXPECT_EQ(tensor.codes, sent.tensors[0].codes);
    EXPECT_EQ(tensor.scale, sent.tensors[0].scale);
    EXPECT_EQ(tensor.scales, sent.tensors[0].scales);
    EXPECT_EQ(tensor.output.outputs, 16);
    EXPECT_EQ(tensor.output.y2, 0.1);
    EXPECT_EQ(tensor.output.error2, std::numeric_limits<double>::infinity());
    EXPECT_EQ(tensor.output.expected_error2, 0.3);
    ASSERT_EQ(got.digests.size(), 1U);
    EXPECT_EQ(got.digests[0].key, sent.digests[0].key);
    EXPECT_EQ(got.digests[0].digest, sent.digests[0].digest);
    ASSERT_EQ(got.findings.size(), 1U);
    EXPECT_EQ(got.findings[0].severity, core::Severity::warning);
    EXPECT_EQ(got.findings[0].tensor, sent.findings[0].tensor);
    EXPECT_EQ(got.findings[0].index, sent.findings[0].index);
    EXPECT_EQ(got.findings[0].rank, 2);
    EXPECT_EQ(got.findings[0].remedy, "r");
}

TEST(AuditJson, RefusesTextThatNoAuditWrites) {
    EXPECT_THROW((void)audit_from_json(""), core::Error);
    EXPECT_THROW((void)audit_from_json("{}"), core::Error);
    EXPECT_THROW((void)audit_from_json("[1]"), core::Error);
    std::string text = to_json(sample());
    text.replace(text.find("inf"), 3, "in ");
    EXPECT_THROW((void)audit_from_json(text), core::Error);
}

}  // namespace
}  // namespace refit::checks
