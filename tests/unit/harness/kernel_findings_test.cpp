// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// One bit flipped in a parameter of the engine's own format is found in the checkpoint's tensor
// that it was flipped in. Where a tensor's elements lie in the fused shards is worked out here from
// the sizes of the models alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "core/aligned_buffer.hpp"
#include "harness/case_setup.hpp"
#include "harness/stream_check.hpp"
#include "kernels/backend.hpp"
#include "trainer/kernel_publisher.hpp"
#include "trainer/resident_shard.hpp"

namespace refit::harness_test {
namespace {

const std::string kAttention = "model.layers.0.self_attn.";
const std::string kMlp = "model.layers.0.mlp.";

enum class Cut { rows, cols, none };

/// One matrix of the checkpoint and where a rank's share of it begins in the engine's parameter.
struct Matrix {
    std::string tensor;
    std::string parameter;
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    std::int64_t rows_before = 0;  ///< global rows of the parts before it in one expert
    Cut cut = Cut::rows;
    std::int64_t expert = 0;
    std::int64_t expert_rows = 0;  ///< global rows of one expert in a stack; 0: no stack
};

std::vector<Matrix> matrices(const std::string& model) {
    const std::string qkv = kAttention + "qkv_proj.weight";
    if (model == "tiny-llama") {
        const std::string both = kMlp + "gate_up_proj.weight";
        return {
            {kAttention + "q_proj.weight", qkv, 512, 512, 0},
            {kAttention + "k_proj.weight", qkv, 512, 512, 512},
            {kAttention + "v_proj.weight", qkv, 512, 512, 1024},
            {kAttention + "o_proj.weight", kAttention + "o_proj.weight", 512, 512, 0, Cut::cols},
            {kMlp + "gate_proj.weight", both, 1024, 512, 0},
            {kMlp + "up_proj.weight", both, 1024, 512, 1024},
            {kMlp + "down_proj.weight", kMlp + "down_proj.weight", 512, 1024, 0, Cut::cols}};
    }
    const std::string stack = kMlp + "experts.routed_experts.";
    if (model == "tiny-moe") {
        std::vector<Matrix> result = {{kAttention + "v_proj.weight", qkv, 512, 256, 1024 + 512}};
        for (const std::int64_t expert : {0, 5}) {
            const std::string at = kMlp + "experts." + std::to_string(expert) + ".";
            result.push_back({at + "gate_proj.weight", stack + "w13_weight", 512, 256, 0, Cut::rows,
                              expert, 1024});
            result.push_back({at + "up_proj.weight", stack + "w13_weight", 512, 256, 512, Cut::rows,
                              expert, 1024});
            result.push_back({at + "down_proj.weight", stack + "w2_weight", 256, 512, 0, Cut::cols,
                              expert, 256});
        }
        return result;
    }
    const std::string pair = kAttention + "fused_qkv_a_proj.weight";
    return {{kAttention + "q_a_proj.weight", pair, 256, 256, 0, Cut::none},
            {kAttention + "kv_a_proj_with_mqa.weight", pair, 192, 256, 256, Cut::none}};
}

/// The scales of a matrix, which lie as its tiles do.
Matrix scales_of(const Matrix& m) {
    const auto tiles = [](std::int64_t size) { return (size + 127) / 128; };
    return {m.tensor + "_scale_inv",
            m.parameter + "_scale_inv",
            tiles(m.rows),
            tiles(m.cols),
            m.rows_before / 128,
            m.cut,
            m.expert,
            m.expert_rows / 128};
}

/// A sent refit that single bits are flipped in.
struct Sent {
    harness::CaseSetup setup;
    harness::Case c;
    trainer::KernelPlan plan;
    std::vector<core::AlignedBuffer> pieces;

    Sent(const std::string& model, int tp) {
        c.model_name = model;
        c.layers = 1;
        c.engine = "vllm-fp8";
        c.scheme = "fp8_blockwise";
        c.trainer_ranks = 1;
        c.tp = tp;
        c.wire = "kernel";
        c.bucket_bytes = 400'000;
        setup = harness::set_up_case(c);
        plan = trainer::make_kernel_plan(setup.tensors, setup.instance.wanted, setup.layout,
                                         setup.payload, setup.sharding, {}, {});
        const auto source = harness::open_weights(c, setup.tensors);
        const trainer::ResidentShard shard(setup.tensors, plan.checkpoint.placements, 0, *source,
                                           [] {});
        const trainer::TrainerFaults none;
        trainer::KernelPublisher publisher(setup.tensors, plan, setup.payload, none,
                                           *kernels::find_backend("auto"), shard);
        publisher.begin(1);
        trainer::PublishTimes times;
        for (std::size_t b = 0; b < plan.manifest.buckets.size(); ++b) {
            pieces.emplace_back(plan.manifest.buckets[b].pieces.front().bytes);
            publisher.fill(
                b, pieces.back().span(), [] {}, times);
        }
    }

    /// Findings of a receiver that gets the whole refit with one bit flipped.
    core::Findings with_flipped(const std::string& wire_name, std::int64_t element, int rank) {
        const std::int64_t parameter = plan.manifest.find(wire_name);
        std::byte* at = nullptr;
        for (std::size_t b = 0; b < pieces.size(); ++b) {
            for (const wire::PieceEntry& entry : plan.manifest.buckets[b].pieces.front().entries) {
                if (static_cast<std::int64_t>(entry.parameter) != parameter) continue;
                const wire::ParameterMeta& meta = plan.manifest.parameters[entry.parameter];
                at = pieces[b].data() + entry.offset + element * core::size_bytes(meta.dtype);
            }
        }
        if (at == nullptr) return {};
        receiver::WeightLoader loader(setup.loading(), plan.manifest, rank,
                                      receiver::CommitMode::in_place, {});
        *at ^= std::byte{1};
        loader.begin(1);
        receiver::LoadTimes times;
        for (std::uint32_t b = 0; b < pieces.size(); ++b)
            loader.load_piece(
                b, 0, pieces[b].span(), [] {}, times);
        loader.finish_stream();
        *at ^= std::byte{1};
        return harness::in_checkpoint_names(loader.findings(), c, setup);
    }
};

void expect_found(Sent& sent, const Matrix& m, int tp) {
    const std::int64_t shares = m.cut == Cut::none ? 1 : tp;
    const std::int64_t rows = m.cut == Cut::rows ? m.rows / shares : m.rows;
    const std::int64_t cols = m.cut == Cut::cols ? m.cols / shares : m.cols;
    const std::int64_t row_shares = m.cut == Cut::rows ? shares : 1;
    for (int rank = 0; rank < tp; ++rank) {
        // Somewhere in the rank's share, in the shard's and in the tensor's own coordinates.
        const std::int64_t r = rows - 1;
        const std::int64_t c = cols / 2;
        const std::int64_t above = (m.expert * m.expert_rows + m.rows_before) / row_shares;
        const std::string wire_name = m.parameter + (tp == 1 ? "" : "@tp" + std::to_string(rank));
        const core::Findings found = sent.with_flipped(wire_name, (above + r) * cols + c, rank);
        const std::string where = m.tensor + " of " + wire_name;
        ASSERT_EQ(found.size(), 1U) << where;
        EXPECT_EQ(found[0].check, "digest") << where;
        EXPECT_EQ(found[0].tensor, m.tensor) << where;
        // A digest speaks of the rank's whole share, which begins here.
        const std::vector<std::int64_t> first = {m.cut == Cut::rows ? rank * rows : 0,
                                                 m.cut == Cut::cols ? rank * cols : 0};
        EXPECT_EQ(found[0].index, first) << where;
        EXPECT_THAT(found[0].message, ::testing::HasSubstr(m.parameter)) << where;
    }
}

TEST(KernelFindings, NameTheTensorThatABitWasFlippedIn) {
    for (const char* model : {"tiny-llama", "tiny-moe", "tiny-mla"}) {
        for (const int tp : {1, 2, 4}) {
            Sent sent(model, tp);
            for (const Matrix& matrix : matrices(model)) {
                expect_found(sent, matrix, tp);
                expect_found(sent, scales_of(matrix), tp);
            }
        }
    }
}

}  // namespace
}  // namespace refit::harness_test
