// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A stream's messages against what the receiving engine does with them, before any byte moves.
#pragma once

#include <cstdint>

#include "core/finding.hpp"
#include "receiver/engine_contract.hpp"
#include "wire/framing.hpp"
#include "wire/manifest.hpp"

namespace refit::receiver {

/// What the engine's own loader would meet in the messages of `manifest`, which trainer 0 cut by
/// `framing`; nothing for native.
///   shape_contract : a tensor at a byte that its element size does not divide, where the receiver
///   takes a view there; a tensor without dimensions, where the sender takes a byte view; a
///   boundary that this receiver, which computes them again with `own_buffer_bytes`, draws
///   elsewhere completeness   : q_a_proj and kv_a_proj_with_mqa in two requests to SGLang, which
///   loses both
/// One finding a tensor and cause. Sources: vLLM 017e9f4, packed_tensor.py; SGLang 8905cbd,
/// models/deepseek_v2.py (sglang#38298, #14486, #22576); PyTorch's view of another element size.
[[nodiscard]] core::Findings check_framing(const wire::RefitManifest& manifest,
                                           const ContractInstance& instance, wire::Framing framing,
                                           std::uint64_t own_buffer_bytes);

/// Completes findings of bytes and versions that came in: what only this program's own digests and
/// version show, the engine would not notice.
void add_unnoticed_by_engine(core::Findings& findings, wire::Framing framing);

/// Names of the manifest that end in "_scale_inv", by which NeMo-RL knows a stream that is
/// quantized already and loads it as it is.
[[nodiscard]] std::int64_t count_prequantized_marks(const wire::RefitManifest& manifest);

}  // namespace refit::receiver
