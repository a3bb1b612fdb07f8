// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/loaded_digest.hpp"

#include <gtest/gtest.h>

#include <span>
#include <string>
#include <vector>

#include "small_run.hpp"
#include "wire/checksum.hpp"

namespace refit::harness_test {
namespace {

TEST(LoadedDigests, AreThoseOfTheTrainersBytesInBf16) {
    for (const int tp : {1, 2, 4}) {
        const harness::Case c = small_case("vllm-bf16", "bf16", 2, tp);
        const SmallRun run = run_small(c);
        const harness::CaseSetup setup = harness::set_up_case(c);
        const auto source = harness::open_weights(c, setup.tensors);
        EXPECT_EQ(run.digests.size(), setup.tensors.size());
        for (const model::TensorSpec& tensor : setup.tensors) {
            std::vector<std::uint16_t> values(
                static_cast<std::size_t>(core::element_count(tensor.shape)));
            const std::int64_t cols = core::matrix_cols(tensor.shape);
            source->read(tensor, {0, 0, core::matrix_rows(tensor.shape), cols}, values.data(),
                         cols);
            EXPECT_EQ(run.digests.at(tensor.name),
                      wire::to_string(wire::digest_of(std::as_bytes(std::span(values)))))
                << tensor.name << " at TP " << tp;
        }
    }
}

TEST(LoadedDigests, AreTheSameForEveryNumberOfTrainersAndTpSize) {
    const auto digests = run_small(small_case("vllm-fp8", "fp8_blockwise", 1, 1)).digests;
    EXPECT_GT(digests.size(), 8U);
    for (const int trainers : {1, 2, 3}) {
        for (const int tp : {1, 2, 4}) {
            const SmallRun run = run_small(small_case("vllm-fp8", "fp8_blockwise", trainers, tp));
            EXPECT_EQ(run.digests, digests) << trainers << " trainers, TP " << tp;
        }
    }
}

TEST(LoadedDigests, SeeOneChangedTensorAndNoOther) {
    harness::Case c = small_case("vllm-fp8", "fp8_blockwise");
    const auto before = run_small(c).digests;
    weights::Plant plant;
    plant.tensor = "model.layers.0.self_attn.o_proj.weight";
    plant.kind = weights::PlantKind::zero;
    plant.row = 511;
    plant.col = 511;
    c.plants = {plant};
    const auto after = run_small(c).digests;
    ASSERT_EQ(after.size(), before.size());
    for (const auto& [name, digest] : before) {
        EXPECT_EQ(after.at(name) != digest, name == plant.tensor) << name;
    }
}

}  // namespace
}  // namespace refit::harness_test
