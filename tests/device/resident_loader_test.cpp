// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Loading on the device beside loading on the host: the same bytes, the same derived values and the
// same findings, for clean pieces and for damaged ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "device/resident_refit.hpp"
#include "receiver/cache_scales.hpp"
#include "receiver/derived_weights.hpp"
#include "receiver/device_loader.hpp"
#include "receiver/host_scales.hpp"
#include "unit/receiver/refit_fixture.hpp"

namespace refit {
namespace {

using receiver::CommitMode;
using receiver_test::Refit;
using resident_test::expect_same_findings;
using resident_test::ResidentRefit;

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

TEST_F(ResidentDerivation, IsLeftToTheHostWithScalesOfAnotherType) {
    auto instance = receiver_test::instance_of("vllm-fp8", quant::Scheme::fp8_blockwise,
                                               receiver_test::named_model("tiny-mla"), 1);
    const receiver::DestinationParameter& weight =
        instance.destinations[instance.latent[0].destination];
    instance.destinations[static_cast<std::size_t>(weight.scale)].dtype = core::DType::bf16;
    const std::string why = receiver::why_not_on_device(instance);
    EXPECT_NE(why.find(weight.name + ", F8_E4M3 with scales of BF16"), std::string::npos) << why;
    const Refit refit(instance, 1, 6);
    EXPECT_THROW((void)receiver::DeviceLoader(instance, refit.manifest(), 0, CommitMode::staged, {},
                                              kernels::cuda::make_device_queue()),
                 core::ShapeError);
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

}  // namespace
}  // namespace refit
