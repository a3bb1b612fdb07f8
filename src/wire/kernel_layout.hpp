// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What the receivers publish where parameters travel in the engine's own format: every parameter of
// every tensor-parallel rank, and which parts of the checkpoint's tensors it is made of.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/dtype.hpp"
#include "core/shape.hpp"

namespace refit::wire {

/// A rectangle of a checkpoint tensor and where it lies in the parameter.
struct KernelPart {
    std::string source;    ///< "model.layers.0.self_attn.k_proj.weight"
    core::Region region;   ///< of the source seen as a matrix
    std::int64_t row = 0;  ///< of the parameter seen as a matrix of KernelParameter::cols columns
    std::int64_t col = 0;
};

/// One parameter of one rank as the engine holds it. What no part covers is zero: the padding of a
/// vocabulary.
struct KernelParameter {
    std::string name;  ///< "model.layers.0.self_attn.qkv_proj.weight"
    int tp_rank = 0;
    core::DType dtype = core::DType::bf16;
    core::Shape shape;      ///< of the rank
    std::int64_t cols = 0;  ///< row length that the parts address; of a 3-D parameter its last
    bool is_scale = false;
    std::string scale_of;  ///< of a scale: name of its weight, without rank
    std::vector<KernelPart> parts;
};

struct KernelLayout {
    int tp = 1;
    std::vector<KernelParameter> parameters;  ///< ranks of one parameter side by side
};

/// Cuts of a parameter seen as a matrix on the wire (first dimension by the rest): the borders of
/// the parts it is made of, so that a cell holds elements of one checkpoint tensor and a digest
/// speaks of that tensor. Of a 3-D parameter a row is one expert, and only parts of the whole width
/// cut it.
struct KernelCuts {
    std::vector<std::int64_t> rows;  ///< from 0 to the rows, ascending
    std::vector<std::int64_t> cols;
};
[[nodiscard]] KernelCuts kernel_cuts(const KernelParameter& parameter);

/// Name on the wire: the parameter's own, and behind "@tp" the rank where there is more than one.
[[nodiscard]] std::string kernel_wire_name(const std::string& name, int tp_rank, int tp);
/// The parameter's own name and its rank; -1 where the name on the wire has none.
struct KernelName {
    std::string name;
    int tp_rank = -1;
};
[[nodiscard]] KernelName parse_kernel_wire_name(const std::string& wire_name);

[[nodiscard]] std::string to_json(const KernelLayout& layout);
/// Throws Error with what is wrong when the text is not a layout or a part leaves its parameter.
[[nodiscard]] KernelLayout kernel_layout_from_json(const std::string& text);

}  // namespace refit::wire
