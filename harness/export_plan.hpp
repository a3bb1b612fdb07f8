// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What an exported checkpoint will hold: which tensors in which form, and which layers stay in
// BF16.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/dtype.hpp"
#include "core/shape.hpp"
#include "harness/export_config.hpp"
#include "model/model_config.hpp"
#include "quant/recipe.hpp"
#include "weights/checkpoint_directory.hpp"
#include "weights/stored_places.hpp"

namespace refit::harness {

/// What to do with layers that the engine cannot load quantized.
enum class Unloadable { refuse, bf16 };

struct ExportRequest {
    std::filesystem::path model;
    std::string recipe;
    std::string engine;
    std::filesystem::path config_override;  ///< "" for none
    int tp = 1;
    Unloadable unloadable = Unloadable::refuse;
};

/// One tensor of the model in the exported checkpoint.
struct ExportTensor {
    std::string name;
    core::Shape shape;
    core::DType dtype = core::DType::bf16;  ///< as written
    weights::StoredPlaces::Place place;     ///< where the source holds it
    bool of_model = true;                   ///< false for a scale of the KV cache
    // Of a quantized matrix; the name is empty for the rest.
    std::string scale_name;
    core::Shape scale_shape;
    core::DType scale_dtype = core::DType::f32;

    [[nodiscard]] bool quantized() const { return !scale_name.empty(); }
};

struct LeftInBf16 {
    std::string module;  ///< full name of a linear layer or router
    std::string reason;
};

struct ExportPlan {
    const quant::Recipe* recipe = nullptr;
    model::ModelConfig model;
    std::string engine_version;
    std::vector<ExportTensor> tensors;     ///< in model order, then scales of the KV cache
    std::vector<LeftInBf16> left;          ///< in model order
    std::vector<std::string> skip_list;    ///< as written into the config
    std::vector<std::string> warnings;     ///< what the engine's contract warns of
    std::vector<std::string> not_written;  ///< of the source: tied heads, derived buffers
    std::optional<ExportConfig> config;
    /// Keeps the source's files mapped.
    std::unique_ptr<weights::CheckpointDirectory> source;
    std::unique_ptr<weights::StoredPlaces> places;
};

/// Decides everything before a byte is written. Which matrices are quantized is the trainer's rule
/// (eligibility), less those that --config-override lists and, under Unloadable::bf16, whole fused
/// layers that the engine cannot load quantized at `tp`. The engine's contract, applied to the
/// config that will be written, decides the same once more, and names and shapes of the scales.
///
/// Throws UsageError for a recipe or engine that does not exist or do not fit together (naming
/// those that do); Error with exit code 1 for a source that is quantized or incomplete, a model
/// that the engine does not load in this form (with the engine's message), or tensors that nothing
/// reads; FileError for malformed files.
[[nodiscard]] ExportPlan plan_export(const ExportRequest& request);

}  // namespace refit::harness
