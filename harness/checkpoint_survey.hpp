// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A checkpoint directory as `verify` sees it: its configuration, its tensors, and what can be said
// of each without knowing an engine.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "checks/scale_layout.hpp"
#include "checks/value_scan.hpp"
#include "core/finding.hpp"
#include "model/model_config.hpp"
#include "weights/checkpoint_directory.hpp"
#include "wire/manifest.hpp"

namespace refit::harness {

/// Told how many bytes have been looked at since the last call.
using Progress = std::function<void(std::uint64_t bytes)>;

class CheckpointSurvey {
 public:
    /// Opens config.json and every file. Throws FileError for a missing or malformed one.
    explicit CheckpointSurvey(const std::filesystem::path& directory);

    /// The model with the layers for multi-token prediction that the directory has.
    [[nodiscard]] const model::ModelConfig& model() const { return model_; }
    [[nodiscard]] const weights::CheckpointDirectory& files() const { return files_; }
    /// The `quantization_config` of config.json, else its `compression_config`, else the text of
    /// hf_quant_config.json, which ModelOpt writes beside it; nullopt without any.
    [[nodiscard]] const std::optional<std::string>& quantization_config() const { return config_; }
    [[nodiscard]] const std::vector<std::string>& names() const { return names_; }
    [[nodiscard]] std::int64_t tensors() const { return tensors_; }  ///< without scales
    [[nodiscard]] std::uint64_t bytes() const { return bytes_; }     ///< of all tensors

    /// The tensors as the parts of a refit, in order of their names; without cells.
    [[nodiscard]] wire::RefitManifest manifest() const;

    /// The scales of an F8_E4M3 matrix [rows, cols], or of a stack of them [experts, rows, cols],
    /// as exact values, matrix after matrix, with the layout of one.
    struct Scales {
        std::string name;
        core::DType dtype = core::DType::f32;
        core::Shape shape;
        std::int64_t matrices = 1;
        std::vector<double> values;
        checks::ScaleLayout layout;

        [[nodiscard]] std::span<const double> of_matrix(std::int64_t matrix) const;
    };
    /// nullopt where `weight` has no scales of a known layout, or two tensors of them.
    [[nodiscard]] std::optional<Scales> scales_of(const std::string& weight) const;
    /// The name of the F8_E4M3 tensor whose scale `scale` is; "" where there is none.
    [[nodiscard]] std::string weight_of(const std::string& scale) const;

    /// The tensor of the finding that shards have no index.
    static constexpr const char* kIndex = "model.safetensors.index.json";
    /// The check of the finding that a stored head differs from the embedding it is tied to.
    static constexpr const char* kTiedPair = "byte_identity";
    /// The limit of findings that call a scale too small, which only the weights that the
    /// checkpoint was made from can refute.
    static constexpr const char* kSmallestScale = ">= 1.17549435e-38";

    /// Findings of the values, of the index, and of a tied head, in order of the names. Reads every
    /// tensor once, a few MiB at a time.
    [[nodiscard]] core::Findings judge_values(const Progress& progress) const;

 private:
    void judge_files(core::Findings& findings) const;
    void judge_one(const std::string& name, const Progress& progress,
                   core::Findings& findings) const;
    void judge_scale(const std::string& name, const checks::ValueCounts& counts,
                     core::Findings& findings) const;
    void judge_range(const std::string& name, const checks::ValueCounts& counts,
                     core::Findings& findings) const;
    void judge_tied_head(core::Findings& findings) const;

    weights::CheckpointDirectory files_;
    model::ModelConfig model_;
    std::optional<std::string> config_;
    std::vector<checks::BlockSize> blocks_;  ///< that the config declares
    std::vector<std::string> names_;
    std::int64_t tensors_ = 0;
    std::uint64_t bytes_ = 0;
};

/// Bytes that are looked at before their memory is given back.
inline constexpr std::size_t kScanBytes = std::size_t{4} << 20;

}  // namespace refit::harness
