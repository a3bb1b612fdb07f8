// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Derived weights against values that were sent, with the arithmetic done by hand.
#include "receiver/derived_weights.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "core/error.hpp"
#include "unit/receiver/refit_fixture.hpp"

namespace refit::receiver_test {
namespace {

using quant::Scheme;
using receiver::CommitMode;
using receiver::WeightLoader;
using testing::HasSubstr;

constexpr std::int64_t kHeads = 8;
constexpr std::int64_t kNope = 128;
constexpr std::int64_t kValue = 128;
constexpr std::int64_t kLora = 128;

const std::string kProjection = "model.layers.0.self_attn.kv_b_proj.weight";

struct Loading {
    receiver::ContractInstance instance;
    Refit refit;
    WeightLoader loader;

    explicit Loading(const std::string& engine = "vllm-fp8", Scheme scheme = Scheme::fp8_blockwise,
                     int tp = 1, int rank = 0, CommitMode mode = CommitMode::staged,
                     receiver::LoadFaults faults = {})
        : instance(instance_of(engine, scheme, named_model("tiny-mla"), tp)),
          refit(instance, 2, 6),
          loader(instance, refit.manifest(), rank, mode, std::move(faults)) {
        // Codes without NaN, so that values can be compared.
        for (const wire::ParameterMeta& meta : refit.manifest().parameters) {
            if (meta.dtype != core::DType::f8_e4m3) continue;
            for (std::byte& code : refit.tensor(meta.name)) {
                if ((code & std::byte{0x7F}) == std::byte{0x7F}) code = std::byte{0x3C};
            }
        }
    }
    Loading(const Loading&) = delete;

    void run(std::uint64_t version) {
        loader.begin(version);
        refit.stream(loader, version);
        ASSERT_TRUE(loader.commit(true));
    }
    [[nodiscard]] core::Findings findings() const {
        return check_derived(instance, loader.loaded(), loader.derived(), loader.version(),
                             loader.tp_rank());
    }
};

double code_value(std::byte code) {
    const int bits = std::to_integer<int>(code);
    const double magnitude = (bits & 0x78) == 0
                                 ? (bits & 7) * 0x1p-9
                                 : std::ldexp(8 + (bits & 7), ((bits >> 3) & 15) - 10);
    return bits > 127 ? -magnitude : magnitude;
}

double bf16_value(std::uint16_t bits) {
    const std::uint32_t wide = static_cast<std::uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &wide, 4);
    return value;
}

TEST(DerivedWeights, AreTheTwoHalvesOfEveryHead) {
    for (const int rank : {0, 1}) {
        Loading load("vllm-fp8", Scheme::fp8_blockwise, 2, rank);
        load.run(1);
        ASSERT_EQ(load.loader.derived().parameters().size(), 6U);  // 3 layers
        const auto uv = load.loader.derived().values("model.layers.0.self_attn.W_UV");
        const auto uk_t = load.loader.derived().values("model.layers.0.self_attn.W_UK_T");
        ASSERT_EQ(uv.size(), static_cast<std::size_t>(kHeads / 2 * kLora * kValue));
        ASSERT_EQ(uk_t.size(), static_cast<std::size_t>(kHeads / 2 * kNope * kLora));
        const auto& codes = load.refit.tensor(kProjection);
        const auto& scales = load.refit.tensor(kProjection + "_scale_inv");
        // The tensor as sent, [8 heads of 128 + 128 rows, 128]: one scale for 128 rows. A scale is
        // 1.5 times a power of two, so that its product with a code has six bits and is exact.
        const auto sent = [&](std::int64_t row, std::int64_t col) {
            float scale;
            std::memcpy(&scale, scales.data() + row / 128 * 4, 4);
            return code_value(codes[static_cast<std::size_t>(row * kLora + col)]) * scale;
        };
        for (std::int64_t head = 0; head < kHeads / 2; ++head) {
            const std::int64_t first = (rank * kHeads / 2 + head) * (kNope + kValue);
            for (std::int64_t l = 0; l < kLora; ++l) {
                for (std::int64_t i = 0; i < kValue; ++i) {
                    ASSERT_EQ(
                        bf16_value(uv[static_cast<std::size_t>((head * kLora + l) * kValue + i)]),
                        sent(first + kNope + i, l));
                    ASSERT_EQ(
                        bf16_value(uk_t[static_cast<std::size_t>((head * kNope + i) * kLora + l)]),
                        sent(first + i, l));
                }
            }
        }
    }
}

TEST(DerivedWeights, RoundToTheNearestEvenBf16) {
    Loading load("vllm-compressed-tensors", Scheme::fp8_channelwise);
    // 1.125 * (1 + 2^-7) = 1.1337890625 lies between 1.1328125 (even) and 1.140625;
    // 1.5 * (1 + 2^-7) = 1.51171875 lies half way between 1.5078125 (odd) and 1.515625 (even).
    const float scale = 1.0F + 0x1p-7F;
    auto& scales = load.refit.tensor(kProjection + "_scale");
    std::memcpy(scales.data(), &scale, 4);
    auto& codes = load.refit.tensor(kProjection);
    codes[0] = std::byte{0x39};  // 1.125
    codes[1] = std::byte{0x3C};  // 1.5
    codes[2] = std::byte{0xBC};  // -1.5
    load.run(1);
    const auto uk_t = load.loader.derived().values("model.layers.0.self_attn.W_UK_T");
    EXPECT_EQ(bf16_value(uk_t[0]), 1.1328125);
    EXPECT_EQ(bf16_value(uk_t[1]), 1.515625);
    EXPECT_EQ(bf16_value(uk_t[2]), -1.515625);
    EXPECT_TRUE(load.findings().empty());
}

TEST(DerivedWeights, AreFreshAfterEveryCommitInEveryGranularity) {
    const std::vector<std::pair<std::string, Scheme>> engines = {
        {"vllm-fp8", Scheme::fp8_blockwise},
        {"vllm-fp8", Scheme::fp8_tensorwise},
        {"vllm-compressed-tensors", Scheme::fp8_channelwise},
        {"vllm-bf16", Scheme::bf16}};
    for (const auto& [engine, scheme] : engines) {
        for (const CommitMode mode : {CommitMode::staged, CommitMode::in_place}) {
            Loading load(engine, scheme, 2, 1, mode);
            load.run(1);
            EXPECT_TRUE(load.findings().empty()) << engine;
            const auto* address =
                load.loader.derived().values("model.layers.0.self_attn.W_UV").data();
            for (std::byte& byte : load.refit.tensor(kProjection)) byte ^= std::byte{0x01};
            load.run(2);
            EXPECT_TRUE(load.findings().empty()) << engine << ": " << load.findings()[0].message;
            EXPECT_EQ(load.loader.derived().values("model.layers.0.self_attn.W_UV").data(),
                      address);
        }
    }
}

TEST(DerivedWeights, StaleOnesAreFoundFromTheSecondRefitOn) {
    receiver::LoadFaults faults;
    faults.stale_derived = true;
    for (const CommitMode mode : {CommitMode::staged, CommitMode::in_place}) {
        Loading load("vllm-fp8", Scheme::fp8_blockwise, 2, 0, mode, faults);
        load.run(1);
        EXPECT_TRUE(load.findings().empty());
        load.refit.tensor(kProjection)[5] ^= std::byte{0x08};
        load.run(2);
        const core::Findings findings = load.findings();
        // Row 0 belongs to the half without rotation of head 0 of layer 0 and to nothing else.
        ASSERT_EQ(findings.size(), 1U);
        EXPECT_EQ(findings[0].check, "version");
        EXPECT_EQ(findings[0].tensor, kProjection);
        EXPECT_EQ(findings[0].index, (std::vector<std::int64_t>{0, 5}));
        EXPECT_THAT(findings[0].message, HasSubstr("W_UK_T"));
        EXPECT_THAT(findings[0].message, HasSubstr("1 of "));
        EXPECT_THAT(findings[0].message, HasSubstr("version 2"));
    }
}

TEST(DerivedWeights, WithoutACommitTheyStayThoseOfTheVisibleVersion) {
    Loading load;
    load.run(1);
    for (std::byte& byte : load.refit.tensor(kProjection)) byte ^= std::byte{0x01};
    load.loader.begin(2);
    load.refit.stream(load.loader, 2);
    EXPECT_FALSE(load.loader.commit(false));
    EXPECT_TRUE(load.findings().empty());
}

TEST(DerivedWeights, BeforeTheFirstCommitTheyAreNotANumber) {
    const Loading load;
    for (const std::uint16_t value : load.loader.derived().values(std::size_t{0})) {
        ASSERT_EQ(value, 0xFFFF);
    }
}

TEST(DerivedWeights, AModelWithoutLatentAttentionHasNone) {
    const auto instance =
        instance_of("vllm-fp8", Scheme::fp8_blockwise, named_model("tiny-moe"), 1);
    const receiver::DerivedWeights derived(instance);
    EXPECT_TRUE(derived.parameters().empty());
    EXPECT_EQ(derived.size_bytes(), 0U);
    EXPECT_THROW((void)derived.values("model.layers.0.self_attn.W_UV"), core::ShapeError);
}

}  // namespace
}  // namespace refit::receiver_test
