// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "weights/stored_places.hpp"

#include <algorithm>
#include <charconv>
#include <set>
#include <string_view>
#include <utility>

namespace refit::weights {
namespace {

constexpr std::string_view kExperts = ".experts.";
constexpr const char* kTogether = "check that model and checkpoint belong together";

/// "model.layers.3.mlp.experts." of an expert's tensor; empty where the name has no such part.
std::string stem_of(const std::string& name) {
    const std::size_t at = name.rfind(kExperts);
    return at == std::string::npos ? std::string() : name.substr(0, at + kExperts.size());
}

bool is_readable(core::DType dtype) {
    return dtype == core::DType::bf16 || dtype == core::DType::f16 || dtype == core::DType::f32;
}

}  // namespace

StoredPlaces::StoredPlaces(const CheckpointDirectory& checkpoint,
                           const std::vector<model::TensorSpec>& tensors)
    : checkpoint_(checkpoint) {
    for (const model::TensorSpec& tensor : tensors) {
        if (tensor.expert < 0) continue;
        const std::string stem = stem_of(tensor.name);
        if (stem.empty()) continue;
        std::int64_t& count = experts_[stem];
        count = std::max(count, std::int64_t{tensor.expert} + 1);
    }
}

std::optional<StoredPlaces::Stack> StoredPlaces::stack_of(const model::TensorSpec& tensor) const {
    if (tensor.expert < 0 || tensor.shape.size() != 2) return std::nullopt;
    const std::string stem = stem_of(tensor.name);
    const auto counted = experts_.find(stem);
    if (counted == experts_.end()) return std::nullopt;
    const std::int64_t rows = tensor.shape[0];
    const std::int64_t cols = tensor.shape[1];
    if (tensor.role == model::Role::down_proj) {
        return Stack{stem + "down_proj",
                     {counted->second, rows, cols},
                     tensor.expert * rows,
                     "experts, hidden, moe_intermediate"};
    }
    if (tensor.role != model::Role::gate_proj && tensor.role != model::Role::up_proj) {
        return std::nullopt;
    }
    const std::int64_t half = tensor.role == model::Role::up_proj ? rows : 0;
    return Stack{stem + "gate_up_proj",
                 {counted->second, 2 * rows, cols},
                 tensor.expert * 2 * rows + half,
                 "experts, gate rows before up rows, hidden"};
}

StoredPlaces::Place StoredPlaces::find(const model::TensorSpec& tensor) const {
    const CheckpointDirectory::Location alone = checkpoint_.find(tensor.name);
    if (alone.tensor != nullptr) return {alone.file, alone.tensor, 0};
    const std::optional<Stack> stack = stack_of(tensor);
    if (!stack) return {};
    const CheckpointDirectory::Location stacked = checkpoint_.find(stack->name);
    if (stacked.tensor == nullptr) return {};
    return {stacked.file, stacked.tensor, stack->first_row};
}

std::optional<StoredPlaces::Problem> StoredPlaces::problem_of(
    const model::TensorSpec& tensor) const {
    const CheckpointDirectory::Location alone = checkpoint_.find(tensor.name);
    const std::optional<Stack> stack = stack_of(tensor);
    const CheckpointDirectory::Location stacked =
        stack ? checkpoint_.find(stack->name) : CheckpointDirectory::Location{};
    std::string wanted = core::to_string(tensor.shape);
    if (alone.tensor == nullptr && stacked.tensor == nullptr) {
        if (stack) wanted += ", or '" + stack->name + "' with all experts";
        return Problem{"names", tensor.name, "missing", wanted, checkpoint_.path(), kTogether};
    }
    if (alone.tensor != nullptr && stacked.tensor != nullptr) {
        return Problem{"names",
                       tensor.name,
                       "stored alone and in '" + stack->name + "' too",
                       "it once",
                       alone.file->path(),
                       "remove one of the two: nothing says which holds the newer values"};
    }
    const bool is_alone = alone.tensor != nullptr;
    const CheckpointDirectory::Location at = is_alone ? alone : stacked;
    const core::Shape& shape = is_alone ? tensor.shape : stack->shape;
    const core::Shape& stored = at.tensor->shape;
    if (stored != shape) {
        Problem problem{"shape_contract",       at.tensor->name, core::to_string(stored),
                        core::to_string(shape), at.file->path(), kTogether};
        if (!is_alone) {
            problem.wanted += " (" + stack->meaning + ")";
            if (stored == core::Shape{shape[0], shape[2], shape[1]}) {
                problem.remedy =
                    "its last two dimensions are transposed: store the experts one by one, or with "
                    "the dimensions as the config wants them";
            }
        }
        return problem;
    }
    if (!is_readable(at.tensor->dtype)) {
        return Problem{"dtype",
                       at.tensor->name,
                       std::string(core::safetensors_name(at.tensor->dtype)),
                       "BF16, F16 or F32 (training weights, not quantized ones)",
                       at.file->path(),
                       "give the checkpoint before its quantization"};
    }
    return std::nullopt;
}

std::vector<StoredPlaces::Problem> StoredPlaces::surplus_experts() const {
    std::vector<Problem> problems;
    if (experts_.empty()) return problems;
    std::set<std::pair<std::string, std::int64_t>> seen;
    for (const std::string& name : checkpoint_.names()) {
        const std::string stem = stem_of(name);
        const auto counted = experts_.find(stem);
        if (stem.empty() || counted == experts_.end()) continue;
        std::int64_t expert = -1;
        const char* first = name.data() + stem.size();
        const auto parsed = std::from_chars(first, name.data() + name.size(), expert);
        if (parsed.ec != std::errc() || *parsed.ptr != '.' || expert < counted->second) continue;
        if (!seen.emplace(stem, expert).second) continue;
        problems.push_back(
            {"names", name, "of expert " + std::to_string(expert),
             "experts 0 to " + std::to_string(counted->second - 1) + " in this layer",
             checkpoint_.find(name).file->path(), kTogether});
    }
    return problems;
}

}  // namespace refit::weights
