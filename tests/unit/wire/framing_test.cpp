// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Boundaries against tests/golden/generate_framings.py, which states each original's rule apart,
// and against what the rules promise whatever the list is.
#include "wire/framing.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>
#include <set>
#include <sstream>

#include "core/error.hpp"
#include "wire/packing.hpp"
#include "wire/piece.hpp"

namespace refit::wire {
namespace {

const std::string kFolder = std::string(REFIT_SOURCE_DIR) + "/tests/golden/framings";

core::Shape shape_of(const std::string& text) {
    core::Shape shape;
    if (text == "-") return shape;
    std::istringstream parts(text);
    for (std::string one; std::getline(parts, one, 'x');) shape.push_back(std::stoll(one));
    return shape;
}

FramedTensor tensor_of(std::istringstream& fields) {
    FramedTensor tensor;
    std::string dtype;
    std::string shape;
    fields >> tensor.name >> dtype >> shape;
    tensor.dtype = core::from_safetensors_name(dtype).value();
    tensor.shape = shape_of(shape);
    tensor.layer = layer_in_name(tensor.name);
    return tensor;
}

/// What frame() gives, in the lines of the golden file.
std::vector<std::string> lines_of(const FramingRow& row, const std::vector<FramedTensor>& tensors,
                                  std::uint64_t buffer) {
    std::vector<std::string> lines;
    std::vector<FramedBucket> buckets;
    try {
        buckets = frame(row.framing, tensors, buffer);
    } catch (const core::ScenarioError& error) {
        const std::string text = error.what();
        const std::size_t from = text.find("Tensor '");
        // The original's sentence ends with a full stop where our own remedy follows.
        return {"error " + text.substr(from, text.find(';') - from) + "."};
    }
    for (const FramedBucket& bucket : buckets) {
        std::string line = "message " + std::to_string(bucket.bytes);
        for (const FramedRange& range : bucket.ranges) {
            EXPECT_EQ(range.bytes, tensors[range.tensor].bytes());
            line += " " + std::to_string(range.tensor) + "@" + std::to_string(range.offset);
        }
        lines.push_back(line);
    }
    for (const FramedBucket& bucket : buckets) {
        for (const FramedRange& range : bucket.ranges) {
            const std::string text =
                misaligned_view_text(tensors[range.tensor].dtype, range.offset);
            if (row.views_bytes && !text.empty())
                lines.push_back("view " + std::to_string(range.tensor) + " " + text);
        }
    }
    return lines;
}

class GoldenFraming : public testing::TestWithParam<std::string> {};

TEST_P(GoldenFraming, EndsEveryMessageWhereTheOriginalDoes) {
    std::ifstream file(kFolder + "/" + GetParam() + ".txt");
    ASSERT_TRUE(file) << GetParam();
    std::vector<FramedTensor> tensors;
    std::vector<std::string> expected;
    std::string name;
    std::uint64_t buffer = 0;
    std::size_t cases = 0;
    const auto compare = [&] {
        if (name.empty()) return;
        EXPECT_EQ(lines_of(find_framing(name), tensors, buffer), expected)
            << name << " with " << buffer;
        ++cases;
    };
    for (std::string line; std::getline(file, line);) {
        std::istringstream fields(line);
        std::string kind;
        fields >> kind;
        if (kind == "tensor") {
            tensors.push_back(tensor_of(fields));
        } else if (kind == "case") {
            compare();
            fields >> name >> buffer;
            expected.clear();
        } else {
            expected.push_back(line);
        }
    }
    compare();
    EXPECT_GE(cases, 25U);
}

std::vector<std::string> golden_lists() {
    std::vector<std::string> stems;
    for (const auto& entry : std::filesystem::directory_iterator(kFolder))
        stems.push_back(entry.path().stem().string());
    std::sort(stems.begin(), stems.end());
    return stems;
}

INSTANTIATE_TEST_SUITE_P(Lists, GoldenFraming, testing::ValuesIn(golden_lists()),
                         [](const auto& list) {
                             std::string name = list.param;
                             std::replace(name.begin(), name.end(), '-', '_');
                             return name;
                         });

std::vector<FramedTensor> random_list(std::mt19937& random) {
    const std::vector<core::DType> types = {core::DType::bf16, core::DType::f32,
                                            core::DType::f8_e4m3, core::DType::u8};
    std::vector<FramedTensor> tensors(random() % 40);
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        tensors[i].name = "t" + std::to_string(i);
        tensors[i].dtype = types[random() % types.size()];
        tensors[i].layer = static_cast<int>(random() % 4) - 1;
        tensors[i].shape = {static_cast<std::int64_t>(random() % 9 + 1),
                            static_cast<std::int64_t>(random() % 17 + 1)};
    }
    return tensors;
}

TEST(Framing, SendsEveryTensorOnceSideBySideWhateverTheListIs) {
    std::mt19937 random(11);
    for (int round = 0; round < 300; ++round) {
        const std::vector<FramedTensor> tensors = random_list(random);
        const std::uint64_t buffer = random() % 2000 + 700;
        for (const FramingRow& row : framing_catalog()) {
            if (row.framing == Framing::native) continue;
            std::multiset<std::size_t> seen;
            std::size_t last = 0;
            for (const FramedBucket& bucket : frame(row.framing, tensors, buffer)) {
                std::uint64_t at = 0;
                ASSERT_FALSE(bucket.ranges.empty());
                for (const FramedRange& range : bucket.ranges) {
                    EXPECT_EQ(range.offset, at);
                    at += range.bytes;
                    if (row.framing != Framing::prime_rl && !seen.empty()) {
                        EXPECT_EQ(range.tensor, last + 1);
                    }
                    last = range.tensor;
                    seen.insert(range.tensor);
                }
                EXPECT_EQ(bucket.bytes, at);
            }
            EXPECT_EQ(seen.size(), tensors.size());
            EXPECT_EQ(std::set<std::size_t>(seen.begin(), seen.end()).size(), tensors.size());
        }
    }
}

TEST(Framing, ExceedsTheBufferByItsLastTensorOnlyOrNotAtAll) {
    std::mt19937 random(12);
    for (int round = 0; round < 300; ++round) {
        const std::vector<FramedTensor> tensors = random_list(random);
        const std::uint64_t buffer = random() % 2000 + 700;
        const std::vector<FramedBucket> after = frame(Framing::vllm_packed, tensors, buffer);
        for (std::size_t b = 0; b < after.size(); ++b) {
            EXPECT_LE(after[b].bytes - after[b].ranges.back().bytes, buffer);
            if (b + 1 < after.size()) {
                EXPECT_GT(after[b].bytes, buffer);
            }
        }
        const std::vector<FramedBucket> before = frame(Framing::vllm_ipc, tensors, buffer);
        for (std::size_t b = 0; b < before.size(); ++b) {
            EXPECT_LE(before[b].bytes, buffer);
            if (b + 1 < before.size()) {
                EXPECT_GT(before[b].bytes + before[b + 1].ranges.front().bytes, buffer);
            }
        }
    }
}

TEST(Framing, GivesALargerTensorARequestOfItsOwnOnlyWhereTheSenderMay) {
    const std::vector<FramedTensor> tensors = {{"a", core::DType::u8, {10}, -1},
                                               {"b", core::DType::u8, {500}, -1},
                                               {"c", core::DType::u8, {10}, -1}};
    EXPECT_EQ(frame(Framing::sglang_bucket, tensors, 100).size(), 3U);
    EXPECT_THROW((void)frame(Framing::vllm_ipc, tensors, 100), core::ScenarioError);
    EXPECT_EQ(frame(Framing::vllm_packed, tensors, 100).size(), 2U);
    EXPECT_THROW((void)frame(Framing::native, tensors, 100), core::ShapeError);
    EXPECT_TRUE(frame(Framing::vllm_packed, {}, 100).empty());
}

TEST(Framing, TakesNemosBufferFromDeviceMemoryUpToFiveGibibytes) {
    // 0.02 in double precision times a size is what int() cuts in the original.
    EXPECT_EQ(nemo_buffer_bytes(std::uint64_t{80} << 30), 1717986918U);
    EXPECT_EQ(nemo_buffer_bytes(std::uint64_t{141} << 30), 3027951943U);
    EXPECT_EQ(nemo_buffer_bytes(std::uint64_t{1} << 40), std::uint64_t{5} << 30);
    EXPECT_EQ(nemo_buffer_bytes(0), 0U);
}

TEST(Framing, ReadsTheLayerInANameAndNothingThatLooksLikeOne) {
    EXPECT_EQ(layer_in_name("model.layers.0.mlp.up_proj.weight"), 0);
    EXPECT_EQ(layer_in_name("model.layers.61.enorm.weight"), 61);
    EXPECT_EQ(layer_in_name("model.embed_tokens.weight"), -1);
    EXPECT_EQ(layer_in_name("model.layers.x.weight"), -1);
    EXPECT_EQ(layer_in_name("model.layers.3"), -1);
}

TEST(Framing, NamesTheViewThatPyTorchRefuses) {
    EXPECT_EQ(misaligned_view_text(core::DType::f32, 9),
              "RuntimeError: self.storage_offset() must be divisible by 4 to view Byte as Float "
              "(different element sizes), but got 9");
    EXPECT_EQ(misaligned_view_text(core::DType::bf16, 9),
              "RuntimeError: self.storage_offset() must be divisible by 2 to view Byte as BFloat16 "
              "(different element sizes), but got 9");
    EXPECT_EQ(misaligned_view_text(core::DType::f32, 8), "");
    EXPECT_EQ(misaligned_view_text(core::DType::f8_e4m3, 9), "");
    EXPECT_EQ(scalar_view_text(core::DType::f32),
              "RuntimeError: self.dim() cannot be 0 to view Float as Byte (different element "
              "sizes)");
    EXPECT_EQ(scalar_view_text(core::DType::u8), "");
}

TEST(Framing, EveryRowOfTheCatalogueNamesItsSourceRuleAndHazard) {
    std::set<std::string> names;
    for (const FramingRow& row : framing_catalog()) {
        EXPECT_FALSE(row.source.empty() || row.rule.empty() || row.hazard.empty()) << row.name;
        EXPECT_TRUE(names.insert(row.name).second);
        EXPECT_EQ(&find_framing(row.name), &framing_row(row.framing));
    }
    EXPECT_EQ(names.size(), 6U);
    EXPECT_THROW((void)find_framing("vllm_packed"), core::UsageError);
}

PlannedParameter planned(const std::string& name, core::DType dtype, std::int64_t elements,
                         std::size_t trainers) {
    PlannedParameter parameter;
    parameter.meta.name = name;
    parameter.meta.dtype = dtype;
    parameter.meta.shape = {elements};
    parameter.meta.row_cuts = {0, elements / 2, elements};
    parameter.meta.col_cuts = {0, 1};
    parameter.regions_of_trainer.assign(trainers, core::Region{0, 0, elements, 1});
    return parameter;
}

TEST(FramedPieces, HoldTheBytesOfAMessageBehindHeaderAndDigests) {
    const std::vector<PlannedParameter> parameters = {planned("a", core::DType::u8, 9, 1),
                                                      planned("b", core::DType::f32, 6, 1),
                                                      planned("c", core::DType::bf16, 50, 1)};
    const RefitManifest manifest = pack_framed(parameters, Framing::vllm_packed, 32);
    ASSERT_EQ(manifest.buckets.size(), 2U);
    const PiecePlan& piece = manifest.buckets[0].pieces.at(0);
    // A header of 64 bytes and two digests for each of two tensors of two cells: 64 + 4 * 24.
    ASSERT_EQ(piece.entries.size(), 2U);
    EXPECT_EQ(piece.entries[0].offset, 192U);
    EXPECT_EQ(piece.entries[1].offset, 192U + 9U);
    EXPECT_EQ(piece.payload_bytes, 33U);
    EXPECT_EQ(piece.bytes, 256U);
    EXPECT_EQ(manifest.payload_bytes(), 9U + 24U + 100U);
    const RefitManifest again = manifest_from_json(to_json(manifest));
    EXPECT_EQ(to_json(again), to_json(manifest));
}

TEST(FramedPieces, RefuseASecondSender) {
    try {
        (void)pack_framed({planned("a", core::DType::u8, 9, 2)}, Framing::vllm_ipc, 32);
        FAIL() << "two senders were accepted";
    } catch (const core::ScenarioError& error) {
        EXPECT_NE(std::string(error.what()).find("trainer.ranks"), std::string::npos);
        EXPECT_NE(std::string(error.what()).find("vllm-ipc"), std::string::npos);
    }
}

}  // namespace
}  // namespace refit::wire
