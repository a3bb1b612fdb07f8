// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/error.hpp"
#include "core/nearest_name.hpp"
#include "weights/region_check.hpp"
#include "weights/safetensors_file.hpp"
#include "weights/stored_places.hpp"

namespace refit::weights {
namespace {

/// Round to nearest even; any NaN becomes 0x7FC0 as in PyTorch, since truncation could turn one
/// into Inf.
std::uint16_t bf16_of_f32(std::uint32_t bits) {
    if ((bits & 0x7FFFFFFFU) > 0x7F800000U) return 0x7FC0;
    const std::uint32_t half_minus_one_or_half = 0x7FFFU + ((bits >> 16) & 1U);
    return static_cast<std::uint16_t>((bits + half_minus_one_or_half) >> 16);
}

/// Exact: every F16 value is an F32 value.
std::uint32_t f32_of_f16(std::uint16_t bits) {
    const std::uint32_t sign = (bits & 0x8000U) << 16;
    const std::uint32_t exponent = (bits >> 10) & 0x1FU;
    const std::uint32_t mantissa = bits & 0x3FFU;
    if (exponent == 0x1FU) return sign | 0x7F800000U | (mantissa << 13);
    if (exponent != 0) return sign | ((exponent + (127U - 15U)) << 23) | (mantissa << 13);
    // Zero and subnormals are mantissa * 2^-24.
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign | std::bit_cast<std::uint32_t>(magnitude);
}

template <typename Stored>
Stored load(const std::byte* from) {
    // A header of odd length leaves the data unaligned.
    Stored value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

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
        const std::int64_t stored_bytes = core::size_bytes(at.tensor->dtype);
        const std::int64_t cols = core::matrix_cols(tensor.shape);
        const std::byte* data = at.file->bytes(*at.tensor).data();
        for (std::int64_t r = 0; r < region.rows; ++r) {
            const std::byte* from =
                data + ((at.first_row + region.row + r) * cols + region.col) * stored_bytes;
            std::uint16_t* to = out + r * out_stride;
            if (at.tensor->dtype == core::DType::bf16) {
                std::memcpy(to, from, static_cast<std::size_t>(region.cols) * sizeof *to);
            } else if (at.tensor->dtype == core::DType::f16) {
                for (std::int64_t c = 0; c < region.cols; ++c) {
                    to[c] = bf16_of_f32(f32_of_f16(load<std::uint16_t>(from + 2 * c)));
                }
            } else {
                for (std::int64_t c = 0; c < region.cols; ++c) {
                    to[c] = bf16_of_f32(load<std::uint32_t>(from + 4 * c));
                }
            }
        }
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
