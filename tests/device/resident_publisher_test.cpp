// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Publishing on the device beside publishing on the host: the same pieces and the same findings.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "core/aligned_buffer.hpp"
#include "device/resident_refit.hpp"
#include "quant/recipe.hpp"
#include "trainer/device_publisher.hpp"
#include "trainer/refit_publisher.hpp"
#include "trainer/resident_shard.hpp"
#include "unit/trainer/publication.hpp"

namespace refit {
namespace {

using resident_test::DeviceQueue;
using resident_test::expect_same_findings;
using resident_test::ResidentRefit;

class ResidentPublisher : public ResidentRefit {
 protected:
    /// One refit on both sides; entries, digests and findings must be the same. False where the
    /// plan is not one for the device.
    bool compare(const std::vector<model::TensorSpec>& tensors, const wire::WantedList& wanted,
                 const trainer::Payload& payload, int trainers,
                 const trainer::TrainerFaults& faults, const weights::WeightSource& source,
                 std::int64_t multiple = 128, parallel::Layout layout = parallel::Layout::fsdp,
                 const std::vector<float>* cache_scales = nullptr) {
        parallel::Sharding sharding;
        sharding.rows.ranks = trainers;
        sharding.rows.multiple = multiple;
        sharding.layout = layout;
        const trainer::RefitPlan plan =
            trainer::make_plan(tensors, wanted, payload, sharding, faults);
        if (!trainer::why_not_on_device(payload).empty()) return false;
        const auto& portable = *kernels::find_backend("portable");
        std::vector<std::unique_ptr<trainer::ResidentShard>> shards;
        std::vector<std::unique_ptr<trainer::DeviceShard>> resident;
        std::vector<std::unique_ptr<trainer::RefitPublisher>> host;
        std::vector<std::unique_ptr<trainer::DevicePublisher>> device;
        for (int t = 0; t < trainers; ++t) {
            shards.push_back(std::make_unique<trainer::ResidentShard>(tensors, plan.placements, t,
                                                                      source, [] {}));
            resident.push_back(std::make_unique<trainer::DeviceShard>(tensors, plan.placements, t,
                                                                      source, *queue_, [] {}));
            EXPECT_EQ(shards.back()->digests([] {}), resident.back()->digests([] {}));
            host.push_back(std::make_unique<trainer::RefitPublisher>(
                tensors, plan, payload, faults, portable, *shards.back(), t, cache_scales));
            device.push_back(std::make_unique<trainer::DevicePublisher>(
                plan, payload, faults, *resident.back(), *queue_, t, cache_scales));
            host.back()->begin(4);
            device.back()->begin(4);
        }
        const std::uint64_t before = queue_->traffic().weights;
        trainer::PublishTimes times;
        for (std::size_t b = 0; b < plan.manifest.buckets.size(); ++b) {
            std::vector<std::uint32_t> most_host(plan.exchange_words[b], 0);
            std::vector<std::uint32_t> most_device(plan.exchange_words[b], 0);
            const auto raise = [](std::vector<std::uint32_t>& most) {
                return [&most](std::span<std::uint32_t> words) {
                    for (std::size_t i = 0; i < words.size(); ++i)
                        most[i] = words[i] = std::max(most[i], words[i]);
                };
            };
            for (int turn = 0; turn < 2; ++turn) {
                for (auto& one : host) one->gather(b, raise(most_host));
                for (auto& one : device) one->gather(b, raise(most_device));
            }
            EXPECT_EQ(most_host, most_device);
            for (std::size_t t = 0; t < host.size(); ++t) {
                const wire::PiecePlan& piece = plan.manifest.buckets[b].pieces[t];
                if (piece.bytes == 0) continue;
                core::AlignedBuffer expected(piece.bytes);
                std::memset(expected.data(), 0, expected.size());
                host[t]->fill(
                    b, expected.span(), [] {}, times);
                const auto memory = queue_->allocate(piece.bytes);
                queue_->set_bytes(memory->data(), 0, piece.bytes);
                device[t]->fill(
                    b, {memory->data(), piece.bytes}, [] {}, times);
                // By another queue: nothing may be under way any more.
                std::vector<std::byte> found(piece.bytes);
                kernels::cuda::make_device_queue()->download(
                    found.data(), memory->data(), found.size(), DeviceQueue::Purpose::control);
                const std::size_t compared =
                    device[t]->aborted() ? sizeof(wire::PieceHeader) : found.size();
                EXPECT_TRUE(std::equal(found.begin(),
                                       found.begin() + static_cast<std::ptrdiff_t>(compared),
                                       expected.data()))
                    << "bucket " << b << " of trainer " << t;
            }
        }
        EXPECT_EQ(queue_->traffic().weights, before);
        for (std::size_t t = 0; t < host.size(); ++t)
            expect_same_findings(host[t]->findings(), device[t]->findings());
        return true;
    }

    struct Model {
        std::vector<model::TensorSpec> tensors;
        wire::WantedList wanted;
        trainer_test::FixedWeights weights;
    };
    static void add(Model& model, const std::string& name, std::int64_t rows, std::int64_t cols,
                    const quant::Recipe* recipe) {
        model::TensorSpec tensor = trainer_test::matrix(name, rows, cols);
        if (recipe == nullptr) tensor.role = model::Role::norm;
        if (name.find("down_proj") != std::string::npos) tensor.role = model::Role::down_proj;
        model.weights.set(name, trainer_test::random_values(
                                    rows * cols, static_cast<std::uint32_t>(rows + 7 * cols)));
        trainer_test::want(model.wanted, tensor, recipe);
        model.tensors.push_back(std::move(tensor));
    }
    static trainer::Payload payload_of(const quant::Recipe* recipe) {
        trainer::Payload payload;
        payload.recipe = recipe;
        if (recipe != nullptr) payload.scheme = recipe->scheme;
        payload.bucket_bytes = 100'000;
        return payload;
    }
};

TEST_F(ResidentPublisher, SendsTheHostsPiecesForEveryRecipe) {
    int compared = 0;
    for (const quant::Recipe& recipe : quant::recipe_catalog()) {
        SCOPED_TRACE(recipe.name);
        for (const std::int64_t cols : {std::int64_t{384}, std::int64_t{200}}) {
            if (cols % 128 != 0 && recipe.scheme == quant::Scheme::mxfp8) continue;
            Model model;
            add(model, "model.layers.0.mlp.up_proj.weight", 300, cols, &recipe);
            add(model, "model.layers.0.input_layernorm.weight", 130, 24, nullptr);
            add(model, "model.layers.1.mlp.up_proj.weight", 128, cols, &recipe);
            // Shards that end with tiles, and shards that cut them.
            for (const int trainers : {1, 2, 3}) {
                EXPECT_TRUE(compare(model.tensors, model.wanted, payload_of(&recipe), trainers, {},
                                    model.weights, trainers == 3 ? 1 : 128));
                ++compared;
            }
        }
    }
    EXPECT_GT(compared, 40);
}

TEST_F(ResidentPublisher, SendsTheHostsPiecesWhereShardsCutTilesBetweenColumns) {
    for (const quant::Recipe& recipe : quant::recipe_catalog()) {
        SCOPED_TRACE(recipe.name);
        Model model;
        // 134 columns a trainer of two, and 67 of four, one of which lies within one tile; rows of
        // an odd number of values are aligned to nothing.
        add(model, "model.layers.0.mlp.down_proj.weight", 300, 268, &recipe);
        add(model, "model.layers.1.mlp.down_proj.weight", 8, 512, &recipe);
        for (const int trainers : {2, 4}) {
            for (const trainer::Nonfinite policy :
                 {trainer::Nonfinite::reject, trainer::Nonfinite::propagate}) {
                trainer::Payload payload = payload_of(&recipe);
                payload.nonfinite = policy;
                EXPECT_TRUE(compare(model.tensors, model.wanted, payload, trainers, {},
                                    model.weights, 128, parallel::Layout::tp));
            }
        }
    }
}

TEST_F(ResidentPublisher, SendsWhatTheHostMakesOfNanAndInfUnderEveryPolicy) {
    using trainer::Nonfinite;
    int compared = 0;
    for (const quant::Recipe& recipe : quant::recipe_catalog()) {
        SCOPED_TRACE(recipe.name);
        Model model;
        add(model, "model.layers.0.mlp.up_proj.weight", 150, 256, &recipe);
        add(model, "model.layers.0.input_layernorm.weight", 130, 24, nullptr);
        add(model, "model.layers.1.mlp.down_proj.weight", 70, 320, &recipe);
        for (const model::TensorSpec& tensor : model.tensors) {
            std::vector<std::uint16_t> values = model.weights.values(tensor.name);
            const std::size_t last = values.size() - 1;
            // A quiet and a negative signalling NaN, both infinities, the last element among them,
            // beside a tile of zeros.
            values[3] = 0x7fc0;
            values[last / 2] = 0xff81;
            values[last / 3] = 0x7f80;
            values[last] = 0xff80;
            model.weights.set(tensor.name, values);
        }
        for (const Nonfinite policy :
             {Nonfinite::recipe, Nonfinite::propagate, Nonfinite::sanitize, Nonfinite::reject}) {
            trainer::Payload payload = payload_of(&recipe);
            payload.nonfinite = policy;
            EXPECT_TRUE(compare(model.tensors, model.wanted, payload, 3, {}, model.weights, 1));
            EXPECT_TRUE(compare(model.tensors, model.wanted, payload, 2, {}, model.weights, 128,
                                parallel::Layout::tp));
            ++compared;
        }
    }
    EXPECT_GT(compared, 40);
}

TEST_F(ResidentPublisher, RefusesToSanitizeWhereARecipeMakesCodesOfNanQuotients) {
    quant::Recipe recipe = quant::find_recipe("areal-triton");
    trainer::Payload payload = payload_of(&recipe);
    payload.nonfinite = trainer::Nonfinite::sanitize;
    ASSERT_EQ(recipe.scaling.nonfinite_input, numerics::NonfiniteInput::drop_nan);
    EXPECT_EQ(trainer::why_not_on_device(payload), "");
    // Without its floor a tile of zeros has scale 0, and its quotients are NaN.
    recipe.scaling.floor_on = numerics::FloorOn::nothing;
    EXPECT_NE(trainer::why_not_on_device(payload).find("areal-triton"), std::string::npos);
    payload.nonfinite = trainer::Nonfinite::propagate;
    EXPECT_EQ(trainer::why_not_on_device(payload), "");
}

TEST_F(ResidentPublisher, SendsTheHostsPiecesInEveryFraming) {
    int compared = 0;
    for (const wire::FramingRow& row : wire::framing_catalog()) {
        for (const char* name : {"prime-rl-blockwise", "compressed-tensors-channel"}) {
            const quant::Recipe& recipe = quant::find_recipe(name);
            SCOPED_TRACE(row.name + " " + name);
            Model model;
            // Codes of an odd number of bytes in front of BF16 values: those of framings without
            // alignment begin at odd addresses.
            add(model, "model.layers.0.mlp.up_proj.weight", 129, 131, &recipe);
            add(model, "model.layers.0.input_layernorm.weight", 13, 25, nullptr);
            add(model, "model.layers.1.mlp.up_proj.weight", 257, 131, &recipe);
            add(model, "model.layers.1.input_layernorm.weight", 3, 41, nullptr);
            for (const bool damaged : {false, true}) {
                std::vector<std::uint16_t> values =
                    model.weights.values("model.layers.1.input_layernorm.weight");
                if (damaged) values[70] = 0xff80;
                model.weights.set("model.layers.1.input_layernorm.weight", values);
                for (const trainer::Nonfinite policy :
                     {trainer::Nonfinite::reject, trainer::Nonfinite::sanitize}) {
                    trainer::Payload payload = payload_of(&recipe);
                    payload.framing = row.framing;
                    payload.nonfinite = policy;
                    // Such that weights and scales part.
                    for (const std::uint64_t bytes : {34'000U, 90'000U}) {
                        payload.bucket_bytes = bytes;
                        EXPECT_TRUE(
                            compare(model.tensors, model.wanted, payload, 1, {}, model.weights));
                        ++compared;
                    }
                }
            }
        }
    }
    EXPECT_GT(compared, 40);
}

TEST_F(ResidentPublisher, SendsCacheScalesWithTheHostsBytesAndPlantedDamage) {
    const quant::Recipe& recipe = quant::find_recipe("prime-rl-blockwise");
    Model model;
    add(model, "model.layers.0.mlp.up_proj.weight", 128, 384, &recipe);
    trainer::Payload payload = payload_of(&recipe);
    for (const char* part : {"k", "v"}) {
        model::TensorSpec calibration;
        calibration.name = std::string("model.layers.0.self_attn.") + part + "_cache";
        calibration.shape = {4, 8};
        payload.calibrations.push_back(calibration);
        wire::WantedParameter wanted;
        wanted.name = std::string("model.layers.0.self_attn.") + part + "_scale";
        wanted.shape = {1};
        wanted.dtypes = {*part == 'k' ? core::DType::f32 : core::DType::bf16};
        wanted.calibration = calibration.name;
        wanted.row_cuts = wanted.col_cuts = {0, 1};
        model.wanted.push_back(wanted);
    }
    const std::vector<float> values = {0.37F, 1.5F};
    trainer::TrainerFaults doubled;
    doubled.scale_doubled = "*k_scale";
    trainer::TrainerFaults replaced;
    replaced.cache_scale_value = "*_scale";
    replaced.cache_scale_replacement = -2.0F;
    for (const auto& faults : {trainer::TrainerFaults{}, doubled, replaced}) {
        for (const int trainers : {1, 2}) {
            EXPECT_TRUE(compare(model.tensors, model.wanted, payload, trainers, faults,
                                model.weights, 128, parallel::Layout::fsdp, &values));
        }
    }
}

TEST_F(ResidentPublisher, RejectsNanAndInfWithTheHostsWords) {
    for (const char* name : {"prime-rl-blockwise", "slime-online", "nemo-rl-2037-linear"}) {
        const quant::Recipe& recipe = quant::find_recipe(name);
        for (const unsigned bits : {0x7fc0U, 0xff80U}) {
            for (const std::size_t struck : {0, 1}) {
                Model model;
                add(model, "model.layers.0.mlp.up_proj.weight", 256, 384, &recipe);
                add(model, "model.layers.0.input_layernorm.weight", 16, 24, nullptr);
                const std::string& tensor = model.tensors[struck].name;
                std::vector<std::uint16_t> values = model.weights.values(tensor);
                values[100] = values[333] = static_cast<std::uint16_t>(bits);
                model.weights.set(tensor, values);
                SCOPED_TRACE(std::string(name) + " " + tensor);
                EXPECT_TRUE(compare(model.tensors, model.wanted, payload_of(&recipe), 1, {},
                                    model.weights));
            }
        }
    }
}

TEST_F(ResidentPublisher, DoublesTheFirstScaleWhereThatIsPlanted) {
    const quant::Recipe& recipe = quant::find_recipe("prime-rl-blockwise");
    Model model;
    add(model, "model.layers.0.mlp.up_proj.weight", 256, 384, &recipe);
    trainer::TrainerFaults faults;
    faults.scale_doubled = "*up_proj*";
    EXPECT_TRUE(
        compare(model.tensors, model.wanted, payload_of(&recipe), 2, faults, model.weights));
}

}  // namespace
}  // namespace refit
