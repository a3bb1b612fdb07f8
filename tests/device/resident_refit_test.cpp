// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Loading and publishing on the device beside loading and publishing on the host: the same bytes
// and the same findings, for clean pieces and for damaged ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/aligned_buffer.hpp"
#include "kernels/cuda/cuda_backend.hpp"
#include "quant/recipe.hpp"
#include "receiver/cache_scales.hpp"
#include "receiver/derived_weights.hpp"
#include "receiver/device_loader.hpp"
#include "receiver/host_scales.hpp"
#include "trainer/device_publisher.hpp"
#include "trainer/refit_publisher.hpp"
#include "trainer/resident_shard.hpp"
#include "unit/receiver/refit_fixture.hpp"
#include "unit/trainer/publication.hpp"

namespace refit {
namespace {

using kernels::cuda::DeviceQueue;
using receiver::CommitMode;
using receiver_test::Refit;

class ResidentRefit : public ::testing::Test {
 protected:
    void SetUp() override {
        if (!kernels::cuda::cuda_row().viable) GTEST_SKIP() << kernels::cuda::cuda_row().reason;
        queue_ = kernels::cuda::make_device_queue();
    }

    /// Loads a piece from memory of the device, which is overwritten as soon as the loader is done.
    void load(receiver::WeightLoader& loader, std::uint32_t bucket, std::uint32_t trainer,
              const std::vector<std::byte>& piece) {
        const auto memory = queue_->allocate(piece.size() + 64);
        queue_->upload(memory->data(), piece.data(), piece.size(), DeviceQueue::Purpose::weights);
        receiver::LoadTimes times;
        loader.load_piece(
            bucket, trainer, {memory->data(), piece.size()}, [] {}, times);
        queue_->set_bytes(memory->data(), 0xEE, piece.size());
        queue_->wait();
    }

    std::unique_ptr<DeviceQueue> queue_;
};

/// Both loaders fed with the same pieces, which `damage` may change.
struct Pair {
    receiver::WeightLoader host;
    receiver::DeviceLoader device;

    Pair(const receiver::ContractInstance& instance, const Refit& refit, int rank, CommitMode mode,
         const receiver::LoadFaults& faults = {})
        : host(instance, refit.manifest(), rank, mode, faults),
          device(instance, refit.manifest(), rank, mode, faults,
                 kernels::cuda::make_device_queue()) {}
};

using Damage =
    std::function<void(std::uint32_t bucket, std::uint32_t trainer, std::vector<std::byte>& piece)>;

void expect_same_findings(const core::Findings& host, const core::Findings& device) {
    ASSERT_EQ(host.size(), device.size());
    for (std::size_t i = 0; i < host.size(); ++i) {
        EXPECT_EQ(host[i].check, device[i].check);
        EXPECT_EQ(host[i].tensor, device[i].tensor);
        EXPECT_EQ(host[i].index, device[i].index);
        EXPECT_EQ(host[i].message, device[i].message);
    }
}

void expect_same_bytes(const receiver::ContractInstance& instance, const Pair& pair) {
    for (std::size_t i = 0; i < instance.destinations.size(); ++i) {
        const auto host = pair.host.loaded().bytes(i);
        const auto device = pair.device.loaded().bytes(i);
        ASSERT_EQ(host.size(), device.size());
        ASSERT_TRUE(std::equal(host.begin(), host.end(), device.begin()))
            << instance.destinations[i].name;
    }
}

class ResidentLoader : public ResidentRefit {
 protected:
    void stream(Pair& pair, const Refit& refit, std::uint64_t version, const Damage& damage = {}) {
        pair.host.begin(version);
        pair.device.begin(version);
        const auto& buckets = refit.manifest().buckets;
        for (std::uint32_t b = 0; b < buckets.size(); ++b) {
            for (std::uint32_t t = 0; t < buckets[b].pieces.size(); ++t) {
                if (buckets[b].pieces[t].bytes == 0) continue;
                std::vector<std::byte> piece = refit.piece(b, t, version);
                if (damage) damage(b, t, piece);
                receiver::LoadTimes times;
                pair.host.load_piece(
                    b, t, piece, [] {}, times);
                load(pair.device, b, t, piece);
            }
        }
        pair.host.finish_stream();
        pair.device.finish_stream();
        expect_same_findings(pair.host.findings(), pair.device.findings());
    }
};

model::ModelConfig small_model() {
    return receiver_test::dense(256, 512, 2, 4, 2, 64, 500, false);
}

TEST_F(ResidentLoader, HoldsTheHostsBytesForEveryFormatRankAndScaleType) {
    struct Shape {
        const char* engine;
        quant::Scheme scheme;
        core::DType scale;
        bool by_columns;
    };
    for (const Shape& shape :
         {Shape{"vllm-fp8", quant::Scheme::fp8_blockwise, core::DType::f32, false},
          Shape{"vllm-fp8", quant::Scheme::fp8_blockwise, core::DType::bf16, true},
          Shape{"vllm-fp8", quant::Scheme::fp8_blockwise, core::DType::f16, false},
          Shape{"vllm-compressed-tensors", quant::Scheme::fp8_channelwise, core::DType::f32, false},
          Shape{"vllm-bf16", quant::Scheme::bf16, core::DType::f32, true}}) {
        const auto instance =
            receiver_test::instance_of(shape.engine, shape.scheme, small_model(), 2);
        const Refit refit(instance, 3, 5, shape.scale, shape.by_columns);
        for (int rank = 0; rank < 2; ++rank) {
            for (const CommitMode mode : {CommitMode::staged, CommitMode::in_place}) {
                SCOPED_TRACE(std::string(shape.engine) + " rank " + std::to_string(rank));
                Pair pair(instance, refit, rank, mode);
                for (std::uint64_t version = 1; version <= 3; ++version) {
                    stream(pair, refit, version);
                    EXPECT_TRUE(pair.device.findings().empty());
                    EXPECT_TRUE(pair.host.commit(true));
                    EXPECT_TRUE(pair.device.commit(true));
                    expect_same_bytes(instance, pair);
                    EXPECT_EQ(pair.host.loaded_bytes(), pair.device.loaded_bytes());
                }
                EXPECT_EQ(pair.device.refit_traffic().weights, 0U);
                EXPECT_GT(pair.device.audited_bytes(), 0U);
            }
        }
    }
}

TEST_F(ResidentLoader, RefusesEveryDamageWithTheHostsWords) {
    const auto instance =
        receiver_test::instance_of("vllm-fp8", quant::Scheme::fp8_blockwise, small_model(), 2);
    const Refit refit(instance, 2, 5);
    const auto only = [](const std::function<void(std::vector<std::byte>&)>& change) {
        return [change](std::uint32_t b, std::uint32_t t, std::vector<std::byte>& piece) {
            if (b == 1 && t == 0) change(piece);
        };
    };
    const std::vector<Damage> damages = {
        only([](auto& piece) { piece[piece.size() - 1] ^= std::byte{1}; }),
        only([](auto& piece) { piece[piece.size() / 2] ^= std::byte{0x80}; }),
        only([](auto& piece) { piece[64 + 8] ^= std::byte{1}; }),  // a digest
        only([](auto& piece) { piece[8] ^= std::byte{1}; }),       // the version
        only([](auto& piece) { piece[16] ^= std::byte{1}; }),      // the bucket
        only([](auto& piece) { piece.resize(piece.size() - 1); }),
        only([](auto& piece) { piece.resize(40); }),
        only([&](auto& piece) { piece = refit.piece(1, 0, 7, wire::PieceState::aborted); }),
        only([&](auto& piece) {
            std::fill(piece.begin() + static_cast<std::ptrdiff_t>(piece.size() / 2), piece.end(),
                      std::byte{0});
        })};
    for (std::size_t i = 0; i < damages.size(); ++i) {
        SCOPED_TRACE(i);
        Pair pair(instance, refit, 0, CommitMode::staged);
        stream(pair, refit, 6);
        ASSERT_TRUE(pair.host.commit(true) && pair.device.commit(true));
        stream(pair, refit, 7, damages[i]);
        EXPECT_FALSE(pair.device.findings().empty());
        EXPECT_FALSE(pair.device.commit(true));
        EXPECT_FALSE(pair.host.commit(true));
        // What was visible before is visible still.
        expect_same_bytes(instance, pair);
        EXPECT_EQ(pair.device.version(), 6U);
    }
}

TEST_F(ResidentLoader, WritesNothingOfAPieceInWhichAnyCellIsDamaged) {
    const auto instance =
        receiver_test::instance_of("vllm-fp8", quant::Scheme::fp8_blockwise, small_model(), 1);
    const Refit refit(instance, 1, 1000);
    receiver::DeviceLoader loader(instance, refit.manifest(), 0, CommitMode::in_place, {},
                                  kernels::cuda::make_device_queue());
    loader.begin(1);
    std::vector<std::byte> piece = refit.piece(0, 0, 1);
    // The last entry of the only piece; the host would have copied all before it.
    piece.back() ^= std::byte{1};
    load(loader, 0, 0, piece);
    ASSERT_EQ(loader.findings().size(), 1U);
    EXPECT_EQ(loader.findings()[0].check, "digest");
    receiver::LoadedParameters poison(instance);
    poison.poison(instance);
    for (std::size_t i = 0; i < instance.destinations.size(); ++i) {
        const auto held = loader.loaded().bytes(i);
        EXPECT_TRUE(std::equal(held.begin(), held.end(), poison.bytes(i).begin()))
            << instance.destinations[i].name;
    }
}

TEST_F(ResidentLoader, FindsScalesThatCannotBeUsedAndPlantedLoadFaultsAsTheHostDoes) {
    const auto instance =
        receiver_test::instance_of("vllm-fp8", quant::Scheme::fp8_blockwise, small_model(), 2);
    for (const float value : {0.0F, -1.0F, std::numeric_limits<float>::infinity(),
                              std::numeric_limits<float>::quiet_NaN()}) {
        Refit refit(instance, 2, 5);
        std::memcpy(refit.tensor("model.layers.1.self_attn.q_proj.weight_scale_inv").data() + 4,
                    &value, sizeof value);
        Pair pair(instance, refit, 0, CommitMode::staged);
        stream(pair, refit, 1);
        EXPECT_EQ(pair.device.findings().size(), 1U) << value;
    }
    const Refit refit(instance, 2, 5);
    receiver::LoadFaults skip;
    skip.skip_tensors = {"model.layers.0.self_attn.o_proj.weight"};
    Pair skipped(instance, refit, 1, CommitMode::staged, skip);
    stream(skipped, refit, 1);
    ASSERT_EQ(skipped.device.findings().size(), 1U);
    EXPECT_EQ(skipped.device.findings()[0].check, "completeness");
    receiver::LoadFaults flip;
    flip.flip_tensors = {"model.norm.weight"};
    Pair flipped(instance, refit, 1, CommitMode::staged, flip);
    stream(flipped, refit, 1);
    ASSERT_TRUE(flipped.host.commit(true) && flipped.device.commit(true));
    expect_same_bytes(instance, flipped);
    Pair clean(instance, refit, 1, CommitMode::staged);
    stream(clean, refit, 1);
    ASSERT_TRUE(clean.host.commit(true) && clean.device.commit(true));
    bool differs = false;
    for (std::size_t i = 0; i < instance.destinations.size(); ++i) {
        const auto a = clean.device.loaded().bytes(i);
        differs =
            differs || !std::equal(a.begin(), a.end(), flipped.device.loaded().bytes(i).begin());
    }
    EXPECT_TRUE(differs);
}

class ResidentDerivation : public ResidentLoader {
 protected:
    /// Two refits in which every weight and scale changes; what is derived on both sides.
    void compare(const receiver::ContractInstance& instance, int rank,
                 const receiver::LoadFaults& faults, std::size_t findings) {
        Refit refit(instance, 2, 6);
        Pair pair(instance, refit, rank, CommitMode::staged, faults);
        EXPECT_EQ(pair.device.derived().size_bytes(), receiver::DerivedWeights::bytes_of(instance));
        for (const std::uint64_t version : {1U, 2U}) {
            for (const wire::ParameterMeta& meta : refit.manifest().parameters) {
                // Another scale of the KV cache, another code in every row.
                std::vector<std::byte>& bytes = refit.tensor(meta.name);
                if (meta.shape.size() == 2 && meta.dtype == core::DType::f8_e4m3)
                    bytes[5] ^= std::byte{4};
                const float scale = 0.25F + static_cast<float>(version);
                if (meta.name.ends_with("k_scale") || meta.name.ends_with("v_scale"))
                    std::memcpy(bytes.data(), &scale, sizeof scale);
            }
            stream(pair, refit, version);
            ASSERT_TRUE(pair.host.commit(true) && pair.device.commit(true));
        }
        const receiver::DerivedWeights& host = pair.host.derived();
        const receiver::DerivedWeights& device = pair.device.derived();
        for (std::size_t i = 0; i < host.parameters().size(); ++i) {
            EXPECT_TRUE(std::ranges::equal(host.values(i), device.values(i)))
                << host.parameters()[i].name;
        }
        for (std::size_t i = 0; i < pair.host.host_scales().copies().size(); ++i) {
            EXPECT_EQ(pair.host.host_scales().copies()[i].value,
                      pair.device.host_scales().copies()[i].value);
        }
        core::Findings found =
            receiver::check_derived(instance, pair.device.loaded(), device, 2, rank);
        const core::Findings scales = receiver::check_host_scales(instance, pair.device.loaded(),
                                                                  pair.device.host_scales(), 2);
        found.insert(found.end(), scales.begin(), scales.end());
        EXPECT_EQ(found.size(), findings);
        EXPECT_EQ(pair.device.refit_traffic().weights, 0U);
    }
};

TEST_F(ResidentDerivation, MakesTheHostsMatricesAndFindsThoseThatAreStale) {
    struct Shape {
        const char* engine;
        quant::Scheme scheme;
        const char* model;
    };
    for (const Shape& shape :
         {Shape{"vllm-fp8", quant::Scheme::fp8_blockwise, "tiny-mla"},
          Shape{"vllm-compressed-tensors", quant::Scheme::fp8_channelwise, "tiny-mla"},
          Shape{"vllm-bf16", quant::Scheme::bf16, "tiny-mla"}}) {
        const auto instance = receiver_test::instance_of(
            shape.engine, shape.scheme, receiver_test::named_model(shape.model), 2);
        SCOPED_TRACE(shape.engine);
        EXPECT_EQ(receiver::why_not_on_device(instance), "");
        compare(instance, 1, {}, 0);
        receiver::LoadFaults stale;
        stale.stale_derived = true;
        const bool codes = shape.scheme != quant::Scheme::bf16;
        compare(instance, 0, stale, codes ? instance.latent.size() : 0);
    }
}

TEST_F(ResidentDerivation, KeepsTheHostsCopiesOfCacheScales) {
    const std::string engine = "vllm-fp8";
    const auto config = receiver::parse_quantization_config(
        engine, receiver::default_quantization_config(engine, quant::Scheme::fp8_blockwise, ""));
    const auto instance = receiver::apply_contract(receiver::find_engine(engine), small_model(),
                                                   config, 1, 1, receiver::CacheScales::kv);
    compare(instance, 0, {}, 0);
    receiver::LoadFaults stale;
    stale.stale_derived = true;
    compare(instance, 0, stale, static_cast<std::size_t>(2 * small_model().layers));
}

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
