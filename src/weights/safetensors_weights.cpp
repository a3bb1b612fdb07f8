// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/error.hpp"
#include "core/nearest_name.hpp"
#include "weights/checkpoint_directory.hpp"
#include "weights/region_check.hpp"
#include "weights/safetensors_weights.hpp"
#include "weights/stored_places.hpp"
#include "weights/stored_values.hpp"

namespace refit::weights {
namespace {

/// "FILE: tensor 'X' is missing, the model's config wants [2, 1]".
std::string sentence(const StoredPlaces::Problem& problem) {
    return problem.where.string() + ": tensor '" + problem.tensor + "' is " + problem.measured +
           ", the model's config wants " + problem.wanted;
}

class SafetensorsWeights final : public WeightSource {
 public:
    SafetensorsWeights(const std::filesystem::path& directory,
                       const std::vector<model::TensorSpec>& tensors)
        : checkpoint_(directory), places_(checkpoint_, tensors) {
        for (const model::TensorSpec& tensor : tensors) require(tensor);
        for (const StoredPlaces::Problem& problem : places_.surplus_experts()) refuse(problem);
    }

    void read(const model::TensorSpec& tensor, const core::Region& region, std::uint16_t* out,
              std::int64_t out_stride) const override {
        check_region(tensor, region, out_stride);
        require(tensor);
        const StoredPlaces::Place at = places_.find(tensor);
        read_as_bf16(at, core::matrix_cols(tensor.shape), region, out, out_stride);
    }

    void set_step(std::int64_t) override {}

    [[nodiscard]] std::string description() const override {
        const std::size_t files = checkpoint_.file_count();
        return "safetensors " + checkpoint_.path().string() + " (" + std::to_string(files) +
               (files == 1 ? " file)" : " files)");
    }

 private:
    [[noreturn]] void refuse(const StoredPlaces::Problem& problem) const {
        std::string nearest;
        if (problem.measured == "missing") {
            const std::vector<std::string> names = checkpoint_.names();
            for (const std::string& name : core::nearest_names(problem.tensor, names)) {
                nearest += (nearest.empty() ? "; nearest: " : ", ") + name;
            }
        }
        throw core::FileError(sentence(problem) + nearest + "; " + problem.remedy);
    }

    void require(const model::TensorSpec& tensor) const {
        if (const auto problem = places_.problem_of(tensor)) refuse(*problem);
    }

    CheckpointDirectory checkpoint_;
    StoredPlaces places_;
};

}  // namespace

core::Findings check_checkpoint(const std::filesystem::path& directory,
                                const std::vector<model::TensorSpec>& tensors) {
    const CheckpointDirectory checkpoint(directory);
    const StoredPlaces places(checkpoint, tensors);
    core::Findings findings;
    std::set<std::string> reported;
    const auto report = [&](const StoredPlaces::Problem& problem) {
        // A stack is one tensor, however many experts are looked for in it.
        if (!reported.insert(problem.tensor).second) return;
        core::Finding finding;
        finding.check = problem.check;
        finding.tensor = problem.tensor;
        finding.measured = problem.measured;
        finding.limit = problem.wanted;
        finding.message = sentence(problem);
        finding.remedy = problem.remedy;
        findings.push_back(finding);
    };
    for (const model::TensorSpec& tensor : tensors) {
        if (const auto problem = places.problem_of(tensor)) report(*problem);
    }
    for (const StoredPlaces::Problem& problem : places.surplus_experts()) report(problem);
    return findings;
}

model::ModelConfig config_of_checkpoint(model::ModelConfig config,
                                        const std::filesystem::path& directory) {
    if (config.mtp_layers == 0) return config;
    return config_of_checkpoint(std::move(config), CheckpointDirectory(directory));
}

model::ModelConfig config_of_checkpoint(model::ModelConfig config,
                                        const CheckpointDirectory& checkpoint) {
    if (config.mtp_layers == 0) return config;
    for (const std::string& name : checkpoint.names()) {
        for (std::int64_t i = 0; i < config.mtp_layers; ++i) {
            const std::string layer = "model.layers." + std::to_string(config.layers + i) + ".";
            if (name.starts_with(layer)) return config;
        }
    }
    config.mtp_layers = 0;
    return config;
}

std::unique_ptr<WeightSource> make_safetensors_weights(
    const std::filesystem::path& directory, const std::vector<model::TensorSpec>& tensors) {
    return std::make_unique<SafetensorsWeights>(directory, tensors);
}

}  // namespace refit::weights
