// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What the trainers will send: every tensor in the form the receivers asked for, packed into
// buckets.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/finding.hpp"
#include "model/tensor_spec.hpp"
#include "parallel/placement.hpp"
#include "quant/recipe.hpp"
#include "wire/framing.hpp"
#include "wire/manifest.hpp"
#include "wire/wanted_list.hpp"

namespace refit::trainer {

enum class ScaleShape { contract, zero_d, one_d, two_d };
/// What a trainer calls a scale of the KV cache, below "model.layers.N.self_attn.": the name of the
/// receivers' list, "k_scale" (compressed-tensors, NeMo-RL), "k_proj.k_scale" (ModelOpt), or
/// "attn.k_scale" (the engines' own parameter).
enum class CacheScaleNames { contract, layer, projection, parameter };
enum class Nonfinite { reject, recipe, propagate, sanitize };

struct Payload {
    quant::Scheme scheme = quant::Scheme::bf16;
    const quant::Recipe* recipe = nullptr;  ///< null for bf16
    ScaleShape scale_shape = ScaleShape::contract;
    Nonfinite nonfinite = Nonfinite::reject;
    std::uint64_t bucket_bytes = std::uint64_t{64} << 20;
    /// Anything but native: one trainer, tensors whole and in model order, each scale behind its
    /// weight, cut into messages by the framing's own rule.
    wire::Framing framing = wire::Framing::native;
    /// Activations whose scales are sent behind the model's tensors; empty sends none.
    std::vector<model::TensorSpec> calibrations = {};
    CacheScaleNames cache_scale_names = CacheScaleNames::contract;
};

/// Damage to plant on the trainer's side; globs over tensor names, "" = none.
struct TrainerFaults {
    std::string drop_tensor;    ///< left out of the manifest
    std::string rename_scale;   ///< weight_scale <-> weight_scale_inv
    std::string scale_dtype;    ///< scale announced and sent as uint8
    std::string scale_doubled;  ///< first scale of each matching tensor doubled before its digest
    std::string
        swap_tensors;  ///< the first two matching tensors of one shape exchange their values
    std::string wrong_eligibility;  ///< quantized where BF16 is wanted and the other way round
    std::string source_write;  ///< first value of the trainer's own weight changed after the refit
    std::string stale_cache_scale;         ///< sent in every refit as in the first one
    std::string cache_scale_value;         ///< replaced before its digest ...
    float cache_scale_replacement = 0.0F;  ///< ... by this
};

/// How one wire parameter is made from a model tensor.
struct Production {
    std::size_t tensor = 0;   ///< index into the model's tensors: whose values
    std::int64_t scale = -1;  ///< of codes: index of the scale parameter in the manifest
    bool quantized = false;
    std::int64_t calibration = -1;  ///< of a scale of the KV cache: index into the calibrations
};

/// Grid rows of a quantized parameter that several trainers hold parts of, whose amax they exchange
/// first. Of a parameter cut by columns all grid rows, where a column boundary cuts any tile.
struct SharedTiles {
    std::uint32_t parameter = 0;
    std::vector<std::int64_t> grid_rows;  ///< ascending
    bool last_element = false;            ///< the recipe pads ragged tiles with W[-1,-1]
    std::size_t offset = 0;               ///< into the bucket's exchange vector
};

struct RefitPlan {
    wire::RefitManifest manifest;
    std::vector<Production>
        productions;  ///< by manifest parameter; of a scale: its weight's production
    std::vector<parallel::Placement> placements;   ///< by model tensor
    std::vector<std::vector<SharedTiles>> shared;  ///< by bucket
    std::vector<std::size_t> exchange_words;       ///< by bucket
    core::Findings findings;  ///< where the trainer's own rule disagrees with the wanted list
};

/// Deterministic: every trainer makes the same plan. `wanted` decides what is quantized and what
/// the scales are called. Throws ShapeError when a recipe cannot take a tensor, ScenarioError when
/// the layout cannot cut one or the framing cannot carry one.
[[nodiscard]] RefitPlan make_plan(const std::vector<model::TensorSpec>& tensors,
                                  const wire::WantedList& wanted, const Payload& payload,
                                  const parallel::Sharding& sharding, const TrainerFaults& faults);

}  // namespace refit::trainer
