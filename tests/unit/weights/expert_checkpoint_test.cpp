// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Experts one by one and stacked, and layers for multi-token prediction, in files made byte by
// byte.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>

#include "core/error.hpp"
#include "model/model_catalog.hpp"
#include "unit/weights/checkpoint_bytes.hpp"
#include "weights/safetensors_weights.hpp"

namespace refit::weights {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::ThrowsMessage;

constexpr std::int64_t kExperts = 3;
constexpr std::int64_t kIntermediate = 2;
constexpr std::int64_t kHidden = 5;
const std::string kStem = "model.layers.0.mlp.experts.";

/// A value of its own for each element: gate 0, up 1 or down 2 of an expert.
std::uint16_t value_of(std::int64_t expert, int which, std::int64_t row, std::int64_t col) {
    return static_cast<std::uint16_t>(expert * 1000 + which * 100 + row * 10 + col);
}

std::vector<model::TensorSpec> expert_tensors() {
    std::vector<model::TensorSpec> tensors;
    for (int expert = 0; expert < kExperts; ++expert) {
        const std::string at = kStem + std::to_string(expert) + ".";
        const auto add = [&](const char* name, core::Shape shape, model::Role role) {
            tensors.push_back({at + name, std::move(shape), core::DType::bf16, role, 0, expert});
        };
        add("gate_proj.weight", {kIntermediate, kHidden}, model::Role::gate_proj);
        add("up_proj.weight", {kIntermediate, kHidden}, model::Role::up_proj);
        add("down_proj.weight", {kHidden, kIntermediate}, model::Role::down_proj);
    }
    return tensors;
}

struct Stored {
    core::Shape shape;
    std::vector<std::uint16_t> values;
    std::string dtype = "BF16";
};
using Contents = std::map<std::string, Stored>;

/// Elements [rows, cols] of one projection of one expert behind `stored`.
void append(Stored& stored, std::int64_t expert, int which, std::int64_t rows, std::int64_t cols) {
    for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t c = 0; c < cols; ++c) {
            stored.values.push_back(value_of(expert, which, r, c));
        }
    }
}

Contents one_by_one() {
    Contents contents;
    for (std::int64_t expert = 0; expert < kExperts; ++expert) {
        const std::string at = kStem + std::to_string(expert) + ".";
        contents[at + "gate_proj.weight"].shape = {kIntermediate, kHidden};
        append(contents[at + "gate_proj.weight"], expert, 0, kIntermediate, kHidden);
        contents[at + "up_proj.weight"].shape = {kIntermediate, kHidden};
        append(contents[at + "up_proj.weight"], expert, 1, kIntermediate, kHidden);
        contents[at + "down_proj.weight"].shape = {kHidden, kIntermediate};
        append(contents[at + "down_proj.weight"], expert, 2, kHidden, kIntermediate);
    }
    return contents;
}

Contents stacked() {
    Contents contents;
    Stored& gate_up = contents[kStem + "gate_up_proj"];
    Stored& down = contents[kStem + "down_proj"];
    gate_up.shape = {kExperts, 2 * kIntermediate, kHidden};
    down.shape = {kExperts, kHidden, kIntermediate};
    for (std::int64_t expert = 0; expert < kExperts; ++expert) {
        append(gate_up, expert, 0, kIntermediate, kHidden);
        append(gate_up, expert, 1, kIntermediate, kHidden);
        append(down, expert, 2, kHidden, kIntermediate);
    }
    return contents;
}

class ExpertCheckpoint : public ScratchFolder {
 protected:
    void write_checkpoint(const Contents& contents) {
        std::string header;
        std::string data;
        for (const auto& [name, stored] : contents) {
            std::string shape;
            for (const std::int64_t extent : stored.shape) {
                shape += (shape.empty() ? "" : ",") + std::to_string(extent);
            }
            header += (header.empty() ? "{\"" : ",\"") + name + R"(":{"dtype":")" + stored.dtype +
                      R"(","shape":[)" + shape + R"(],"data_offsets":[)" +
                      std::to_string(data.size()) + ",";
            for (const std::uint16_t value : stored.values) {
                data += static_cast<char>(value & 0xFF);
                data += static_cast<char>(value >> 8);
            }
            header += std::to_string(data.size()) + "]}";
        }
        write("model.safetensors", safetensors_bytes(header + "}", data));
    }

    core::Findings findings_of(const Contents& contents) {
        write_checkpoint(contents);
        return check_checkpoint(folder_, expert_tensors());
    }

    void expect_values() {
        const std::vector<model::TensorSpec> tensors = expert_tensors();
        const auto weights = make_safetensors_weights(folder_, tensors);
        for (const model::TensorSpec& tensor : tensors) {
            const int which = tensor.role == model::Role::gate_proj ? 0
                              : tensor.role == model::Role::up_proj ? 1
                                                                    : 2;
            // Everything but the first row and column.
            const core::Region region{1, 1, tensor.shape[0] - 1, tensor.shape[1] - 1};
            std::vector<std::uint16_t> out(static_cast<std::size_t>(region.rows * region.cols));
            weights->read(tensor, region, out.data(), region.cols);
            for (std::int64_t r = 0; r < region.rows; ++r) {
                for (std::int64_t c = 0; c < region.cols; ++c) {
                    ASSERT_EQ(out[static_cast<std::size_t>(r * region.cols + c)],
                              value_of(tensor.expert, which, r + 1, c + 1))
                        << tensor.name << " " << r << " " << c;
                }
            }
            std::uint16_t first = 0;
            weights->read(tensor, {0, 0, 1, 1}, &first, 1);
            EXPECT_EQ(first, value_of(tensor.expert, which, 0, 0)) << tensor.name;
            EXPECT_THROW(weights->read(tensor, {1, 0, tensor.shape[0], 1}, out.data(), 1),
                         core::ShapeError)
                << "the next expert's rows are not this one's";
        }
    }
};

TEST_F(ExpertCheckpoint, ReadsExpertsThatAreStoredOneByOne) {
    EXPECT_THAT(findings_of(one_by_one()), IsEmpty());
    expect_values();
}

TEST_F(ExpertCheckpoint, ReadsStackedExpertsAsIfOneByOne) {
    EXPECT_THAT(findings_of(stacked()), IsEmpty());
    expect_values();
}

TEST_F(ExpertCheckpoint, TakesOneProjectionStackedAndTheOthersNot) {
    Contents contents = one_by_one();
    std::erase_if(contents, [](const auto& entry) {
        return entry.first.find("down_proj") != std::string::npos;
    });
    contents.insert(*stacked().find(kStem + "down_proj"));
    EXPECT_THAT(findings_of(contents), IsEmpty());
    expect_values();
}

TEST_F(ExpertCheckpoint, NamesAMissingExpert) {
    Contents contents = one_by_one();
    contents.erase(kStem + "1.up_proj.weight");
    const core::Findings findings = findings_of(contents);
    ASSERT_EQ(findings.size(), 1U);
    EXPECT_EQ(findings[0].check, "names");
    EXPECT_EQ(findings[0].tensor, kStem + "1.up_proj.weight");
    EXPECT_EQ(findings[0].measured, "missing");
    EXPECT_THAT(findings[0].limit,
                AllOf(HasSubstr("[2, 5]"), HasSubstr("'" + kStem + "gate_up_proj'")));
    EXPECT_THAT([&] { (void)make_safetensors_weights(folder_, expert_tensors()); },
                ThrowsMessage<core::FileError>(
                    AllOf(HasSubstr(folder_.string()), HasSubstr("1.up_proj.weight' is missing"))));
}

TEST_F(ExpertCheckpoint, NamesAnExpertOfAnotherShape) {
    Contents contents = one_by_one();
    contents[kStem + "2.down_proj.weight"].shape = {kIntermediate, kHidden};
    const core::Findings findings = findings_of(contents);
    ASSERT_EQ(findings.size(), 1U);
    EXPECT_EQ(findings[0].check, "shape_contract");
    EXPECT_EQ(findings[0].tensor, kStem + "2.down_proj.weight");
    EXPECT_EQ(findings[0].measured, "[2, 5]");
    EXPECT_EQ(findings[0].limit, "[5, 2]");
}

TEST_F(ExpertCheckpoint, NamesExpertsThatTheModelDoesNotHave) {
    Contents contents = one_by_one();
    contents[kStem + "3.gate_proj.weight"] = contents[kStem + "2.gate_proj.weight"];
    contents[kStem + "3.up_proj.weight"] = contents[kStem + "2.up_proj.weight"];
    contents["model.layers.1.mlp.experts.7.up_proj.weight"] = {{1},
                                                               {0}};  // of a layer not asked for
    const core::Findings findings = findings_of(contents);
    ASSERT_EQ(findings.size(), 1U);
    EXPECT_EQ(findings[0].check, "names");
    EXPECT_THAT(findings[0].message, AllOf(HasSubstr(kStem + "3.gate_proj.weight"),
                                           HasSubstr("expert 3"), HasSubstr("experts 0 to 2")));
    EXPECT_THROW((void)make_safetensors_weights(folder_, expert_tensors()), core::FileError);
}

TEST_F(ExpertCheckpoint, NamesAStackOfAnotherNumberOfExpertsOnce) {
    Contents contents = stacked();
    Stored& gate_up = contents[kStem + "gate_up_proj"];
    gate_up.shape[0] = 2;
    gate_up.values.resize(2 * 2 * kIntermediate * kHidden);
    const core::Findings findings = findings_of(contents);
    ASSERT_EQ(findings.size(), 1U);
    EXPECT_EQ(findings[0].check, "shape_contract");
    EXPECT_EQ(findings[0].tensor, kStem + "gate_up_proj");
    EXPECT_EQ(findings[0].measured, "[2, 4, 5]");
    EXPECT_THAT(findings[0].limit, AllOf(HasSubstr("[3, 4, 5]"), HasSubstr("gate rows before up")));
}

TEST_F(ExpertCheckpoint, RefusesStacksThatAreTransposed) {
    Contents contents = stacked();
    std::swap(contents[kStem + "gate_up_proj"].shape[1], contents[kStem + "gate_up_proj"].shape[2]);
    std::swap(contents[kStem + "down_proj"].shape[1], contents[kStem + "down_proj"].shape[2]);
    const core::Findings findings = findings_of(contents);
    ASSERT_EQ(findings.size(), 2U);
    for (const core::Finding& finding : findings) {
        EXPECT_EQ(finding.check, "shape_contract");
        EXPECT_THAT(finding.remedy, HasSubstr("transposed"));
    }
    EXPECT_THAT([&] { (void)make_safetensors_weights(folder_, expert_tensors()); },
                ThrowsMessage<core::FileError>(HasSubstr("transposed")));
}

TEST_F(ExpertCheckpoint, RefusesExpertsThatAreStoredTwice) {
    Contents contents = one_by_one();
    contents.merge(stacked());
    const core::Findings findings = findings_of(contents);
    EXPECT_EQ(findings.size(), 9U);
    for (const core::Finding& finding : findings) {
        EXPECT_EQ(finding.check, "names");
        EXPECT_THAT(finding.measured, HasSubstr("stored alone and in"));
    }
}

TEST_F(ExpertCheckpoint, RefusesStacksThatAreQuantized) {
    Contents contents = stacked();
    contents[kStem + "down_proj"].dtype = "I16";
    const core::Findings findings = findings_of(contents);
    ASSERT_EQ(findings.size(), 1U);
    EXPECT_EQ(findings[0].check, "dtype");
    EXPECT_EQ(findings[0].tensor, kStem + "down_proj");
    EXPECT_EQ(findings[0].measured, "I16");
}

class MtpCheckpoint : public ExpertCheckpoint {
 protected:
    /// The names of a model with one element each: config_of_checkpoint asks for names alone.
    void write_names(const model::ModelConfig& config, const std::string& without = "none") {
        Contents contents;
        for (const model::TensorSpec& tensor : model::tensors_of(config)) {
            if (tensor.name.starts_with(without)) continue;
            contents[tensor.name] = {{1}, {0}};
        }
        write_checkpoint(contents);
    }
    model::ModelConfig config_ = model::find_model("tiny-mla").config;
};

TEST_F(MtpCheckpoint, KeepsTheLayersThatTheCheckpointHas) {
    write_names(config_);
    EXPECT_EQ(config_of_checkpoint(config_, folder_).mtp_layers, 1);
}

TEST_F(MtpCheckpoint, DropsTheLayersThatSavePretrainedDoesNotWrite) {
    write_names(config_, "model.layers.2.");
    const model::ModelConfig config = config_of_checkpoint(config_, folder_);
    EXPECT_EQ(config.mtp_layers, 0);
    EXPECT_EQ(config.layers, config_.layers);
}

TEST_F(MtpCheckpoint, KeepsLayersOfWhichOneTensorIsMissing) {
    write_names(config_, "model.layers.2.eh_proj");
    const model::ModelConfig config = config_of_checkpoint(config_, folder_);
    EXPECT_EQ(config.mtp_layers, 1);
    const core::Findings findings = check_checkpoint(folder_, model::tensors_of(config));
    EXPECT_EQ(std::count_if(findings.begin(), findings.end(),
                            [](const core::Finding& finding) {
                                return finding.check == "names" &&
                                       finding.tensor == "model.layers.2.eh_proj.weight";
                            }),
              1);
}

TEST_F(MtpCheckpoint, DoesNotOpenTheCheckpointOfAModelWithoutSuchLayers) {
    config_.mtp_layers = 0;
    EXPECT_NO_THROW((void)config_of_checkpoint(config_, folder_ / "absent"));
    config_.mtp_layers = 1;
    EXPECT_THROW((void)config_of_checkpoint(config_, folder_ / "absent"), core::FileError);
}

}  // namespace
}  // namespace refit::weights
