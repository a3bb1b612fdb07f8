// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Scales of the KV cache: their arithmetic, their place in the stream, and the planted faults.
#include "trainer/cache_calibration.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "core/aligned_buffer.hpp"
#include "core/error.hpp"
#include "kernels/backend.hpp"
#include "model/cache_calibration.hpp"
#include "publication.hpp"
#include "trainer/refit_publisher.hpp"
#include "trainer/resident_shard.hpp"
#include "weights/calibration_source.hpp"
#include "wire/piece.hpp"

namespace refit::trainer_test {
namespace {

const std::string kLayer = "model.layers.0.self_attn.";

model::TensorSpec activations(const std::string& name) {
    model::TensorSpec spec;
    spec.name = name;
    spec.shape = {2, 3};
    return spec;
}

float scale_for(const std::vector<float>& values) {
    FixedWeights source;
    std::vector<std::uint16_t> bits;
    for (const float value : values) bits.push_back(bf16(value));
    source.set("k", bits);
    return trainer::calibrate_cache_scales({activations("k")}, source, [] {}).at(0);
}

TEST(CacheCalibration, DividesTheLargestMagnitudeBy448) {
    EXPECT_EQ(scale_for({0, 1, -448, 3, 2, 0}), 1.0F);
    EXPECT_EQ(scale_for({0, 1, -1.5F, 3.5F, 2, 0}), 0.0078125F);
    // numpy.float32(3) / numpy.float32(448), and numpy.float32(0.1015625) / numpy.float32(448).
    EXPECT_EQ(scale_for({-3, 0, 0, 0, 0, 1}), 0x1.b6db6ep-8F);
    EXPECT_EQ(scale_for({0.1015625F, 0, 0, 0, 0, 0}), 0x1.db6db6p-13F);
    EXPECT_EQ(scale_for({0, 0, 0, 0, -0.0F, 0}), 1.0F);
    const float nan = std::numeric_limits<float>::quiet_NaN();
    EXPECT_TRUE(std::isnan(scale_for({1, nan, 500, 0, 0, 0})));
}

TEST(CacheCalibration, HasOtherValuesAtEveryStepAndTheSameOnEveryRank) {
    model::ModelConfig config;
    config.layers = 4;
    config.heads = 8;
    config.kv_heads = 2;
    config.head_dim = 64;
    const auto specs = model::cache_calibrations(config, true);
    ASSERT_EQ(specs.size(), 12U);
    EXPECT_EQ(specs[0].name, "model.layers.0.self_attn.k_cache");
    EXPECT_EQ(specs[0].shape, (core::Shape{model::kCalibrationTokens, 128}));
    EXPECT_EQ(specs[2].shape, (core::Shape{model::kCalibrationTokens, 512}));
    const auto source = weights::make_calibration_source(7, 0);
    const auto first = trainer::calibrate_cache_scales(specs, *source, [] {});
    source->set_step(1);
    const auto second = trainer::calibrate_cache_scales(specs, *source, [] {});
    const auto again =
        trainer::calibrate_cache_scales(specs, *weights::make_calibration_source(7, 1), [] {});
    EXPECT_EQ(second, again);
    int changed = 0;
    for (std::size_t i = 0; i < first.size(); ++i) {
        EXPECT_TRUE(std::isfinite(first[i]) && first[i] > 0.0F);
        changed += first[i] != second[i] ? 1 : 0;
    }
    EXPECT_GE(changed, 9);
    config.kv_lora_rank = 64;
    EXPECT_THROW((void)model::cache_calibrations(config, false), core::ScenarioError);
}

/// A norm and the two scales of one layer, from two trainers.
struct Setting {
    std::vector<model::TensorSpec> tensors = {matrix("model.norm.weight", 1, 1)};
    FixedWeights source;
    wire::WantedList wanted;
    trainer::Payload payload;
    trainer::TrainerFaults faults;
    std::vector<float> values = {0.25F, 0.75F};

    Setting() {
        tensors[0].role = model::Role::norm;
        tensors[0].shape = {64};
        source.set(tensors[0].name, random_values(64, 1));
        want(wanted, tensors[0], nullptr);
        for (const char* part : {"k", "v"}) {
            wire::WantedParameter scale;
            scale.name = kLayer + part + "_scale";
            scale.dtypes = {core::DType::f32};
            scale.shape = {1};
            scale.row_cuts = {0, 1};
            scale.col_cuts = {0, 1};
            scale.calibration = kLayer + part + "_cache";
            wanted.push_back(scale);
            payload.calibrations.push_back(activations(scale.calibration));
        }
    }

    /// What the first trainer sends of a parameter in the refits 1 and 2, the second with doubled
    /// values.
    [[nodiscard]] std::vector<float> sent(const std::string& name) {
        const parallel::RowSharding sharding{2, 1, {}};
        const trainer::RefitPlan plan =
            trainer::make_plan(tensors, wanted, payload, sharding, faults);
        const trainer::ResidentShard shard(tensors, plan.placements, 0, source, [] {});
        std::vector<float> scales = values;
        trainer::RefitPublisher publisher(tensors, plan, payload, faults,
                                          *kernels::find_backend("portable"), shard, 0, &scales);
        std::vector<float> found;
        for (const std::uint64_t version : {1U, 2U}) {
            publisher.begin(version);
            trainer::PublishTimes times;
            for (std::uint32_t b = 0; b < plan.manifest.buckets.size(); ++b) {
                const wire::PiecePlan& piece = plan.manifest.buckets[b].pieces[0];
                core::AlignedBuffer memory(piece.bytes);
                publisher.gather(b, [](std::span<std::uint32_t>) {});
                publisher.fill(
                    b, memory.span(), [] {}, times);
                const wire::PieceView view(plan.manifest, b, 0, version, memory.span());
                for (const wire::PieceEntry& entry : piece.entries) {
                    if (plan.manifest.parameters[entry.parameter].name != name) continue;
                    float value = 0.0F;
                    std::memcpy(&value, view.entry(entry).data(), sizeof value);
                    found.push_back(value);
                }
            }
            for (float& value : scales) value *= 2.0F;
        }
        return found;
    }

    [[nodiscard]] std::vector<std::string> names() const {
        const trainer::RefitPlan plan =
            trainer::make_plan(tensors, wanted, payload, parallel::RowSharding{2, 1, {}}, faults);
        std::vector<std::string> names;
        for (const wire::ParameterMeta& meta : plan.manifest.parameters) names.push_back(meta.name);
        return names;
    }
};

TEST(CacheScales, AreSentBehindTheModelWithTheValuesOfTheRefit) {
    Setting setting;
    EXPECT_EQ(setting.names(), (std::vector<std::string>{"model.norm.weight", kLayer + "k_scale",
                                                         kLayer + "v_scale"}));
    EXPECT_EQ(setting.sent(kLayer + "k_scale"), (std::vector<float>{0.25F, 0.5F}));
    EXPECT_EQ(setting.sent(kLayer + "v_scale"), (std::vector<float>{0.75F, 1.5F}));
    // The other trainer holds none.
    const trainer::RefitPlan plan = trainer::make_plan(
        setting.tensors, setting.wanted, setting.payload, parallel::RowSharding{2, 1, {}}, {});
    for (const wire::BucketPlan& bucket : plan.manifest.buckets) {
        for (const wire::PieceEntry& entry : bucket.pieces[1].entries)
            EXPECT_EQ(plan.manifest.parameters[entry.parameter].name, "model.norm.weight");
    }
}

TEST(CacheScales, CarryTheNamesThatTheTrainerGivesThem) {
    Setting setting;
    setting.payload.cache_scale_names = trainer::CacheScaleNames::projection;
    EXPECT_EQ(setting.names().back(), kLayer + "v_proj.v_scale");
    setting.payload.cache_scale_names = trainer::CacheScaleNames::parameter;
    EXPECT_EQ(setting.names().back(), kLayer + "attn.v_scale");
    setting.payload.cache_scale_names = trainer::CacheScaleNames::layer;
    EXPECT_EQ(setting.names().back(), kLayer + "v_scale");
    setting.faults.rename_scale = "*v_scale";
    EXPECT_EQ(setting.names().back(), kLayer + "v_scale_inv");
    setting.faults.drop_tensor = "*_scale";
    EXPECT_EQ(setting.names().back(), "model.norm.weight");
}

TEST(CacheScales, AreStruckByTheFaultsThatNameThem) {
    Setting stale;
    stale.faults.stale_cache_scale = "*k_scale";
    EXPECT_EQ(stale.sent(kLayer + "k_scale"), (std::vector<float>{0.25F, 0.25F}));
    EXPECT_EQ(stale.sent(kLayer + "v_scale"), (std::vector<float>{0.75F, 1.5F}));
    Setting replaced;
    replaced.faults.cache_scale_value = "*v_scale";
    replaced.faults.cache_scale_replacement = -1.0F;
    EXPECT_EQ(replaced.sent(kLayer + "v_scale"), (std::vector<float>{-1.0F, -1.0F}));
    EXPECT_EQ(replaced.sent(kLayer + "k_scale"), (std::vector<float>{0.25F, 0.5F}));
    Setting doubled;
    doubled.faults.scale_doubled = "*k_scale";
    EXPECT_EQ(doubled.sent(kLayer + "k_scale"), (std::vector<float>{0.5F, 1.0F}));
}

TEST(CacheScales, WithoutTheirValuesAreAnErrorThatNamesThem) {
    Setting setting;
    setting.values.clear();
    EXPECT_THROW((void)setting.sent(kLayer + "k_scale"), core::ShapeError);
}

}  // namespace
}  // namespace refit::trainer_test
