// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Loaded scales of the KV cache against activations with known largest magnitudes.
#include "checks/cache_scale_audit.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "core/error.hpp"

namespace refit::checks {
namespace {

const std::string kName = "model.layers.0.self_attn.k_scale";
const std::set<std::string> kAll = {"completeness", "nonfinite", "round_trip"};

/// Eight activations, the first of which has the largest magnitude.
class Activations final : public weights::WeightSource {
 public:
    explicit Activations(std::uint16_t largest) : largest_(largest) {}
    void read(const model::TensorSpec&, const core::Region& region, std::uint16_t* out,
              std::int64_t) const override {
        for (std::int64_t i = 0; i < region.rows * region.cols; ++i) out[i] = 0;
        out[0] = largest_;
    }
    void set_step(std::int64_t) override {}
    [[nodiscard]] std::string description() const override { return "activations"; }

 private:
    std::uint16_t largest_;
};

constexpr std::uint16_t kMinus3 = 0xC040;

AuditResult audit(float held, std::uint16_t largest = kMinus3,
                  const std::set<std::string>& enabled = kAll, bool poisoned = false) {
    receiver::ContractInstance instance;
    instance.engine = "vllm-fp8";
    receiver::DestinationParameter destination;
    destination.name = "model.layers.0.self_attn.attn.k_scale";
    destination.dtype = core::DType::f32;
    destination.is_scale = true;
    instance.destinations.push_back(destination);
    wire::WantedParameter wanted;
    wanted.name = kName;
    wanted.shape = {1};
    wanted.calibration = "k_cache";
    instance.wanted.push_back(wanted);
    receiver::LoadSpan span;
    span.source = {0, 0, 1, 1};
    instance.spans = {{span}};
    receiver::LoadedParameters loaded(instance);
    if (poisoned) {
        loaded.poison(instance);
    } else {
        std::memcpy(loaded.bytes(0).data(), &held, sizeof held);
    }
    model::TensorSpec calibration;
    calibration.name = "k_cache";
    calibration.shape = {2, 4};
    const std::vector<model::TensorSpec> calibrations = {calibration};
    const Activations source(largest);
    AuditResult result;
    append_cache_scales(
        instance, 0, loaded, {calibrations, source}, enabled, 5, [] {}, result);
    return result;
}

TEST(CacheScaleAudit, PassesTheQuotientOfTheLargestMagnitudeAnd448) {
    // numpy.float32(3) / numpy.float32(448)
    const AuditResult result = audit(0x1.b6db6ep-8F);
    EXPECT_TRUE(result.findings.empty());
    ASSERT_EQ(result.tensors.size(), 1U);
    EXPECT_EQ(result.tensors[0].exact, 1);
    ASSERT_EQ(result.digests.size(), 1U);
    EXPECT_EQ(result.digests[0].key, kName + "|0,0,1,1");
    EXPECT_TRUE(audit(1.0F, 0).findings.empty());
    EXPECT_NE(audit(1.0F, 0).digests[0].digest, result.digests[0].digest);
}

TEST(CacheScaleAudit, FindsAScaleThatIsOneUnitInTheLastPlaceAway) {
    const AuditResult result = audit(0x1.b6db70p-8F);
    ASSERT_EQ(result.findings.size(), 1U);
    EXPECT_EQ(result.findings[0].check, "round_trip");
    EXPECT_EQ(result.findings[0].tensor, kName);
    EXPECT_EQ(result.findings[0].rank, 5);
    EXPECT_TRUE(audit(0x1.b6db70p-8F, kMinus3, {"nonfinite"}).findings.empty());
}

TEST(CacheScaleAudit, FindsTheDefaultOfAnEngineThatGotNothing) {
    ASSERT_EQ(audit(1.0F).findings.size(), 1U);
    EXPECT_EQ(audit(1.0F).findings[0].check, "round_trip");
    const AuditResult poisoned = audit(0.0F, kMinus3, kAll, true);
    ASSERT_EQ(poisoned.findings.size(), 1U);
    EXPECT_EQ(poisoned.findings[0].check, "completeness");
}

TEST(CacheScaleAudit, FindsScalesThatNoKernelCanUse) {
    for (const float held : {0.0F, -1.0F, std::numeric_limits<float>::infinity(),
                             std::numeric_limits<float>::quiet_NaN()}) {
        const AuditResult result = audit(held);
        ASSERT_EQ(result.findings.size(), 1U) << held;
        EXPECT_EQ(result.findings[0].check, "nonfinite") << held;
    }
}

TEST(CacheScaleAudit, RefusesACalibrationThatItDoesNotHave) {
    receiver::ContractInstance instance;
    wire::WantedParameter wanted;
    wanted.calibration = "v_cache";
    instance.wanted.push_back(wanted);
    receiver::DestinationParameter destination;
    destination.dtype = core::DType::f32;
    instance.destinations.push_back(destination);
    receiver::LoadSpan span;
    span.source = {0, 0, 1, 1};
    instance.spans = {{span}};
    const receiver::LoadedParameters loaded(instance);
    const std::vector<model::TensorSpec> none;
    const Activations source(kMinus3);
    AuditResult result;
    EXPECT_THROW(append_cache_scales(
                     instance, 0, loaded, {none, source}, kAll, 0, [] {}, result),
                 core::ShapeError);
}

}  // namespace
}  // namespace refit::checks
