// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What the receivers publish at the handshake: every parameter they expect on the wire, and how
// they cut it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/dtype.hpp"
#include "core/shape.hpp"

namespace refit::wire {

/// One tensor as the receivers' engine wants it on the wire (checkpoint format: Hugging Face names,
/// global shapes).
struct WantedParameter {
    std::string name;                 ///< "model.layers.0.mlp.up_proj.weight_scale_inv"
    std::vector<core::DType> dtypes;  ///< that load correctly; the first is the one to send
    core::Shape shape;                ///< global
    /// Of a quantized weight: the name of its scale tensor. Of a scale: empty. Of the rest: empty.
    std::string scale;
    /// Of a scale: the name of its weight. Else empty.
    std::string scale_of;
    /// Cuts of the tensor seen as a matrix: cell boundaries from 0 to rows (cols), ascending. {0,
    /// rows} = not cut. The rectangle between neighbouring row and column cuts is a cell: what one
    /// tensor-parallel rank keeps, and the unit of digests.
    std::vector<std::int64_t> row_cuts;
    std::vector<std::int64_t> col_cuts;
    /// Parameters with the same non-empty group are fused by the engine (q/k/v, gate/up) and travel
    /// in one bucket together with their scales.
    std::string fuse_group;
    /// Of a scale of the KV cache: the activations whose amax it is made from,
    /// "model.layers.0.self_attn.k_cache". Else empty.
    std::string calibration = {};
};

using WantedList = std::vector<WantedParameter>;

[[nodiscard]] std::string to_json(const WantedList& wanted);
/// Throws Error with what is wrong when the text is not a wanted list.
[[nodiscard]] WantedList wanted_list_from_json(const std::string& text);

}  // namespace refit::wire
