// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The bytes on the wire do not depend on the trainers' layout: for every recipe, layout and number
// of ranks they are those of the whole matrix, quantized in one call.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "publication.hpp"
#include "quant/recipe.hpp"
#include "trainer/bucket_source.hpp"

namespace refit::trainer_test {
namespace {

using model::Role;

constexpr std::int64_t kHidden = 200;  // no multiple of a block
constexpr std::int64_t kInner = 268;   // 4 ranks cut it in 67: inside blocks and MX groups
constexpr std::int64_t kHeads = 4;
constexpr std::int64_t kKvHeads = 2;
constexpr std::int64_t kHeadDim = 36;
constexpr std::int64_t kExperts = 3;

/// One attention block, a dense MLP, three experts; ragged against every tile.
struct SmallModel {
    std::vector<model::TensorSpec> tensors;
    FixedWeights source;
    wire::WantedList wanted;
    trainer::Payload payload;

    explicit SmallModel(const quant::Recipe* recipe) {
        payload.recipe = recipe;
        if (recipe != nullptr) payload.scheme = recipe->scheme;
        payload.bucket_bytes = 60'000;
        const std::string attention = "model.layers.0.self_attn.";
        add("model.embed_tokens.weight", {96, kHidden}, Role::embedding);
        add("model.layers.0.input_layernorm.weight", {kHidden}, Role::norm);
        add(attention + "q_proj.weight", {kHeads * kHeadDim, kHidden}, Role::q_proj);
        add(attention + "q_proj.bias", {kHeads * kHeadDim}, Role::bias);
        add(attention + "k_proj.weight", {kKvHeads * kHeadDim, kHidden}, Role::k_proj);
        add(attention + "k_proj.bias", {kKvHeads * kHeadDim}, Role::bias);
        add(attention + "v_proj.weight", {kKvHeads * kHeadDim, kHidden}, Role::v_proj);
        add(attention + "o_proj.weight", {kHidden, kHeads * kHeadDim}, Role::o_proj);
        add(attention + "o_proj.bias", {kHidden}, Role::bias);
        add_mlp("model.layers.0.mlp.", -1);
        add("model.layers.1.mlp.gate.weight", {kExperts, kHidden}, Role::router);
        for (int e = 0; e < kExperts; ++e)
            add_mlp("model.layers.1.mlp.experts." + std::to_string(e) + ".", e);
        add("lm_head.weight", {96, kHidden}, Role::head);
    }

    void add_mlp(const std::string& prefix, int expert) {
        add(prefix + "gate_proj.weight", {kInner, kHidden}, Role::gate_proj, expert);
        add(prefix + "up_proj.weight", {kInner, kHidden}, Role::up_proj, expert);
        add(prefix + "down_proj.weight", {kHidden, kInner}, Role::down_proj, expert);
    }

    void add(const std::string& name, const core::Shape& shape, Role role, int expert = -1) {
        model::TensorSpec tensor;
        tensor.name = name;
        tensor.shape = shape;
        tensor.role = role;
        tensor.expert = expert;
        const auto seed = static_cast<std::uint32_t>(tensors.size() + 1);
        std::vector<std::uint16_t> values = random_values(core::element_count(shape), seed);
        // A large last element decides every ragged tile of the recipes that pad with it.
        values.back() = bf16(2.0F);
        source.set(name, values);
        const bool quantized = payload.recipe != nullptr && name.ends_with("_proj.weight");
        want(wanted, tensor, quantized ? payload.recipe : nullptr);
        tensors.push_back(std::move(tensor));
    }

    [[nodiscard]] Publication publish_with(const parallel::Sharding& sharding,
                                           const std::string& backend = "auto",
                                           bool per_bucket = false) const {
        return publish(tensors, wanted, payload, sharding, {}, source, backend, per_bucket);
    }
};

parallel::Sharding layout(parallel::Layout kind, int ranks, std::int64_t multiple = 128) {
    parallel::Sharding sharding(parallel::RowSharding{ranks, multiple, {}});
    sharding.layout = kind;
    sharding.heads = kHeads;
    sharding.kv_heads = kKvHeads;
    sharding.experts = kExperts;
    return sharding;
}

std::vector<parallel::Sharding> all_layouts() {
    using parallel::Layout;
    std::vector<parallel::Sharding> all;
    for (const std::int64_t multiple : {std::int64_t{128}, std::int64_t{1}}) {
        for (const int ranks : {1, 2, 3}) all.push_back(layout(Layout::fsdp, ranks, multiple));
    }
    for (const int ranks : {1, 2, 4}) all.push_back(layout(Layout::tp, ranks));
    for (const int ranks : {2, 3, 5}) all.push_back(layout(Layout::ep, ranks));
    all.push_back(layout(Layout::ep, 2, 1));
    return all;
}

std::string describe(const parallel::Sharding& sharding) {
    const char* names[] = {"fsdp", "tp", "ep"};
    return std::string(names[static_cast<int>(sharding.layout)]) + " on " +
           std::to_string(sharding.rows.ranks) + ", multiples of " +
           std::to_string(sharding.rows.multiple);
}

/// The bytes of scales in the type that the wire announces.
std::vector<std::byte> stored(const std::vector<float>& scales, core::DType dtype) {
    std::vector<std::byte> bytes;
    for (const float scale : scales) {
        const auto bits = std::bit_cast<std::uint32_t>(scale);
        std::uint32_t kept = bits;
        if (dtype == core::DType::bf16) kept = bits >> 16;
        if (dtype == core::DType::u8) kept = (bits & 0x7fffffffU) > 0x7f800000U ? 255U : bits >> 23;
        const auto* from = reinterpret_cast<const std::byte*>(&kept);
        bytes.insert(bytes.end(), from, from + core::size_bytes(dtype));
    }
    return bytes;
}

/// What every layout must send.
std::map<std::string, std::vector<std::byte>> expected_of(const SmallModel& model,
                                                          const wire::RefitManifest& manifest) {
    std::map<std::string, std::vector<std::byte>> expected;
    for (const wire::ParameterMeta& meta : manifest.parameters) {
        if (meta.kind == wire::ParameterKind::scale) continue;
        const std::vector<std::uint16_t>& values = model.source.values(meta.name);
        if (meta.kind == wire::ParameterKind::raw) {
            const auto bytes = std::as_bytes(std::span(values));
            expected[meta.name].assign(bytes.begin(), bytes.end());
            continue;
        }
        const Whole whole = quantize_whole(*model.payload.recipe, values, meta.rows(), meta.cols());
        expected[meta.name] = whole.codes;
        for (const wire::ParameterMeta& scale : manifest.parameters) {
            if (scale.scale_of == meta.name)
                expected[scale.name] = stored(whole.scales, scale.dtype);
        }
    }
    return expected;
}

std::string test_name(std::string name) {
    std::replace_if(
        name.begin(), name.end(), [](char c) { return c == '-' || c == '.'; }, '_');
    return name;
}

class EveryRecipe : public ::testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(Catalogue, EveryRecipe, ::testing::ValuesIn(quant::recipe_names()),
                         [](const auto& recipe) { return test_name(recipe.param); });

TEST_P(EveryRecipe, SendsTheSameBytesOnEveryLayoutAndNumberOfRanks) {
    const SmallModel model(&quant::find_recipe(GetParam()));
    std::map<std::string, std::vector<std::byte>> expected;
    for (const parallel::Sharding& sharding : all_layouts()) {
        for (const bool per_bucket : {false, true}) {
            if (per_bucket && sharding.rows.ranks != 2) continue;
            SCOPED_TRACE(describe(sharding) + (per_bucket ? ", read by bucket" : ", resident"));
            const Publication sent = model.publish_with(sharding, "auto", per_bucket);
            EXPECT_FALSE(sent.any_aborted());
            if (expected.empty()) expected = expected_of(model, sent.plan.manifest);
            ASSERT_EQ(expected.size(), sent.bytes.size());
            for (const auto& [name, bytes] : expected) {
                EXPECT_EQ(sent.bytes.at(name), bytes) << name;
                const std::vector<int>& counts = sent.count.at(name);
                EXPECT_TRUE(std::all_of(counts.begin(), counts.end(), [](int n) { return n == 1; }))
                    << name << ": an element is not sent exactly once";
            }
        }
    }
}

TEST(EveryLayout, SendsRawTensorsAsTheyAre) {
    const SmallModel model(nullptr);
    for (const parallel::Sharding& sharding : all_layouts()) {
        SCOPED_TRACE(describe(sharding));
        const Publication sent = model.publish_with(sharding, "auto", true);
        EXPECT_GE(sent.plan.manifest.buckets.size(), 5U);
        for (const auto& [name, bytes] : expected_of(model, sent.plan.manifest))
            EXPECT_EQ(sent.bytes.at(name), bytes) << name;
    }
}

TEST(TensorParallelPlan, ExchangesWholeGridsOnlyWhereAColumnBoundaryCutsATile) {
    const SmallModel blocks(&quant::find_recipe("prime-rl-blockwise"));
    const trainer::RefitPlan cut = trainer::make_plan(blocks.tensors, blocks.wanted, blocks.payload,
                                                      layout(parallel::Layout::tp, 2), {});
    std::set<std::string> exchanged;
    for (const auto& bucket : cut.shared) {
        for (const trainer::SharedTiles& shared : bucket) {
            const wire::ParameterMeta& meta = cut.manifest.parameters[shared.parameter];
            exchanged.insert(meta.name);
            if (meta.name.ends_with("down_proj.weight")) {
                EXPECT_EQ(shared.grid_rows, (std::vector<std::int64_t>{0, 1})) << meta.name;
            }
        }
    }
    // 268 / 2 = 134 columns of down_proj, 144 / 2 = 72 of o_proj, 134 rows of gate and up, 72 rows
    // of q: all cut a block; k and v have 72 rows in all.
    EXPECT_EQ(exchanged.size(), 3U + 1U + 3U * kExperts + 3U);

    // Were the amax of a cut tile not exchanged, the bytes would differ.
    Publication alone;
    SmallModel model(&quant::find_recipe("prime-rl-blockwise"));
    const std::string name = "model.layers.0.mlp.down_proj.weight";
    std::vector<std::uint16_t> values = model.source.values(name);
    values[0] = bf16(50.0F);    // in tile (0, 0), held by rank 0; columns 134 to 255 are tile 1
    values[140] = bf16(60.0F);  // in tile (0, 1), which both ranks hold
    model.source.set(name, values);
    const Publication sent = model.publish_with(layout(parallel::Layout::tp, 2));
    const Whole whole = quantize_whole(*model.payload.recipe, values, kHidden, kInner);
    EXPECT_EQ(sent.bytes.at(name), whole.codes);
    values[140] = 0;
    const Whole without = quantize_whole(*model.payload.recipe, values, kHidden, kInner);
    // Columns 128 to 133 are rank 0's part of that tile.
    EXPECT_NE(without.codes[130], whole.codes[130]);
}

TEST(TensorParallelPlan, RefusesSizesThatDoNotDivideAndNamesTensorAndRemedy) {
    const SmallModel model(nullptr);
    try {
        (void)trainer::make_plan(model.tensors, model.wanted, model.payload,
                                 layout(parallel::Layout::tp, 3), {});
        FAIL() << "no error";
    } catch (const core::ScenarioError& error) {
        const std::string text = error.what();
        EXPECT_NE(text.find("q_proj.weight"), std::string::npos) << text;
        EXPECT_NE(text.find("4 heads"), std::string::npos) << text;
        EXPECT_NE(text.find("trainer.layout=fsdp"), std::string::npos) << text;
    }
}

TEST(TensorParallelPlan, SwapsOnlyTensorsThatTheSameTrainersHold) {
    const SmallModel model(nullptr);
    trainer::TrainerFaults faults;
    faults.swap_tensors = "*experts*gate_proj.weight";
    // Experts 0 and 1 are on rank 0 of 2; the third is alone on rank 1.
    const trainer::RefitPlan plan = trainer::make_plan(model.tensors, model.wanted, model.payload,
                                                       layout(parallel::Layout::ep, 2), faults);
    const auto tensor_of = [&](const std::string& name) {
        return model
            .tensors[plan.productions[static_cast<std::size_t>(plan.manifest.find(name))].tensor]
            .name;
    };
    EXPECT_EQ(tensor_of("model.layers.1.mlp.experts.0.gate_proj.weight"),
              "model.layers.1.mlp.experts.1.gate_proj.weight");
    EXPECT_EQ(tensor_of("model.layers.1.mlp.experts.2.gate_proj.weight"),
              "model.layers.1.mlp.experts.2.gate_proj.weight");
}

TEST(BucketSource, HoldsOneBucketAndRefusesValuesOfAnother) {
    const SmallModel model(&quant::find_recipe("prime-rl-blockwise"));
    const trainer::RefitPlan plan = trainer::make_plan(model.tensors, model.wanted, model.payload,
                                                       layout(parallel::Layout::fsdp, 2), {});
    ASSERT_GE(plan.manifest.buckets.size(), 3U);
    trainer::BucketSource source(model.tensors, plan, 0, model.source);
    std::uint64_t all = 0;
    for (const model::TensorSpec& tensor : model.tensors)
        all += static_cast<std::uint64_t>(2 * core::element_count(tensor.shape));
    EXPECT_LT(source.size_bytes(), all / 4);
    EXPECT_THROW((void)source.values(0, {0, 0, 1, 1}), core::ShapeError);
    int calls = 0;
    source.read(0, [&] { ++calls; });
    EXPECT_GT(calls, 0);
    EXPECT_EQ(source.values(0, {0, 0, 1, kHidden}).data[3],
              model.source.values("model.embed_tokens.weight")[3]);
    source.read(plan.manifest.buckets.size() - 1, [] {});
    EXPECT_THROW((void)source.values(0, {0, 0, 1, 1}), core::ShapeError);
}

}  // namespace
}  // namespace refit::trainer_test
