// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Contracts against the listings of tests/golden/generate_contracts.py, which states the engine's
// loader apart.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "unit/receiver/refit_fixture.hpp"

namespace refit::receiver_test {
namespace {

using quant::Scheme;

struct Listed {
    std::string stem;  ///< "vllm-fp8.tiny-llama.tp2"
    std::string engine;
    Scheme scheme;
    std::string model;
    int tp;
    int ep = 1;
    int block = 128;
};

receiver::ContractInstance instance_of_listing(const Listed& listed) {
    const model::ModelConfig model = named_model(listed.model);
    if (listed.block == 128) {
        return instance_of(listed.engine, listed.scheme, model, listed.tp, listed.ep);
    }
    const std::string size = std::to_string(listed.block);
    const receiver::ConfigReading reading = receiver::read_quantization_config(
        listed.engine,
        R"({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [)" + size +
            ", " + size + "]}");
    return receiver::apply_contract(receiver::find_engine(listed.engine), model, reading.config,
                                    listed.tp, listed.ep);
}

std::vector<Listed> listings() {
    std::vector<Listed> result;
    const std::vector<Listed> engines = {
        {"vllm-bf16", "vllm-bf16", Scheme::bf16, "", 0},
        {"vllm-fp8", "vllm-fp8", Scheme::fp8_blockwise, "", 0},
        {"vllm-fp8-tensorwise", "vllm-fp8", Scheme::fp8_tensorwise, "", 0},
        {"vllm-compressed-tensors", "vllm-compressed-tensors", Scheme::fp8_channelwise, "", 0},
        {"vllm-compressed-tensors-blockwise", "vllm-compressed-tensors", Scheme::fp8_blockwise, "",
         0},
        {"vllm-modelopt", "vllm-modelopt", Scheme::fp8_channelwise, "", 0},
        {"vllm-modelopt-pb-wo", "vllm-modelopt", Scheme::fp8_blockwise, "", 0},
        {"sglang-bf16", "sglang-bf16", Scheme::bf16, "", 0},
        {"sglang-fp8", "sglang-fp8", Scheme::fp8_blockwise, "", 0},
        {"vllm-fp8-64", "vllm-fp8", Scheme::fp8_blockwise, "", 0, 1, 64},
        {"sglang-fp8-64", "sglang-fp8", Scheme::fp8_blockwise, "", 0, 1, 64},
        {"sglang-fp8-tensorwise", "sglang-fp8", Scheme::fp8_tensorwise, "", 0},
        {"sglang-compressed-tensors", "sglang-compressed-tensors", Scheme::fp8_channelwise, "", 0},
        {"sglang-compressed-tensors-blockwise", "sglang-compressed-tensors", Scheme::fp8_blockwise,
         "", 0},
        {"transformers-fp8", "transformers-fp8", Scheme::fp8_blockwise, "", 0},
        {"transformers-fp8-tensorwise", "transformers-fp8", Scheme::fp8_tensorwise, "", 0},
        {"trtllm-fp8", "trtllm-fp8", Scheme::fp8_channelwise, "", 0},
        {"strict", "strict", Scheme::fp8_blockwise, "", 0},
        {"strict-channelwise", "strict", Scheme::fp8_channelwise, "", 0},
    };
    for (const Listed& engine : engines) {
        for (const char* model :
             {"tiny-llama", "qwen3-0.6b", "qwen2.5-0.5b", "padded-llama", "tiny-moe", "tiny-mla"}) {
            for (const int tp : {1, 2, 4, 16}) {
                for (const bool whole_experts : {false, true}) {
                    const std::string stem = engine.stem + "." + model + ".tp" +
                                             std::to_string(tp) + (whole_experts ? "-ep" : "");
                    if (!std::filesystem::exists(std::string(REFIT_SOURCE_DIR) +
                                                 "/tests/golden/contracts/" + stem + ".txt")) {
                        continue;
                    }
                    result.push_back({stem, engine.engine, engine.scheme, model, tp,
                                      whole_experts ? tp : 1, engine.block});
                }
            }
        }
    }
    return result;
}

std::vector<std::string> lines_of(const receiver::ContractInstance& instance) {
    std::vector<std::string> wire_lines;
    std::vector<std::string> dest_lines;
    std::vector<std::string> load_lines;
    for (const wire::WantedParameter& wanted : instance.wanted) {
        std::string line = "wire " + wanted.name + " " + core::to_string(wanted.shape) + " ";
        for (std::size_t i = 0; i < wanted.dtypes.size(); ++i) {
            line += (i == 0 ? "" : ",") + std::string(core::safetensors_name(wanted.dtypes[i]));
        }
        wire_lines.push_back(line);
    }
    for (const receiver::DestinationParameter& dest : instance.destinations) {
        dest_lines.push_back("dest " + dest.name + " " + core::to_string(dest.shape) + " " +
                             std::string(core::safetensors_name(dest.dtype)));
    }
    for (std::size_t rank = 0; rank < instance.spans.size(); ++rank) {
        for (const receiver::LoadSpan& span : instance.spans[rank]) {
            const core::Region& s = span.source;
            load_lines.push_back(
                "load " + std::to_string(rank) + " " + instance.wanted[span.wanted].name + "[" +
                std::to_string(s.row) + ":" + std::to_string(s.row + s.rows) + ", " +
                std::to_string(s.col) + ":" + std::to_string(s.col + s.cols) + "] -> " +
                instance.destinations[span.destination].name + "[" + std::to_string(span.dest_row) +
                (span.dest_col == 0 ? "" : ", " + std::to_string(span.dest_col)) + "]");
        }
    }
    std::sort(dest_lines.begin(), dest_lines.end());
    std::sort(load_lines.begin(), load_lines.end());
    wire_lines.insert(wire_lines.end(), dest_lines.begin(), dest_lines.end());
    wire_lines.insert(wire_lines.end(), load_lines.begin(), load_lines.end());
    return wire_lines;
}

class ContractListing : public testing::TestWithParam<Listed> {};

TEST_P(ContractListing, HasTheNamesShapesAndSlicesOfTheEngine) {
    const Listed& listed = GetParam();
    std::ifstream file(std::string(REFIT_SOURCE_DIR) + "/tests/golden/contracts/" + listed.stem +
                       ".txt");
    std::vector<std::string> expected;
    for (std::string line; std::getline(file, line);) expected.push_back(line);
    const receiver::ContractInstance instance = instance_of_listing(listed);
    // vLLM's loader has the layout of such experts; it has no kernel for them.
    const bool no_kernel =
        listed.engine == "vllm-fp8" && listed.block != 128 && listed.model.starts_with("tiny-m");
    EXPECT_EQ(core::has_error(instance.refusals), no_kernel);
    const std::vector<std::string> found = lines_of(instance);
    ASSERT_EQ(found.size(), expected.size());
    for (std::size_t i = 0; i < found.size(); ++i)
        ASSERT_EQ(found[i], expected[i]) << "line " << i + 1;
}

TEST_P(ContractListing, CellsAreWhatTheRanksKeep) {
    const Listed& listed = GetParam();
    const receiver::ContractInstance instance = instance_of_listing(listed);
    const wire::RefitManifest manifest = list_of(instance);
    for (const auto& spans : instance.spans) {
        for (const receiver::LoadSpan& span : spans) {
            const wire::ParameterMeta& meta = manifest.parameters[span.wanted];
            bool found = false;
            for (const wire::Cell& cell :
                 wire::cells_within(meta, core::RowRange{0, meta.rows()})) {
                found = found || (cell.index == span.cell && cell.region == span.source);
            }
            ASSERT_TRUE(found) << meta.name;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Listings, ContractListing, testing::ValuesIn(listings()),
                         [](const auto& listed) {
                             std::string name = listed.param.stem;
                             std::replace_if(
                                 name.begin(), name.end(),
                                 [](char c) { return c == '-' || c == '.'; }, '_');
                             return name;
                         });

TEST(ContractListings, AreAllCompared) {
    std::size_t files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(std::string(REFIT_SOURCE_DIR) +
                                                                 "/tests/golden/contracts")) {
        files += entry.path().extension() == ".txt" ? 1 : 0;
    }
    EXPECT_EQ(files, listings().size());
    EXPECT_GT(files, 100U);
}

}  // namespace
}  // namespace refit::receiver_test
