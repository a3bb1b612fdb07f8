// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// From the names and indices of an engine's own parameters back to those of the checkpoint.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/finding.hpp"
#include "receiver/engine_contract.hpp"
#include "wire/kernel_layout.hpp"

namespace refit::receiver {

/// Says in the checkpoint's words what was found in the engine's own format.
class CheckpointNames {
 public:
    /// `instance` is the engine's for checkpoint names, not what kernel_instance() makes of it.
    explicit CheckpointNames(const ContractInstance& instance);

    /// Every finding about one of the engine's parameters, under its name on the wire, becomes one
    /// about the tensor that its index belongs to, with the global index there; a scale's about the
    /// tensor that holds the scale. Without an index, and in the padding of a vocabulary, it is
    /// about the whole parameter: `tensor` is the first that the parameter is made of, and the
    /// message lists them all. The message keeps the engine's name, rank and index. Findings that
    /// differ in nothing but the rank that the parameter is meant for become one. Names that are no
    /// parameter of the engine stay.
    [[nodiscard]] core::Findings translate(core::Findings findings) const;

 private:
    /// A parameter that a finding names.
    struct Named {
        const wire::KernelParameter* parameter = nullptr;  ///< of the rank, or of rank 0
        std::string label;  ///< "model.layers.0.self_attn.qkv_proj.weight of TP rank 1"
        std::vector<std::string> sources;  ///< in the order of its rows, each once
    };
    [[nodiscard]] bool is_a_checkpoint_place(const core::Finding& finding) const;
    [[nodiscard]] std::optional<Named> find(const std::string& wire_name) const;
    /// Tensor and index of one of the parameter's elements; nothing where it is padding.
    [[nodiscard]] std::optional<std::pair<std::string, std::vector<std::int64_t>>> place(
        const wire::KernelParameter& parameter, const std::vector<std::int64_t>& index) const;
    void rename(core::Finding& finding, const Named& named) const;

    wire::KernelLayout layout_;
    std::map<std::string, std::size_t> first_rank_;  ///< parameter -> index into the layout
    std::map<std::string, core::Shape> wanted_;      ///< checkpoint tensor -> its shape
};

}  // namespace refit::receiver
