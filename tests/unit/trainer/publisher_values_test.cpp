// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// However many trainers share a tensor and wherever their shards end, the codes and scales on the
// wire are those of the whole matrix.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "publication.hpp"
#include "quant/recipe.hpp"

namespace refit::trainer_test {
namespace {

const std::string kName = "model.layers.0.mlp.up_proj.weight";

std::string scale_name(const quant::Recipe& recipe) {
    return "model.layers.0.mlp.up_proj." + recipe.scale_suffix;
}

Publication publish_matrix(const quant::Recipe& recipe, const std::vector<std::uint16_t>& values,
                           std::int64_t rows, std::int64_t cols,
                           const parallel::RowSharding& sharding,
                           const std::string& backend = "portable",
                           trainer::Nonfinite nonfinite = trainer::Nonfinite::reject) {
    const model::TensorSpec tensor = matrix(kName, rows, cols);
    FixedWeights source;
    source.set(kName, values);
    wire::WantedList wanted;
    want(wanted, tensor, &recipe);
    trainer::Payload payload;
    payload.scheme = recipe.scheme;
    payload.recipe = &recipe;
    payload.nonfinite = nonfinite;
    return publish({tensor}, wanted, payload, sharding, {}, source, backend);
}

void expect_each_element_once(const Publication& publication) {
    for (const auto& [name, counts] : publication.count) {
        EXPECT_TRUE(std::all_of(counts.begin(), counts.end(), [](int n) { return n == 1; }))
            << name;
    }
}

std::vector<parallel::RowSharding> shardings() {
    std::vector<parallel::RowSharding> all;
    for (const std::int64_t multiple : {std::int64_t{128}, std::int64_t{1}}) {
        for (const int ranks : {1, 2, 3}) all.push_back({ranks, multiple, {}});
        all.push_back({2, multiple, {0.3, 0.7}});
        all.push_back({3, multiple, {0.55, 0.0, 0.45}});
        all.push_back({3, multiple, {0.0, 0.02, 0.98}});
    }
    return all;
}

std::string describe(const parallel::RowSharding& sharding) {
    std::string text = std::to_string(sharding.ranks) + " trainers, multiples of " +
                       std::to_string(sharding.multiple);
    for (const double share : sharding.shares) text += " " + std::to_string(share);
    return text;
}

class PublishedValues : public ::testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(Recipes, PublishedValues,
                         ::testing::Values("prime-rl-blockwise", "nemo-rl-linear", "nemo-rl-pow2",
                                           "prime-rl-channelwise", "modelopt-pc-pt",
                                           "modelopt-pb-wo", "deepgemm-ue8m0", "tensorwise"),
                         [](const ::testing::TestParamInfo<std::string>& recipe) {
                             std::string name = recipe.param;
                             std::replace(name.begin(), name.end(), '-', '_');
                             return name;
                         });

TEST_P(PublishedValues, EqualTheWholeMatrixForRaggedShapesAndAnyShards) {
    const quant::Recipe& recipe = quant::find_recipe(GetParam());
    std::uint32_t seed = 1;
    for (const std::int64_t rows : {1, 127, 128, 129, 255, 257}) {
        for (const std::int64_t cols : {1, 127, 128, 129, 255, 257}) {
            std::vector<std::uint16_t> values = random_values(rows * cols, ++seed);
            // A large last element decides every ragged tile of the recipes that pad with it.
            values.back() = bf16(3.0F);
            const Whole whole = quantize_whole(recipe, values, rows, cols);
            for (const parallel::RowSharding& sharding : shardings()) {
                SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(cols) + ", " +
                             describe(sharding));
                const Publication sent = publish_matrix(recipe, values, rows, cols, sharding);
                expect_each_element_once(sent);
                ASSERT_EQ(sent.bytes.at(kName), whole.codes);
                ASSERT_EQ(bits_of(sent.scales(scale_name(recipe))), bits_of(whole.scales));
                EXPECT_GT(sent.digests, 0U);
                EXPECT_FALSE(sent.any_aborted());
            }
        }
    }
}

TEST_P(PublishedValues, AreTheSameOnTheFastestBackend) {
    const quant::Recipe& recipe = quant::find_recipe(GetParam());
    const std::vector<std::uint16_t> values = random_values(257 * 200, 99);
    const Whole whole = quantize_whole(recipe, values, 257, 200);
    const Publication sent = publish_matrix(recipe, values, 257, 200, {3, 1, {}}, "auto");
    EXPECT_EQ(sent.bytes.at(kName), whole.codes);
    EXPECT_EQ(bits_of(sent.scales(scale_name(recipe))), bits_of(whole.scales));
}

TEST(PublishedValuesOfOneTile, DependOnTheExchange) {
    // The planted fault of these comparisons: were the amax of a cut tile not exchanged, the first
    // trainer's codes would be those of its own small rows.
    const quant::Recipe& recipe = quant::find_recipe("prime-rl-blockwise");
    std::vector<std::uint16_t> values = random_values(100 * 8, 5);
    values.back() = bf16(100.0F);
    const Whole whole = quantize_whole(recipe, values, 100, 8);
    const std::vector<std::uint16_t> first_half(values.begin(), values.begin() + 50 * 8);
    const Whole alone = quantize_whole(recipe, first_half, 50, 8);
    EXPECT_FALSE(std::equal(alone.codes.begin(), alone.codes.end(), whole.codes.begin()));
    const Publication sent = publish_matrix(recipe, values, 100, 8, {2, 1, {}});
    EXPECT_EQ(sent.bytes.at(kName), whole.codes);
}

TEST(PublishedValuesOfATallTensor, CallProgressOnceAStripeAtLeast) {
    const quant::Recipe& recipe = quant::find_recipe("tensorwise");
    const Publication sent =
        publish_matrix(recipe, random_values(1280 * 4, 5), 1280, 4, {1, 128, {}});
    EXPECT_GE(sent.progress_calls, 10U);
}

// --- golden files: computed by numpy and ml_dtypes
// ------------------------------------------------

struct Golden {
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    std::vector<std::uint16_t> values;
    std::vector<std::uint32_t> scale_bits;
    std::vector<std::byte> codes;
};

std::vector<std::string> lines_of(const std::string& file) {
    std::ifstream in(REFIT_SOURCE_DIR "/tests/golden/recipes/" + file);
    std::vector<std::string> lines;
    for (std::string line; std::getline(in, line);) {
        if (!line.starts_with('#') && !line.starts_with("recipe ")) lines.push_back(line);
    }
    return lines;
}

template <typename T>
void append(const std::string& line, std::size_t digits, std::vector<T>& values) {
    for (std::size_t i = 0; i + digits <= line.size(); i += digits) {
        values.push_back(static_cast<T>(std::stoul(line.substr(i, digits), nullptr, 16)));
    }
}

std::map<std::string, Golden> golden_cases(const std::string& recipe) {
    std::map<std::string, Golden> cases;
    Golden* current = nullptr;
    for (const std::string& line : lines_of("inputs.hex")) {
        if (line.starts_with("case ")) {
            std::istringstream words(line.substr(5));
            std::string name;
            std::int64_t rows = 0;
            std::int64_t cols = 0;
            words >> name >> rows >> cols;
            current = &cases[name];
            current->rows = rows;
            current->cols = cols;
        } else {
            append(line, 4, current->values);
        }
    }
    bool scales_next = false;
    for (const std::string& line : lines_of(recipe + ".hex")) {
        if (line.starts_with("case ")) {
            std::istringstream words(line.substr(5));
            std::string name;
            words >> name;
            current = &cases.at(name);
            scales_next = true;
        } else if (scales_next) {
            append(line, 8, current->scale_bits);
            scales_next = false;
        } else {
            append(line, 2, current->codes);
        }
    }
    return cases;
}

TEST_P(PublishedValues, EqualTheGoldenFilesForShardsThatCutTiles) {
    const quant::Recipe& recipe = quant::find_recipe(GetParam());
    const std::map<std::string, Golden> cases = golden_cases(recipe.name);
    ASSERT_GE(cases.size(), 20U);
    for (const auto& [name, golden] : cases) {
        for (const int trainers : {1, 2, 3}) {
            SCOPED_TRACE(name + ", " + std::to_string(trainers) + " trainers");
            ASSERT_FALSE(golden.codes.empty());
            // `recipe` leaves non-finite values to the recipe, as the golden files do.
            const Publication sent =
                publish_matrix(recipe, golden.values, golden.rows, golden.cols, {trainers, 1, {}},
                               "portable", trainer::Nonfinite::recipe);
            expect_each_element_once(sent);
            EXPECT_EQ(sent.bytes.at(kName), golden.codes);
            const std::vector<float> scales = sent.scales(scale_name(recipe));
            ASSERT_EQ(scales.size(), golden.scale_bits.size());
            for (std::size_t i = 0; i < scales.size(); ++i) {
                const std::uint32_t bits = bits_of({scales[i]}).front();
                const bool both_nan =
                    std::isnan(scales[i]) && (golden.scale_bits[i] & 0x7fffffffU) > 0x7f800000U;
                EXPECT_TRUE(both_nan || bits == golden.scale_bits[i]) << "scale " << i;
            }
        }
    }
}

// --- whole refits
// ---------------------------------------------------------------------------------

TEST(PublishedRefit, SendsRawTensorsAsTheyAreAlsoInManyBuckets) {
    std::vector<model::TensorSpec> tensors = {matrix("model.embed_tokens.weight", 301, 17),
                                              matrix("model.norm.weight", 40, 1)};
    tensors[0].role = model::Role::embedding;
    tensors[1].role = model::Role::norm;
    tensors[1].shape = {40};
    FixedWeights source;
    wire::WantedList wanted;
    std::uint32_t seed = 0;
    for (const model::TensorSpec& tensor : tensors) {
        source.set(tensor.name, random_values(core::element_count(tensor.shape), ++seed));
        want(wanted, tensor, nullptr);
    }
    trainer::Payload payload;
    payload.bucket_bytes = 1000;
    for (const parallel::RowSharding& sharding : shardings()) {
        SCOPED_TRACE(describe(sharding));
        const Publication sent = publish(tensors, wanted, payload, sharding, {}, source);
        EXPECT_GE(sent.plan.manifest.buckets.size(), 10U);
        expect_each_element_once(sent);
        for (const model::TensorSpec& tensor : tensors) {
            const std::vector<std::uint16_t>& values = source.values(tensor.name);
            const auto bytes = std::as_bytes(std::span(values));
            EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), sent.bytes.at(tensor.name).begin(),
                                   sent.bytes.at(tensor.name).end()));
        }
    }
}

TEST(PublishedRefit, KeepsSeveralCutTensorsOfOneBucketApart) {
    const quant::Recipe& recipe = quant::find_recipe("nemo-rl-linear");
    std::vector<model::TensorSpec> tensors;
    FixedWeights source;
    wire::WantedList wanted;
    const std::int64_t shapes[][2] = {{200, 130}, {129, 64}, {384, 257}, {50, 300}};
    for (std::uint32_t i = 0; i < 4; ++i) {
        const std::string name = "model.layers." + std::to_string(i) + ".mlp.up_proj.weight";
        tensors.push_back(matrix(name, shapes[i][0], shapes[i][1]));
        source.set(name, random_values(shapes[i][0] * shapes[i][1], 70 + i));
        want(wanted, tensors.back(), &recipe);
    }
    trainer::Payload payload;
    payload.scheme = recipe.scheme;
    payload.recipe = &recipe;
    for (const std::uint64_t bucket_bytes : {std::uint64_t{1} << 20, std::uint64_t{40'000}}) {
        payload.bucket_bytes = bucket_bytes;
        for (const parallel::RowSharding& sharding : shardings()) {
            SCOPED_TRACE(describe(sharding));
            const Publication sent = publish(tensors, wanted, payload, sharding, {}, source);
            for (const model::TensorSpec& tensor : tensors) {
                const Whole whole = quantize_whole(recipe, source.values(tensor.name),
                                                   tensor.shape[0], tensor.shape[1]);
                EXPECT_EQ(sent.bytes.at(tensor.name), whole.codes) << tensor.name;
                EXPECT_EQ(bits_of(sent.scales(tensor.name + "_scale_inv")), bits_of(whole.scales))
                    << tensor.name;
            }
        }
    }
}

}  // namespace
}  // namespace refit::trainer_test
