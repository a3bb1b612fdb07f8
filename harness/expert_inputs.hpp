// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Static input scales of the two projections of an expert that engines hold as one.
#pragma once

#include "core/finding.hpp"
#include "harness/checkpoint_survey.hpp"
#include "receiver/engine_contract.hpp"

namespace refit::harness {

/// Experts whose gate_proj and up_proj have different input scales, which the loaders of vLLM and
/// SGLang write into one parameter: with quant_method compressed-tensors they raise where the
/// values are more than 1e-5 apart (an error), with fp8 the one that comes last stays (a warning).
/// ModelOpt's experts have a place for each. Sources: vLLM 017e9f4448b7,
/// layers/fused_moe/routed_experts.py; SGLang 8905cbd42f4a, layers/moe/fused_moe_triton/layer.py.
[[nodiscard]] core::Findings differing_expert_inputs(const receiver::EngineContract& contract,
                                                     const receiver::QuantizationConfig& config,
                                                     const CheckpointSurvey& survey);

}  // namespace refit::harness
