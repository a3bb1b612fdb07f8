// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Where the tensors of a model lie in a checkpoint: alone under their names, or, routed experts,
// as parts of a stack.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "model/tensor_spec.hpp"
#include "weights/checkpoint_directory.hpp"

namespace refit::weights {

/// Newer versions of Hugging Face transformers hold the experts of a layer as two 3-D tensors and
/// may store them so: `mlp.experts.gate_up_proj` [experts, 2 * moe_intermediate, hidden], gate rows
/// first, and `mlp.experts.down_proj` [experts, hidden, moe_intermediate]. The last two dimensions
/// the other way round, as some model classes have them, are refused by their shape. Where one of
/// the two tensors is square in them, and would look the same either way, the other one is not.
class StoredPlaces {
 public:
    /// `tensors` : all of the model that are wanted, so that the experts of a layer can be counted.
    /// `checkpoint` must outlive this.
    StoredPlaces(const CheckpointDirectory& checkpoint,
                 const std::vector<model::TensorSpec>& tensors);

    struct Place {
        const SafetensorsFile* file = nullptr;
        const StoredTensor* tensor = nullptr;
        std::int64_t first_row = 0;  ///< of the stored tensor seen as rows of the last dimension
    };
    /// Where `tensor` lies; all nullptr where it is neither alone nor in a stack. Shape and dtype
    /// are what problem_of has not refused.
    [[nodiscard]] Place find(const model::TensorSpec& tensor) const;

    /// Why a tensor cannot be read.
    struct Problem {
        const char* check = "";       ///< names, shape_contract or dtype
        std::string tensor;           ///< name in the checkpoint, or that which is missing
        std::string measured;         ///< "missing", "[2, 1]", "F8_E4M3"
        std::string wanted;           ///< what the model's config wants
        std::filesystem::path where;  ///< file, or the checkpoint's directory
        std::string remedy;
    };
    [[nodiscard]] std::optional<Problem> problem_of(const model::TensorSpec& tensor) const;
    /// Experts in the checkpoint that the model's layer does not have, one problem an expert.
    [[nodiscard]] std::vector<Problem> surplus_experts() const;

 private:
    struct Stack {
        std::string name;
        core::Shape shape;
        std::int64_t first_row = 0;
        std::string meaning;  ///< of the dimensions
    };
    [[nodiscard]] std::optional<Stack> stack_of(const model::TensorSpec& tensor) const;

    const CheckpointDirectory& checkpoint_;
    std::map<std::string, std::int64_t> experts_;  ///< "model.layers.3.mlp.experts." -> 256
};

}  // namespace refit::weights
