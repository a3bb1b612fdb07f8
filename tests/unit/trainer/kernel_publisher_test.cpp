// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Shards in the engine's own format against the checkpoint's bytes, cut and joined by hand.
#include "trainer/kernel_publisher.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "publication.hpp"
#include "trainer/resident_shard.hpp"

namespace refit::trainer_test {
namespace {

const std::string kUp = "model.layers.0.mlp.up_proj.weight";
const std::string kGate = "model.layers.0.mlp.gate_proj.weight";
const std::string kNorm = "model.norm.weight";
const std::string kFused = "model.layers.0.mlp.gate_up_proj.weight";
constexpr std::int64_t kRows = 256;
constexpr std::int64_t kCols = 130;

struct Setting {
    std::vector<model::TensorSpec> tensors;
    FixedWeights source;
    wire::WantedList wanted;
    trainer::Payload payload;
    trainer::KernelFaults faults;
    wire::KernelLayout layout;

    Setting() {
        const quant::Recipe& recipe = quant::find_recipe("prime-rl-blockwise");
        tensors = {matrix(kGate, kRows, kCols), matrix(kUp, kRows, kCols), matrix(kNorm, 1, 1)};
        tensors[0].role = model::Role::gate_proj;
        tensors[2].role = model::Role::norm;
        tensors[2].shape = {64};
        std::uint32_t seed = 0;
        for (const model::TensorSpec& tensor : tensors) {
            source.set(tensor.name, random_values(core::element_count(tensor.shape), ++seed));
            want(wanted, tensor, tensor.role == model::Role::norm ? nullptr : &recipe);
        }
        payload.scheme = recipe.scheme;
        payload.recipe = &recipe;
        lay_out();
    }

    /// Two ranks, each with half the rows of gate, then half those of up; the norm as F32 with 6
    /// elements of padding.
    void lay_out() {
        layout.tp = 2;
        for (const bool scale : {false, true}) {
            const std::string suffix = scale ? "_scale_inv" : "";
            const std::int64_t rows = scale ? 1 : 128;
            const std::int64_t cols = scale ? 2 : kCols;
            for (int rank = 0; rank < 2; ++rank) {
                wire::KernelParameter p;
                p.name = kFused + suffix;
                p.tp_rank = rank;
                p.dtype = scale ? core::DType::f32 : core::DType::f8_e4m3;
                p.shape = {2 * rows, cols};
                p.cols = cols;
                p.is_scale = scale;
                p.parts = {{kGate + suffix, {rank * rows, 0, rows, cols}, 0, 0},
                           {kUp + suffix, {rank * rows, 0, rows, cols}, rows, 0}};
                layout.parameters.push_back(p);
            }
        }
        for (int rank = 0; rank < 2; ++rank) {
            wire::KernelParameter p;
            p.name = kNorm;
            p.tp_rank = rank;
            p.dtype = core::DType::f32;
            p.shape = {70};
            p.cols = 1;
            p.parts = {{kNorm, {0, 0, 64, 1}, 0, 0}};
            layout.parameters.push_back(p);
        }
    }

    [[nodiscard]] trainer::KernelPlan plan() const {
        return trainer::make_kernel_plan(tensors, wanted, layout, payload,
                                         parallel::RowSharding{1, 128, {}}, {}, faults);
    }
};

using Bytes = std::map<std::string, std::vector<std::byte>>;

/// All parameters as sent, with their digests checked; aborted says whether any piece was.
Bytes sent(const Setting& setting, bool& aborted) {
    const trainer::KernelPlan plan = setting.plan();
    const trainer::ResidentShard shard(setting.tensors, plan.checkpoint.placements, 0,
                                       setting.source, [] {});
    const trainer::TrainerFaults none;
    trainer::KernelPublisher publisher(setting.tensors, plan, setting.payload, none,
                                       *kernels::find_backend("portable"), shard);
    Bytes bytes;
    aborted = false;
    // Twice, so that nothing is left over from a refit before.
    for (const std::uint64_t version : {1U, 2U}) {
        publisher.begin(version);
        trainer::PublishTimes times;
        for (std::uint32_t b = 0; b < plan.manifest.buckets.size(); ++b) {
            const wire::PiecePlan& piece = plan.manifest.buckets[b].pieces.at(0);
            core::AlignedBuffer memory(piece.bytes);
            std::memset(memory.data(), 0xcd, memory.size());
            publisher.fill(
                b, memory.span(), [] {}, times);
            const wire::PieceView view(plan.manifest, b, 0, version, memory.span());
            aborted = aborted || view.aborted();
            std::size_t digest = 0;
            for (std::size_t k = 0; k < piece.entries.size(); ++k) {
                const auto entry = view.entry(piece.entries[k]);
                const std::vector<std::byte> copy(entry.begin(), entry.end());
                // The parts of these parameters lie one below the other: a cell is a run of bytes.
                const wire::ParameterMeta& meta =
                    plan.manifest.parameters[piece.entries[k].parameter];
                for (std::size_t cut = 0; cut + 1 < meta.row_cuts.size(); ++cut, ++digest) {
                    if (view.aborted()) continue;
                    const std::vector<std::byte> cell(
                        copy.begin() + meta.row_cuts[cut] * meta.row_bytes(),
                        copy.begin() + meta.row_cuts[cut + 1] * meta.row_bytes());
                    EXPECT_EQ(view.digests()[digest].digest, wire::digest_of(cell));
                    EXPECT_EQ(view.digests()[digest].cell, cut);
                }
                bytes[plan.manifest.parameters[piece.entries[k].parameter].name] = copy;
            }
        }
    }
    return bytes;
}

Bytes sent(const Setting& setting) {
    bool aborted = false;
    Bytes bytes = sent(setting, aborted);
    EXPECT_FALSE(aborted);
    return bytes;
}

/// Rows [first, first + count) of two tensors of the checkpoint, one below the other.
std::vector<std::byte> joined(const Publication& checkpoint, const std::string& suffix,
                              std::int64_t first, std::int64_t count, std::int64_t row_bytes) {
    std::vector<std::byte> bytes;
    for (const std::string& name : {kGate, kUp}) {
        const std::vector<std::byte>& all = checkpoint.bytes.at(name + suffix);
        bytes.insert(bytes.end(), all.begin() + first * row_bytes,
                     all.begin() + (first + count) * row_bytes);
    }
    return bytes;
}

TEST(KernelPublisher, JoinsAndCutsTheCheckpointsOwnBytes) {
    for (const std::uint64_t bucket_bytes : {std::uint64_t{1}, std::uint64_t{1} << 20}) {
        Setting setting;
        setting.payload.bucket_bytes = bucket_bytes;
        const Bytes found = sent(setting);
        const Publication checkpoint =
            publish(setting.tensors, setting.wanted, setting.payload,
                    parallel::RowSharding{1, 128, {}}, {}, setting.source);
        ASSERT_EQ(found.size(), 6U);
        for (const std::int64_t rank : {0, 1}) {
            const std::string at = "@tp" + std::to_string(rank);
            EXPECT_EQ(found.at(kFused + at), joined(checkpoint, "", rank * 128, 128, kCols));
            EXPECT_EQ(found.at(kFused + "_scale_inv" + at),
                      joined(checkpoint, "_scale_inv", rank, 1, 8));
        }
    }
}

TEST(KernelPublisher, WidensBf16ExactlyAndLeavesPaddingAtZero) {
    const Setting setting;
    const std::vector<std::byte> norm = sent(setting).at(kNorm + "@tp1");
    ASSERT_EQ(norm.size(), 280U);
    for (std::size_t i = 0; i < 70; ++i) {
        std::uint32_t bits = 0;
        std::memcpy(&bits, norm.data() + 4 * i, sizeof bits);
        const std::uint32_t expected =
            i < 64 ? std::uint32_t{setting.source.values(kNorm)[i]} << 16 : 0;
        EXPECT_EQ(bits, expected) << i;
    }
}

TEST(KernelPublisher, SendsTheSameBytesInThePrimeRlFraming) {
    Setting setting;
    const Bytes native = sent(setting);
    setting.payload.framing = wire::Framing::prime_rl;
    EXPECT_EQ(sent(setting), native);
}

TEST(KernelPublisher, PlantsAnotherRanksShardAndLeavesAParameterOut) {
    Setting setting;
    const Bytes clean = sent(setting);
    setting.faults.wrong_shard = kFused;
    const Bytes shifted = sent(setting);
    EXPECT_EQ(shifted.at(kFused + "@tp0"), clean.at(kFused + "@tp1"));
    EXPECT_EQ(shifted.at(kFused + "@tp1"), clean.at(kFused + "@tp0"));
    EXPECT_EQ(shifted.at(kFused + "_scale_inv@tp0"), clean.at(kFused + "_scale_inv@tp0"));
    setting.faults = {};
    setting.faults.drop_parameter = "*.gate_up_proj.weight";
    EXPECT_EQ(sent(setting).size(), 4U);
}

TEST(KernelPublisher, RejectsNonfiniteWeightsAndSaysWhere) {
    Setting setting;
    std::vector<std::uint16_t> values = setting.source.values(kUp);
    values[3 * kCols + 7] = 0x7fc0;
    setting.source.set(kUp, values);
    bool aborted = false;
    (void)sent(setting, aborted);
    EXPECT_TRUE(aborted);
}

TEST(KernelPublisher, RefusesALayoutThatNamesWhatTheTrainerDoesNotMake) {
    Setting setting;
    setting.layout.parameters[0].parts[0].source = "model.layers.0.mlp.gate_prj.weight";
    EXPECT_THROW((void)setting.plan(), core::ScenarioError);
    Setting typed;
    typed.layout.parameters[0].dtype = core::DType::bf16;
    EXPECT_THROW((void)typed.plan(), core::ScenarioError);
}

TEST(FramedPublisher, SendsTheSameTensorsInEveryFraming) {
    const Setting setting;
    const Publication native = publish(setting.tensors, setting.wanted, setting.payload,
                                       parallel::RowSharding{1, 128, {}}, {}, setting.source);
    for (const wire::FramingRow& row : wire::framing_catalog()) {
        if (row.framing == wire::Framing::native) continue;
        // 33281 bytes are the first weight and one byte: its scale is in the message behind it
        // where a message closes before it would exceed.
        for (const std::uint64_t buffer : {33280U, 33281U, 33288U, 100000U}) {
            trainer::Payload payload = setting.payload;
            payload.framing = row.framing;
            payload.bucket_bytes = buffer;
            for (const bool per_bucket : {false, true}) {
                const Publication sent = publish(setting.tensors, setting.wanted, payload,
                                                 parallel::RowSharding{1, 128, {}}, {},
                                                 setting.source, "portable", per_bucket);
                EXPECT_EQ(sent.bytes, native.bytes) << row.name << " with " << buffer;
            }
        }
    }
}

TEST(FramedPublisher, WritesBf16AtOddBytes) {
    std::vector<model::TensorSpec> tensors = {matrix("model.layers.0.mlp.up_proj.weight", 3, 5),
                                              matrix("model.layers.0.mlp.gate_proj.weight", 7, 9)};
    FixedWeights source;
    wire::WantedList wanted;
    const quant::Recipe& recipe = quant::find_recipe("prime-rl-blockwise");
    for (const model::TensorSpec& tensor : tensors)
        source.set(tensor.name, random_values(core::element_count(tensor.shape), 9));
    want(wanted, tensors[0], &recipe);
    want(wanted, tensors[1], nullptr);  // stays BF16, behind 15 bytes of codes and 4 of scale
    trainer::Payload payload;
    payload.scheme = recipe.scheme;
    payload.recipe = &recipe;
    const Publication native =
        publish(tensors, wanted, payload, parallel::RowSharding{1, 128, {}}, {}, source);
    payload.framing = wire::Framing::nemo_packed;
    const Publication odd =
        publish(tensors, wanted, payload, parallel::RowSharding{1, 128, {}}, {}, source);
    EXPECT_EQ(odd.plan.manifest.buckets.at(0).pieces.at(0).entries.at(2).offset % 2, 1U);
    EXPECT_EQ(odd.bytes, native.bytes);
}

}  // namespace
}  // namespace refit::trainer_test
